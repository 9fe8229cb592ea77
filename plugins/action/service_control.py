# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the service_control module; with a run directory in ``run`` the start or the stop is timed as a phase."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleConnectionFailure

from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run import words
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run.actions import ShortModule, no_answer, run_directory
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run.directory import RunDirectory


class ActionModule(ShortModule):
    """The phase is the whole start or stop of the service, so a run is given only where there is one host to do it on."""

    MODULE = "lifeboat.recovery.service_control"
    NEEDS_ANSWER = True

    def call(self, args: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        closed = self.guarded({}, lambda: self.waited(args, task_vars))
        if closed:
            return closed
        run, service = run_directory(args.pop("run", None)), str(args.get("service") or "")
        phase = "stop" if args.get("state") == "stopped" else "start"
        noted = run if run is not None and not self._task.check_mode and self._works(run, service) else None
        if noted is not None:
            noted.phase(service, phase)
            if phase == "stop":  # what is started would keep the niceness
                self.give_way(noted, service)
        answer = self._answer(args, phase, task_vars)
        if noted is not None:
            if answer.get("no_answer") or answer.get("unreachable"):
                noted.trouble(service, {**answer, "unreachable": True})
            noted.phase(service, phase, "end", "failed" if answer.get("failed") or answer.get("unreachable") else "done")
        return answer

    @staticmethod
    def _works(run: RunDirectory, service: str) -> bool:
        """Whether the run is there and still about this service: what is done behind its verdict belongs to no phase."""
        return bool(words.SERVICE_NAME.match(service)) and run.exists() and not run.plan.get("check") and not (run.state(service) or {}).get("verdict")

    def _answer(self, args: dict[str, Any], phase: str, task_vars: dict[str, Any]) -> dict[str, Any]:
        runtime = args.get("runtime")
        if isinstance(runtime, dict) and not runtime.get(phase):
            return {"changed": False, "tries": []}  # without a command there is nothing to ask the host for
        try:
            return super().call(args, task_vars)
        except AnsibleConnectionFailure as error:
            host = str(self._task.delegate_to or self._play_context.remote_addr)
            stands = "may still run" if phase == "stop" else "could not be started"
            lost = self.lost(f"{args.get('service')} {stands}: {no_answer(str(error), host)}; see why, then run the same command again")
            return {"changed": False, **lost}
