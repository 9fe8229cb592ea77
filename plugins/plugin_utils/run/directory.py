# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""The run directory: who is in the run, where each service stands, what it waited for, what its host recorded.

Layout (0700, files 0600):
  plan.json                whole plan; written first
  state/<service>.json     the gate's file, replaced atomically: {service, phase, done, verdict, root, message, remedy, since, …}
  services/<service>.jsonl ledger entries collected from the host, each once
  services/<service>.json  what the service's modules answered, by subject (staged, live, snapshot, checks, …)
  progress/<service>.json  counters of the running phase, for the live view only
  journal.jsonl            the controller's own chained entries; its last line is the seal
  audit.json               who signed the seal, where the sealed journal was published and copied to, what went wrong with it
  timings.jsonl            starts and ends of phases and waits, with monotonic times
  run.json, report.html    written at the end, and again from the files above at any time
One worker writes a service's state at a time (its host's tasks follow each other), so state files need no lock.
"""

from __future__ import annotations

import os
import platform
import time
from typing import Any, Iterable, Optional

from ansible_collections.lifeboat.recovery.plugins.module_utils import failures, lease
from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import ConfigError, StorageError
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run import controls, evidence, files, journal, who, words

#: Longest ledger entry taken over from a host, in bytes of canonical JSON.
MAX_ENTRY = 256 * 1024
#: Calls on a service of which it is kept what they took.
MAX_CALLS = 200


class RunDirectory:
    """One run's directory. Methods raise StorageError when a file cannot be written, ConfigError for a name that cannot be one."""

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(os.path.expanduser(path))
        self._plan: Optional[dict[str, Any]] = None

    # -- files ---------------------------------------------------------------------------------------------------------

    def file(self, *parts: str) -> str:
        return os.path.join(self.path, *parts)

    def _service_file(self, folder: str, service: str, ending: str) -> str:
        if not words.SERVICE_NAME.match(service):
            raise ConfigError("this cannot be the name of a service", words.one_line(service, 80), "use letters, digits, _, . and -")
        return self.file(folder, service + ending)

    def make(self, check: bool = False) -> None:
        """Create the directory and its folders (a check has only a plan, and needs none); ConfigError when another run lives there."""
        try:
            os.makedirs(self.path, mode=0o700, exist_ok=True)
            for folder in () if check else ("state", "services", "progress"):
                os.makedirs(self.file(folder), mode=0o700, exist_ok=True)
        except OSError as error:
            raise StorageError(
                f"cannot create the run directory ({error.strerror})", self.path, "set lifeboat_run_dir to a writable folder"
            ) from error

    def exists(self) -> bool:
        return os.path.isfile(self.file("plan.json"))

    @property
    def plan(self) -> dict[str, Any]:
        """The plan as preflight left it; ConfigError when there is none."""
        if self._plan is None:
            document = files.read_json(self.file("plan.json"))
            if not isinstance(document, dict):
                raise ConfigError("this is no run directory: it has no readable plan.json", self.path, "begin the run first")
            self._plan = document
        return self._plan

    def replace_plan(self, changes: dict[str, Any]) -> None:
        """Put other parts into plan.json: what was planned may change until anything is touched."""
        self._plan = {**self.plan, **changes}
        files.replace_json(self.file("plan.json"), self._plan, indent=2)

    @property
    def run(self) -> dict[str, Any]:
        found = self.plan.get("run")
        return found if isinstance(found, dict) else {}

    def picked(self) -> list[str]:
        """The services this run answers for, in the plan's order."""
        plan = self.plan
        table = words.table_of_services(plan.get("services"))
        names = plan.get("picked")
        if not isinstance(names, list):
            order = plan.get("order")
            names = [name for name in order if name in table] if isinstance(order, list) else []
            names += [name for name in table if name not in names]
        return [str(name) for name in names]

    def journal(self) -> journal.Journal:
        return journal.Journal(self.file("journal.jsonl"), str(self.run.get("id", "")), str(self.run.get("verb", "")), who.text(self.run))

    # -- where a service stands ----------------------------------------------------------------------------------------

    def state(self, service: str) -> Optional[dict[str, Any]]:
        """The state of a service; None when this run does not know it."""
        document = files.read_json(self._service_file("state", service, ".json"))
        return document if isinstance(document, dict) else None

    def states(self) -> dict[str, dict[str, Any]]:
        """Every state there is, by service."""
        found = {}
        try:
            names = os.listdir(self.file("state"))
        except OSError:
            return {}
        for name in sorted(names):
            if name.endswith(".json") and not name.startswith("."):
                document = files.read_json(self.file("state", name))
                if isinstance(document, dict):
                    found[name[:-5]] = document
        return found

    def _save(self, service: str, state: dict[str, Any], durable: bool = True) -> dict[str, Any]:
        files.replace_json(self._service_file("state", service, ".json"), state, durable)
        return state

    def enter(self, service: str) -> dict[str, Any]:
        """Take a service into the run: its state file with phase ``plan`` and no verdict."""
        return self._save(service, {
            "service": service, "phase": "plan", "done": [], "verdict": None, "root": None, "message": "", "remedy": "",
            "since": words.iso(time.time()), "waiting": [], "degraded_by": [],
        })

    def _known(self, service: str) -> dict[str, Any]:
        return self.state(service) or self.enter(service)

    def phase(self, service: str, name: str, event: str = "start", outcome: str = "") -> dict[str, Any]:
        """Start or end a phase. Starting one ends another that was open, and does nothing to itself; ending marks it done unless ``outcome`` says failed."""
        if name not in words.PHASES:
            raise ConfigError("there is no such phase", words.one_line(name, 40), "use one of " + ", ".join(words.PHASES))
        state = self._known(service)
        now = time.time()
        if event == "start":
            if state.get("open") and state.get("phase") == name:
                return state  # a role began it, and the module in it begins it too
            if state.get("open"):
                self.mark(service, str(state["phase"]), "end", outcome="done")
                state["done"] = _with(state.get("done"), str(state["phase"]))
            self.mark(service, name, "start")
            state.update(phase=name, open=True, since=words.iso(now), waiting=[])
        else:
            self.mark(service, name, "end", outcome=outcome or "done")
            if outcome != "failed":
                state["done"] = _with(state.get("done"), name)
            state.update(open=False, since=words.iso(now), waiting=[])
        return self._save(service, state, durable=False)

    def split(self, service: str, name: str, seconds: float) -> None:
        """One call did two phases: the open one ended ``seconds`` ago, as the host measured it, and ``name`` began then."""
        state = self._known(service)
        if not state.get("open"):
            return
        self.mark(service, str(state["phase"]), "end", ago=seconds, outcome="done")
        self.mark(service, name, "start", ago=seconds)
        state.update(done=_with(state.get("done"), str(state["phase"])), phase=name)
        self._save(service, state, durable=False)

    def waiting(self, service: str, on: list[dict[str, Any]]) -> None:
        """Say what a service waits for now: [{service, kind}]."""
        state = self._known(service)
        state["waiting"] = on
        self._save(service, state, durable=False)

    def degraded(self, service: str, by: Iterable[str]) -> None:
        """Remember the soft requirements that are down: a success verdict of the service then becomes ``degraded``."""
        state = self._known(service)
        state["degraded_by"] = sorted(set(state.get("degraded_by") or []) | set(by))
        self._save(service, state)

    def verdict(
        self, service: str, verdict: str, message: str = "", remedy: str = "", root: Optional[dict[str, Any]] = None,
        data: Optional[dict[str, Any]] = None, phase: str = "", failure: str = "",
    ) -> dict[str, Any]:
        """Give a service its verdict, once: a later one never replaces the first, which is returned instead.

        An unknown word is ``failed``. A success with a soft requirement down is ``degraded``. phase: the one that failed, where it is not the last.
        failure: the type of the failure (failures.py) where whoever gives the verdict knows it; else what failed in this phase tells.
        """
        state = self._known(service)
        if state.get("verdict"):
            return state
        if verdict not in words.VERDICTS:
            message = words.one_line(f"unknown verdict '{verdict}'; {message}".rstrip("; "))
            verdict = "failed"
        if verdict in ("verified", "restored") and state.get("degraded_by"):
            verdict = "degraded"
            message = message or "soft requirement down: " + ", ".join(state["degraded_by"])
        last = str(state.get("phase") or "plan")
        phase = phase or last
        trouble: dict[str, str] = state["trouble"] if verdict == "failed" and isinstance(state.get("trouble"), dict) else {}
        message, remedy = message or trouble.get("message", ""), remedy or trouble.get("remedy", "")
        if state.get("open"):
            failed = verdict in ("failed", "blocked", "interrupted")
            self.mark(service, last, "end", outcome="failed" if failed else "done")
            if not failed:
                state["done"] = _with(state.get("done"), last)
        message = words.one_line(message)
        if verdict == "failed" and root is None:
            root = {"service": service, "verdict": "failed", "phase": phase, "message": message}
        state.update(
            verdict=verdict, message=message, remedy=words.one_line(remedy), root=root, open=False, waiting=[],
            since=words.iso(time.time()), failed_phase=phase if verdict in ("failed", "blocked", "interrupted") else None,
        )
        kept = self.kept(service)
        state["failure"] = self._failure(verdict, phase, failure, state.get("trouble"), kept)
        sources = evidence.sources(kept, self.collected(service))
        self.journal().append("verdict", service, phase, {
            "verdict": verdict, "message": state["message"], "remedy": state["remedy"], "root": root, "failure": state["failure"],
            "snapshots": {source: facts["snapshot"] for source, facts in sources.items() if facts.get("snapshot")},
            "controls": controls.of_service(kept, sources, self.plan), **(data or {}),
        })
        self.mark(service, "verdict", "verdict", outcome=verdict)
        return self._save(service, state)

    @staticmethod
    def _failure(verdict: str, phase: str, known: str, trouble: Any, kept: dict[str, Any]) -> Optional[dict[str, str]]:
        """{"type", "phase"} of a failure; None for a verdict that is none."""
        if verdict not in words.UNDONE:
            return None
        if verdict != "failed":
            kind = verdict
        elif known:
            kind = known
        elif isinstance(trouble, dict) and trouble.get("phase") == phase and trouble.get("type"):
            kind = str(trouble["type"])
        else:
            found = evidence.first_error(kept) if phase == "preflight" else None
            kind = failures.of_answer({"error": found}, phase) if found else failures.without_error(phase)
        return {"type": kind if kind in failures.TYPES else "internal", "phase": phase}

    def trouble(self, service: str, answer: dict[str, Any]) -> None:
        """Remember why a module failed, so that a verdict without a message of its own can say it."""
        error: dict[str, Any] = answer["error"] if isinstance(answer.get("error"), dict) else {}
        state = self._known(service)
        state["trouble"] = {
            "message": words.one_line(answer.get("msg") or error.get("what") or "failed without a message"),
            "remedy": words.one_line(error.get("remedy") or ""),
            "type": failures.of_answer(answer, str(state.get("phase") or "plan")), "phase": str(state.get("phase") or "plan"),
        }
        self._save(service, state, durable=False)

    # -- times ---------------------------------------------------------------------------------------------------------

    def mark(self, service: str, phase: str, event: str, ago: float = 0.0, **more: Any) -> None:
        """Note a moment, ``ago`` seconds before now: wall clock for people, monotonic clock for durations."""
        files.append_line(self.file("timings.jsonl"), files.canonical({
            "service": service, "phase": phase, "event": event, "time": time.time() - ago, "mono": time.monotonic() - ago,
            "boot": lease.boot_id(), **more,
        }))

    def timings(self, service: str = "") -> list[dict[str, Any]]:
        """The marks of the run; with ``service`` only those of that one, and those of nobody."""
        holding = tuple(files.canonical({"service": name}).encode()[1:-1] for name in (service, "")) if service else ()
        return files.read_lines(self.file("timings.jsonl"), holding)

    # -- what hosts answered -------------------------------------------------------------------------------------------

    def collect(self, service: str, entries: Any) -> int:
        """Keep ledger entries of a service's host, each once by its hash; the number of new ones."""
        if not isinstance(entries, list) or not entries:
            return 0
        path = self._service_file("services", service, ".jsonl")
        with files.locked(path + ".lock"):
            have = {entry.get("hash") for entry in files.read_lines(path)}
            lines = []
            for entry in entries:
                if not isinstance(entry, dict) or not isinstance(entry.get("hash"), str) or entry["hash"] in have:
                    continue
                line = files.canonical(entry)
                if len(line) <= MAX_ENTRY:
                    have.add(entry["hash"])
                    lines.append(line)
            if lines:
                files.append_line(path, "\n".join(lines), durable=True)
        return len(lines)

    def collected(self, service: str) -> list[dict[str, Any]]:
        return files.read_lines(self._service_file("services", service, ".jsonl"))

    def keep(self, service: str, subject: str, answer: dict[str, Any]) -> None:
        """Keep what a module answered about a service, under a subject; lists of findings and checks grow, the rest is replaced.

        What the call took is kept per call, under ``calls``.
        """
        path = self._service_file("services", service, ".json")
        with files.locked(path + ".lock"):
            document = files.read_json(path)
            document = document if isinstance(document, dict) else {}
            before: dict[str, Any] = document[subject] if isinstance(document.get(subject), dict) else {}
            merged = dict(answer)
            took = {key: merged.pop(key) for key in ("usage", "measured") if isinstance(merged.get(key), dict)}
            if took:
                calls: list[Any] = document["calls"] if isinstance(document.get("calls"), list) else []
                document["calls"] = [*calls, {"subject": subject, **took}][-MAX_CALLS:]
            for key in ("findings", "results", "warnings", "notes"):
                if isinstance(before.get(key), list) and isinstance(merged.get(key), list):
                    merged[key] = before[key] + [item for item in merged[key] if item not in before[key]]
            document[subject] = merged
            files.replace_json(path, document)

    def kept(self, service: str) -> dict[str, Any]:
        document = files.read_json(self._service_file("services", service, ".json"))
        return document if isinstance(document, dict) else {}

    def others(self, picked: Iterable[str]) -> list[str]:
        """Services that the run is not about and of which something was kept."""
        try:
            names = os.listdir(self.file("services"))
        except OSError:
            return []
        return sorted({name[:-5] for name in names if name.endswith(".json")} - set(picked))

    # -- the live view -------------------------------------------------------------------------------------------------

    def progress(self, service: str, counters: Optional[dict[str, Any]]) -> None:
        """Show the counters of a running phase to the live view; None takes them away."""
        path = self._service_file("progress", service, ".json")
        if counters is None:
            try:
                os.unlink(path)
            except FileNotFoundError:
                pass
        else:
            files.replace_json(path, counters, durable=False)

    def progress_of(self, service: str) -> Optional[dict[str, Any]]:
        document = files.read_json(self._service_file("progress", service, ".json"))
        return document if isinstance(document, dict) else None

    def claim(self, name: str) -> bool:
        """True for the first caller only: what many hosts come to at once, one of them does."""
        try:
            os.close(os.open(self.file(f".{name}"), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            return False
        return True

    # -- who runs it ---------------------------------------------------------------------------------------------------

    def alive(self) -> Optional[bool]:
        """Whether the process that runs this run lives; None when that cannot be told from here."""
        owner = self.run
        if owner.get("controller") != platform.node():
            return None
        if owner.get("boot") and owner["boot"] != lease.boot_id():
            return False  # this machine was started anew since
        pid = owner.get("pid")
        if not isinstance(pid, int):
            return None
        started = lease.process_started(pid)
        return bool(started) and started == owner.get("pid_started")

    def sealed(self) -> bool:
        """Whether the run has its end: run.json with an outcome."""
        document = files.read_json(self.file("run.json"))
        return isinstance(document, dict) and bool(document.get("outcome"))


def _with(done: Any, name: str) -> list[str]:
    have = [str(item) for item in done] if isinstance(done, list) else []
    return have if name in have else [*have, name]
