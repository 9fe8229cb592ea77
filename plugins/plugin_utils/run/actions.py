# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Run a module of ours from an action: show its progress while it works, keep its ledger, time its phase.

A module cannot stream. Its engine writes a small progress file on the service's host, and we read that while it runs:
 - on a local connection a thread reads the file and the module runs as usual: it costs nothing;
 - elsewhere the module runs as an async job and we look at file and job in one command per poll. That costs one to two
   seconds more, so ``lifeboat_progress: false`` gives it up. A connection that drops between two looks does no harm.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import shlex
import threading
import time
from abc import abstractmethod
from typing import Any, Callable, Iterator, Optional

from ansible import constants as C
from ansible.errors import AnsibleConnectionFailure
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible.utils.vars import load_extra_vars

from ansible_collections.lifeboat.recovery.plugins.module_utils import policy
from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import ConfigError, LifeboatError, SourceError
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run import built, lines, payload, precedence, presence, waiting, who, words
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run.directory import RunDirectory

display = Display()

#: Seconds an async job may take before its host kills it; ``lifeboat_job_timeout`` overrides.
JOB_TIMEOUT = 86400
#: Seconds between lines when the live view does not run.
_LINE_EVERY = 2.0
_CUT = "==lifeboat-cut=="
#: The niceness of what gives way: next to no processor time as long as others want it, and all of it when nobody does.
NICE = 19
#: Seconds during which a host may be out of reach while its job runs on.
_PATIENCE = 60.0
#: Facts of an answer that run.json and the report are made of; the rest (diff, invocation, ledger) is not kept.
_NOT_KEPT = ("ledger", "invocation", "diff", "exception", "deprecations")
#: What Ansible prints of a call that failed; everything else is in the run directory by then.
_SHOWN = ("failed", "unreachable", "changed", "msg", "error", "exception", "warnings", "deprecations")


def run_directory(run: Any, path: Any = None) -> Optional[RunDirectory]:
    """The run directory a task belongs to: its ``run_dir``, else ``directory`` of its ``run``; None when it belongs to none."""
    found = path or (run.get("directory") if isinstance(run, dict) else None)
    return RunDirectory(str(found)) if found else None


class Leash:
    """Ties a waiting worker to its ansible-playbook: were that killed, the worker would wait for ever and answer nobody."""

    def __init__(self) -> None:
        self._parent = os.getppid()

    def check(self) -> None:
        """End this worker, with its clean-up, when ansible-playbook is gone."""
        if os.getppid() != self._parent:
            raise SystemExit("ansible-playbook is gone")


def no_answer(said: str, machine: str) -> str:
    """One line for a host that cannot be reached, from what the connection said."""
    for noise in (r"^Task failed: ", r"^Failed to connect to the host via ssh: ", r"^Data could not be sent to remote host .*? over ssh: "):
        said = re.sub(noise, "", said.strip(), flags=re.DOTALL)
    return f"the host does not answer ({words.one_line(said, 200)}): {machine}"


class RunActionBase(ActionBase):  # type: ignore[misc]  # ansible-core ships no type hints for it
    """Turns our errors into results, one line and the error's parts, and runs our modules from the copy of their code that a host keeps."""

    #: Whether the code goes along: a job on the host answers too late to ask for it.
    _whole = False
    #: Of the code, for the process that waits on the host; "" where none shall.
    _family = ""
    #: The least niceness of what runs on the host.
    _nice = 0
    #: Whether a step cannot go on without the answer: a host out of reach is then a failure where the play ignores what is unreachable.
    NEEDS_ANSWER = False

    def _configure_module(self, module_name: str, module_args: dict[str, Any], task_vars: dict[str, Any]) -> Any:
        if not module_name.startswith("lifeboat.recovery."):
            return super()._configure_module(module_name, module_args, task_vars)
        with built.remembered(module_name.rpartition(".")[2], C.DEFAULT_LOCAL_TMP):
            made, path = super()._configure_module(module_name, module_args, task_vars)
        if made.module_style != "new" or C.DEFAULT_KEEP_REMOTE_FILES:
            return made, path
        return dataclasses.replace(made, b_module_data=payload.slim(
            made.b_module_data, self._whole, C.DEFAULT_LOCAL_TMP, self._family, self._nice)), path

    def _execute_module(self, *args: Any, **options: Any) -> dict[str, Any]:
        become = self._connection.become
        resident = self._variable(options.get("task_vars") or {}, "lifeboat_resident")
        self._family = built.family(C.DEFAULT_LOCAL_TMP) if resident in (None, "") or boolean(resident) else ""
        note = payload.note(C.DEFAULT_LOCAL_TMP, str(self._connection.transport), str(self._play_context.remote_addr), str(
            self._play_context.remote_user), str(become.get_option("become_user") if become else ""))
        self._whole = bool(options.get("wrap_async")) or os.path.exists(note)
        answer: dict[str, Any] = super()._execute_module(*args, **options)
        if payload.ABSENT in answer:
            if answer[payload.ABSENT] != "absent":
                with contextlib.suppress(OSError), open(note, "w", encoding="ascii"):
                    pass
            self._whole = True
            answer = super()._execute_module(*args, **options)
        return answer

    def _variable(self, task_vars: dict[str, Any], name: str) -> Any:
        value = task_vars.get(name)
        return self._templar.template(value) if value is not None else None

    def give_way(self, run: RunDirectory, service: str) -> None:
        """Leave the processors to services that decide when the last is back, if this one does not. For work that starts nothing that outlives it."""
        if (run.plan.get("services") or {}).get(service, {}).get("gives_way"):
            self._nice = NICE
            precedence.set_niceness(max(NICE, os.getpriority(os.PRIO_PROCESS, 0)))  # of this worker, which ends with its task

    def wait(self, run: RunDirectory, service: str, gate: waiting.Gate, task_vars: dict[str, Any]) -> dict[str, Any]:
        """As waiting.until_open(); a worker that waits gives way, and ends with its ansible-playbook."""
        self.give_way(run, service)
        return waiting.until_open(run, service, gate, Leash().check, task_vars.get("ansible_forks"))

    def waited(self, args: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """Wait at the gate that a call names with its option ``gate``, which the module needs not; {} when it is open, else what the call answers."""
        given, service = args.pop("gate", None), str(args.get("service") or "")
        if not given or self._task.check_mode:
            return {}
        gate, run = waiting.of_call(given, f"gate of {service}"), run_directory(args.get("run"))
        if run is None:
            raise ConfigError("the gate needs a run", f"gate of {service}", "pass run of lifeboat.recovery.run_state")
        told = self.wait(run, service, gate, task_vars)
        return {"changed": False, **told} if told.get("failed") else {}

    def guarded(self, result: dict[str, Any], work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The result of ``work`` merged into ``result``; a LifeboatError becomes ``failed`` with ``msg`` and ``error``, a lost host ``unreachable``."""
        try:
            result.update(work())
        except LifeboatError as error:
            result.update(failed=True, changed=False, msg=str(error), error=error.as_dict())
        except AnsibleConnectionFailure as error:
            result.update(changed=False, **self.lost(no_answer(str(error), self._machine())))
        return result

    def lost(self, message: str) -> dict[str, Any]:
        """The result for a host out of reach: ``unreachable``, or ``failed`` with ``no_answer`` where the play goes on and only a failure is rescued.

        A look before anything is done, and a call with ``fail: false``, are made to be told, not to fail.
        """
        needed = self.NEEDS_ANSWER and not self._task.check_mode and boolean(self._task.args.get("fail", True), strict=False)
        if needed and self._task.ignore_unreachable:
            return {"failed": True, "no_answer": True, "msg": message}
        return {"unreachable": True, "msg": message}

    def _machine(self) -> str:
        """The machine that the task is about, as the catalog calls it."""
        entry = self._task.args.get("entry")
        return str((entry.get("host") if isinstance(entry, dict) else "") or self._play_context.remote_addr)

    def operator(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Who runs this, as who.of()."""
        user = task_vars.get("ansible_user")
        name = (self._templar.template(user) if user is not None else None) or getattr(self._play_context, "remote_user", None) or ""
        return who.of(load_extra_vars(self._loader), str(name))


class ShortModule(RunActionBase):
    """An action of the same name as its module that only runs it."""

    #: Fully qualified name of the module.
    MODULE = ""
    _supports_async = True

    def run(self, tmp: Any = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        del tmp
        result.update(self.call(dict(self._task.args), task_vars or {}))
        return result

    def call(self, args: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """What the module answers."""
        job = bool(self._task.async_val and not self._connection.has_native_async)
        found: dict[str, Any] = self._execute_module(module_name=self.MODULE, module_args=args, task_vars=task_vars, wrap_async=job)
        if not job:
            self._remove_tmp_path(self._connection._shell.tmpdir)
        return found


class LongModule(RunActionBase):
    """An action of the same name as its module. Subclasses say what the call is about."""

    #: Fully qualified name of the module.
    MODULE = ""
    NEEDS_ANSWER = True

    @abstractmethod
    def phase_of(self, args: dict[str, Any], check: bool) -> str:
        """The phase this call is, from the module's arguments; "" when it is none of its own."""

    @abstractmethod
    def subject_of(self, args: dict[str, Any], check: bool) -> str:
        """Under which subject the answer is kept for the report."""

    def then(self, answer: dict[str, Any]) -> list[tuple[str, float]]:
        """Further phases that the same call did, in order, each with its seconds as measured on the host."""
        return []

    def long(self, args: dict[str, Any]) -> bool:
        """Whether the call may take long enough to show its progress."""
        return True

    def run(self, tmp: Any = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        del tmp
        return self.guarded(result, lambda: self._run(task_vars or {}))

    def _run(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        args = dict(self._task.args)
        given = args.get("run")
        run = run_directory(given)
        if isinstance(given, dict):
            args["run"] = {key: value for key, value in given.items() if key != "directory"}
        service = str(args.get("service") or "")
        check = bool(self._task.check_mode)
        # a preflight is the module in check mode within a real run; in a run that is itself a check nothing is written
        if run is None or not run.exists() or run.plan.get("check") or not words.SERVICE_NAME.match(service):
            found = self._plain(args, task_vars)
            # Ansible prints the whole answer of a call that failed; the ledger is on the host and in the repository
            return {key: value for key, value in found.items() if key != "ledger"} if _failed(found) else found
        phase = self.phase_of(args, check)
        if phase:
            run.phase(service, phase)
        if phase in ("stage", "health"):
            self.give_way(run, service)
        try:
            answer = self._patiently(phase, args, lambda: self._watched(run, service, args, task_vars) if self.long(args) else self._plain(args, task_vars))
        except AnsibleConnectionFailure as error:
            run.trouble(service, {"unreachable": True, "msg": words.one_line(error)})
            raise
        finally:
            run.progress(service, None)
        self._keep(run, service, phase, self.subject_of(args, check), answer)
        return _brief(answer)

    def _patiently(self, phase: str, args: dict[str, Any], call: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The answer of a host, which is called again as the service's policy says when it cannot be reached: the module goes on where it was."""
        step = policy.of(args.get("entry") or {}, phase) if phase in policy.STEPS else None
        tries, leash = 1, Leash()
        while True:
            try:
                return call()
            except AnsibleConnectionFailure as error:
                if step is None or tries > step.retries:
                    raise
                display.display(words.one_line(f"{args.get('service')}: the host cannot be reached, trying again ({error})"))
            until = time.monotonic() + step.pause(tries)
            while time.monotonic() < until:
                leash.check()
                time.sleep(0.5)
            tries += 1

    def _plain(self, args: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = self._execute_module(module_name=self.MODULE, module_args=args, task_vars=task_vars)
        return found

    def _keep(self, run: RunDirectory, service: str, phase: str, subject: str, answer: dict[str, Any]) -> None:
        failed = _failed(answer)
        run.collect(service, answer.get("ledger"))
        run.keep(service, subject, {
            key: value for key, value in answer.items() if key not in _NOT_KEPT and not key.startswith("_") and not key.startswith("ansible_")
        })
        if phase:
            then = self.then(answer)
            for number, (after, _seconds) in enumerate(then):
                run.split(service, after, sum(seconds for _phase, seconds in then[number:]))
            run.phase(service, then[-1][0] if then else phase, "end", "failed" if failed else "done")
        if failed:
            run.trouble(service, answer)

    # -- progress ------------------------------------------------------------------------------------------------------

    def _watched(self, run: RunDirectory, service: str, args: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        wanted = self._variable(task_vars, "lifeboat_progress")
        wanted = "auto" if wanted is None or wanted is True else ("false" if wanted is False else str(wanted).lower())
        tell = _Teller(run, service)
        if wanted in ("auto", "sync", "local") and self._is_local():
            with _watch_file(_local_places(str(args.get("state_dir") or ""), service), tell):
                return self._plain(args, task_vars)
        if wanted in ("false", "no", "off", "sync", "local"):
            return self._plain(args, task_vars)
        timeout = self._variable(task_vars, "lifeboat_job_timeout")
        return self._as_job(args, task_vars, tell, service, int(timeout) if timeout else JOB_TIMEOUT)

    def _is_local(self) -> bool:
        """Whether this process can read the progress file itself: same machine, and no other user's private directory."""
        if getattr(self._connection, "transport", "") != "local":
            return False
        return not getattr(self._connection, "become", None) or os.geteuid() == 0

    def _as_job(self, args: dict[str, Any], task_vars: dict[str, Any], tell: _Teller, service: str, timeout: int) -> dict[str, Any]:
        script = _remote_script(str(args.get("state_dir") or ""), service)
        tell.ignore(self._look(script, "")[0])  # what a killed call may have left
        before = self._task.async_val
        self._task.async_val = timeout
        if self._connection._shell.tmpdir is None:
            self._make_tmp_path()
        folder = self._connection._shell.tmpdir
        try:
            job = self._execute_module(module_name=self.MODULE, module_args=args, task_vars=task_vars, wrap_async=True)
        finally:
            self._task.async_val = before
        if not job.get("ansible_job_id") or not job.get("results_file"):
            self._forget(folder, "")
            return dict(job)
        results, pause = str(job["results_file"]), 0.2
        try:
            removed, leash = False, Leash()
            deadline, reached = time.monotonic() + timeout + _PATIENCE, time.monotonic()
            while True:
                leash.check()
                try:
                    counters, finished = self._look(script, results)
                    reached = time.monotonic()
                except AnsibleConnectionFailure:
                    if time.monotonic() - reached > _PATIENCE:
                        raise
                    counters, finished = None, False
                if time.monotonic() > deadline:
                    raise SourceError(
                        f"the job did not end within {timeout} s", f"{self.MODULE} of {service}",
                        "look with the status playbook; the time is lifeboat_job_timeout",
                    )
                if tell(counters) and not removed:
                    # the engine works, so the module was read: its file holds the arguments and is not left lying about
                    self._forget(folder, "")
                    removed = True
                if finished:
                    break
                time.sleep(pause)
                pause = min(1.0, pause * 1.3)
            answer = self._execute_module(
                module_name="ansible.legacy.async_status", task_vars=task_vars,
                module_args={"jid": job["ansible_job_id"], "_async_dir": os.path.dirname(results)},
            )
        finally:
            self._forget(folder, results)
        for key in ("ansible_job_id", "started", "finished", "results_file"):
            answer.pop(key, None)
        return dict(answer)

    def _look(self, script: str, results: str) -> tuple[Optional[dict[str, Any]], bool]:
        """(progress counters or None, whether the job ended), with one command."""
        command = script + (f"; echo; echo {_CUT}; head -c 120 {shlex.quote(results)}" if results else "")
        found = self._low_level_execute_command(command)
        text, cut, head = str(found.get("stdout") or "").partition(_CUT)
        if results and not cut:
            raise AnsibleConnectionFailure(f"the host did not answer: {words.one_line(found.get('stderr') or found.get('msg') or '', 200)}")
        counters = None
        with contextlib.suppress(ValueError, RecursionError):
            counters = json.loads(text)
        head = head.strip()
        running = not head or ('"started"' in head and ('"finished": false' in head or '"finished": 0' in head))
        return (counters if isinstance(counters, dict) else None), bool(results) and not running

    def _forget(self, folder: Optional[str], results: str) -> None:
        """Remove the module's file (it holds the arguments) and the job's answer from the host."""
        names = [name for name in (folder, results, f"{results}.tmp" if results else "") if name]
        if folder and "-tmp-" not in folder:
            names.remove(folder)
        if names:
            self._low_level_execute_command("rm -rf -- " + " ".join(shlex.quote(name) for name in names))
        if self._connection._shell.tmpdir == folder:
            self._connection._shell.tmpdir = None


def _failed(answer: dict[str, Any]) -> bool:
    return bool(answer.get("failed") or answer.get("unreachable"))


def _brief(answer: dict[str, Any]) -> dict[str, Any]:
    """A failed answer as the operator reads it: one line and its parts, not the ledger and all that was found."""
    return {key: value for key, value in answer.items() if key in _SHOWN or key.startswith("_ansible_")} if _failed(answer) else answer


class _Teller:
    """Takes counters as they are read: to the live view's file, and to lines of our own when no view runs."""

    def __init__(self, run: RunDirectory, service: str) -> None:
        self._run = run
        self._service = service
        self._last: Optional[dict[str, Any]] = None
        self._old: Optional[dict[str, Any]] = None
        self._line = time.monotonic()

    def ignore(self, counters: Optional[dict[str, Any]]) -> None:
        """Counters that were there before the call began."""
        self._old = counters

    def __call__(self, counters: Optional[dict[str, Any]]) -> bool:
        """Show counters; whether they are of this call."""
        if counters is None or counters == self._old:
            return False
        if counters == self._last:
            return True
        self._last = counters
        with contextlib.suppress(LifeboatError, OSError):  # the view is a courtesy
            self._run.progress(self._service, counters)
        now = time.monotonic()
        if not presence.watched() and now - self._line >= _LINE_EVERY:
            self._line = now
            display.display(words.one_line(f"{self._service}: {counters.get('phase', '')} {lines.progress_text(counters, 0.0)}"))
        return True


def _local_places(state_dir: str, service: str) -> list[str]:
    roots = [state_dir] if state_dir else ["/var/lib/lifeboat", "~/.local/state/lifeboat"]
    return [os.path.join(os.path.expanduser(root), "services", service, "progress.json") for root in roots]


def _remote_script(state_dir: str, service: str) -> str:
    """A POSIX shell command that prints the progress file of a service, or nothing."""
    roots = [state_dir] if state_dir else ["/var/lib/lifeboat", "~/.local/state/lifeboat"]
    names = []
    for root in roots:
        prefix, rest = ('"$HOME"/', root[2:]) if root.startswith("~/") else ("", root)
        names.append(prefix + shlex.quote(os.path.join(rest, "services", service, "progress.json")))
    return " || ".join(f"cat {name} 2>/dev/null" for name in names)


def _read_counters(places: list[str]) -> Optional[dict[str, Any]]:
    for place in places:
        with contextlib.suppress(OSError, ValueError, RecursionError), open(place, "rb") as handle:
            found = json.loads(handle.read(65536))
            if isinstance(found, dict):
                return found
    return None


@contextlib.contextmanager
def _watch_file(places: list[str], tell: _Teller, pause: float = 0.25) -> Iterator[None]:
    """Read a progress file of this machine in a thread until the block ends."""
    tell.ignore(_read_counters(places))
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(pause):
            tell(_read_counters(places))

    thread = threading.Thread(target=watch, name="lifeboat-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=5)
