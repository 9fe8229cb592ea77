# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the service_state module; a verdict takes along what the run measured on the service, and is given in the run as soon as the host has it."""

from __future__ import annotations

from typing import Any, Optional

from ansible.errors import AnsibleConnectionFailure

from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run import measure, standing, words
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run.actions import RunActionBase, run_directory


class ActionModule(RunActionBase):
    """One call, made anyway at the end of a service: what was measured costs none of its own."""

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
        service, verdict = str(args.get("service") or ""), str(args.get("verdict") or "")
        if not verdict or run is None or not run.exists() or not words.SERVICE_NAME.match(service) or self._task.check_mode:
            return self._ask(args, task_vars)
        if not (run.state(service) or {}).get("verdict"):
            run.phase(service, "verdict")
        self.give_way(run, service)
        if args.get("measured") is None:
            args["measured"] = measure.for_ledger(run, service, verdict)
        try:
            found = self._ask(args, task_vars)
        except AnsibleConnectionFailure:
            if self._task.ignore_unreachable:  # what is proven stays proven; the host gets to know of it in the next run
                run.verdict(service, verdict, str(args.get("text") or ""))
            raise
        standing.take_over(run, service, found)
        if not found.get("failed"):
            run.verdict(service, verdict, str(args.get("text") or ""))
        return found

    def _ask(self, args: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = self._execute_module(module_name="lifeboat.recovery.service_state", module_args=args, task_vars=task_vars)
        self._remove_tmp_path(self._connection._shell.tmpdir)
        return found
