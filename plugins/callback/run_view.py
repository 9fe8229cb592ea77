# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: run_view
type: aggregate
short_description: Shows a run live and ends it with a time-line
version_added: 0.1.0
author:
  - Lifeboat contributors (@lifeboat-recovery)
description:
  - Shows one line per service when something changed, with its phase, bytes, rate, time and what it waits for, and ends with a
    time-line of measured times. Lines are appended and never rewritten, so a log reads like the screen.
  - Runs beside any stdout callback. For a quiet screen set C(display_ok_hosts=false) and C(display_skipped_hosts=false) for
    P(ansible.builtin.default#callback); the banners of plays and every failure stay.
  - Sees to it that every run has an end. When a play stops before the run was finished, services without a verdict become V(failed),
    and C(run.json) and C(report.html) are written here. An unreachable host ends its service at once, so that nothing waits for it.
  - After Ctrl-C it says what is live, what is old, and the commands to resume, to roll back and to look.
  - Gives the process the exit code of the run, 0 for success, 2 for degraded, 3 for anything else, which Ansible alone cannot tell apart.
    It does so by ending the process after the statistics, so list it last among the enabled callbacks.
requirements:
  - C(callbacks_enabled=lifeboat.recovery.run_view) in C(ansible.cfg), or E(ANSIBLE_CALLBACKS_ENABLED).
options:
  every:
    description: Seconds between two lines of the same service when only its counters moved.
    type: float
    default: 2.0
    env: [{name: LIFEBOAT_VIEW_EVERY}]
    ini: [{section: callback_lifeboat_run_view, key: every}]
  live:
    description: Whether to show lines while the run goes on. The time-line at the end does not depend on it.
    type: bool
    default: true
    env: [{name: LIFEBOAT_VIEW_LIVE}]
    ini: [{section: callback_lifeboat_run_view, key: live}]
  width:
    description: Columns of lines and time-line, 80 to 120. 0 takes the width of the terminal.
    type: int
    default: 0
    env: [{name: LIFEBOAT_VIEW_WIDTH}]
    ini: [{section: callback_lifeboat_run_view, key: width}]
  exit_code:
    description: Whether to give the process the exit code of the run.
    type: bool
    default: true
    env: [{name: LIFEBOAT_VIEW_EXIT_CODE}]
    ini: [{section: callback_lifeboat_run_view, key: exit_code}]
  precedence:
    description:
      - By how much the niceness of C(ansible-playbook) itself is lowered in a run, where it may do that (as root). Workers, and what they start, keep theirs.
        That of its session is lowered too, until the end, where the kernel shares the processors among sessions first.
      - With many forks on few cores each step of each service waits for it otherwise. 0 leaves it alone.
    type: int
    default: 10
    env: [{name: LIFEBOAT_VIEW_PRECEDENCE}]
    ini: [{section: callback_lifeboat_run_view, key: precedence}]
"""

import atexit
import os
import shutil
import signal
import sys
import threading
from typing import Any, Optional

from ansible.plugins.callback import CallbackBase

from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run import audit, commands, lifecycle, lines, precedence, presence, screens, timeline, words
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run.directory import RunDirectory

_OURS = "lifeboat.recovery."
#: Seconds between two looks at the run directory, and so the least time between two groups of lines.
_TICK = 1.0


class CallbackModule(CallbackBase):
    """Lives in the main process, so it is still there when every play has failed."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "lifeboat.recovery.run_view"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._run: Optional[RunDirectory] = None
        self._ours = False
        self._former: list[RunDirectory] = []
        self._ended = False
        self._told = False
        self._signal = ""
        self._main = os.getpid()
        self._stop = threading.Event()
        self._thread: Optional[threading.Thread] = None

    # -- events --------------------------------------------------------------------------------------------------------

    def v2_playbook_on_start(self, playbook: Any) -> None:
        presence.watch()
        atexit.register(self._at_exit)
        for number in (signal.SIGINT, signal.SIGTERM):
            self._hook(number)

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        if not self._ours and _action(task).startswith(_OURS):
            self._ours = True
            precedence.go_first(int(self.get_option("precedence")))

    def v2_runner_on_ok(self, result: Any) -> None:
        if _action(getattr(result, "task", None) or result._task) != f"{_OURS}run_state":
            return  # Ansible makes a copy of an answer for who reads it
        answer = _answer(result)
        if isinstance(answer.get("run_dir"), str) and isinstance(answer.get("plan_file"), str):
            self._follow(answer["run_dir"])

    def v2_runner_on_unreachable(self, result: Any) -> None:
        task, host = getattr(result, "task", None) or result._task, getattr(result, "host", None) or result._host
        run = self._run
        if run is None or getattr(task, "ignore_unreachable", False) or host.get_name() not in run.picked():
            return
        run.verdict(
            host.get_name(), "failed", f"the host is unreachable: {words.one_line(_answer(result).get('msg') or 'no reason given', 200)}",
            "see that the host is up and that Ansible can log in, then run the same command again", failure="host_unreachable",
        )

    def v2_playbook_on_stats(self, stats: Any) -> None:
        self._end_view()
        code = 0
        for run in [*self._former, *([self._run] if self._run is not None else [])]:
            document = lifecycle.finish(run)
            if audit.send(run, unsigned=False):  # where the playbook came to its end this was done there
                document = lifecycle.write_documents(run)
            code = max(code, document["exit"]["code"])
            self._show(timeline.render(document, self._width()))
            self._show(screens.ending(run, document))
        self._ended = True
        if self._run is None and self._ours and (stats.failures or stats.dark):
            code = words.EXIT_FAILED  # stopped before a run began: Ansible's own 2 would read as degraded
        if code and self.get_option("exit_code"):
            sys.stdout.flush()
            sys.stderr.flush()
            # Ansible has nothing left to do but to clean up, which it does on the way out; its own code is 2 for whatever failed.
            raise SystemExit(code)

    # -- live ----------------------------------------------------------------------------------------------------------

    def _follow(self, path: str) -> None:
        run = RunDirectory(path)
        if run.plan.get("check") or (self._run is not None and self._run.path == run.path):
            return
        if self._run is not None:  # a site playbook may back up, and restore when what follows fails
            self._end_view()
            self._former.append(self._run)
        self._run = run
        self._show(lines.opening(run))
        if self.get_option("live"):
            view = lines.View(run, every=float(self.get_option("every")), width=self._width())
            self._stop = threading.Event()
            self._thread = threading.Thread(target=self._watch, args=(view, self._stop), name="lifeboat-view", daemon=True)
            self._thread.start()

    def _watch(self, view: lines.View, stop: threading.Event) -> None:
        while True:
            ended = stop.wait(_TICK)
            try:
                found = view.tick()
            except Exception as error:  # the view must never break a run
                self._display.warning(f"the live view stopped: {words.one_line(error)}")
                return
            if found:
                self._show("\n".join(found))
            if ended:
                return

    def _end_view(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=5)
            self._thread = None

    def _show(self, text: str) -> None:
        self._display.display(text)
        sys.stdout.flush()  # Ansible leaves that to the system; a live view through a pipe would come in blocks

    def _width(self) -> int:
        asked = int(self.get_option("width"))
        return max(80, min(120, asked or shutil.get_terminal_size((100, 24)).columns))

    # -- interruptions -------------------------------------------------------------------------------------------------

    def _hook(self, number: int) -> None:
        before = signal.getsignal(number)

        def handler(signum: int, frame: Any) -> None:
            if os.getpid() == self._main:
                self._signal = signal.Signals(signum).name
                if signum == signal.SIGTERM:
                    self._tell_interrupted()  # the handler below ends the process without any clean-up
            if callable(before):
                before(signum, frame)
            elif before == signal.SIG_DFL:
                signal.signal(signum, signal.SIG_DFL)
                os.kill(os.getpid(), signum)

        signal.signal(number, handler)

    def _at_exit(self) -> None:
        if os.getpid() == self._main:
            self._tell_interrupted()

    def _tell_interrupted(self) -> None:
        run = self._run
        if run is None or self._ended or self._told:
            return
        self._told = True
        self._stop.set()
        why = {"SIGINT": "Interrupted", "SIGTERM": "Terminated"}.get(self._signal, "Stopped")
        try:
            run.journal().append("interrupted", data={"signal": self._signal})
            text = screens.interrupted(run, why)
        except Exception as error:  # whatever is wrong with the files, the operator gets the way to go on
            text = f"{why}: run directory {run.path}: {words.one_line(error)}\n  status:   {commands.command('status', '')}"
        try:
            # not through Ansible's display: its lock may be held by the code that was interrupted
            os.write(2, ("\n" + text + "\n").encode("utf-8", "backslashreplace"))
        except OSError:
            pass  # nobody is there to read it


def _action(task: Any) -> str:
    return str(getattr(task, "resolved_action", None) or getattr(task, "action", ""))


def _answer(result: Any) -> dict[str, Any]:
    found = getattr(result, "result", None)
    if found is None:
        found = result._result
    return found if isinstance(found, dict) else {}
