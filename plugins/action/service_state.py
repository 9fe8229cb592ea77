# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the service_state module; a verdict takes along what the run measured on the service, as far as its directory tells."""

from __future__ import annotations

from typing import Any, Optional

from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run import measure, words
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
        if verdict and args.get("measured") is None and run is not None and run.exists() and words.SERVICE_NAME.match(service) and not self._task.check_mode:
            args["measured"] = measure.for_ledger(run, service, verdict)
        found: dict[str, Any] = self._execute_module(module_name="lifeboat.recovery.service_state", module_args=args, task_vars=task_vars)
        self._remove_tmp_path(self._connection._shell.tmpdir)
        return found
