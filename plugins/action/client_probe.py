# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the client_probe module; what was seen goes into the run's directory, also when the run has come to its end meanwhile."""

from __future__ import annotations

from typing import Any, Optional

from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run import lifecycle, words
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run.actions import RunActionBase, run_directory


class ActionModule(RunActionBase):
    """The service is one that the run is not about, so nothing of it but this is kept."""

    def run(self, tmp: Any = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        del tmp
        return self.guarded(result, lambda: self._run(task_vars or {}))

    def _run(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        args = dict(self._task.args)
        run, service = run_directory(args.get("run")), str(args.get("service") or "")
        if isinstance(args.get("run"), dict):
            args["run"] = {key: value for key, value in args["run"].items() if key != "directory"}
        found: dict[str, Any] = self._execute_module(module_name="lifeboat.recovery.client_probe", module_args=args, task_vars=task_vars)
        seen = found.get("clients")
        if isinstance(seen, dict) and run is not None and run.exists() and words.SERVICE_NAME.match(service):
            run.keep(service, "clients", seen)
            if run.sealed():
                lifecycle.write_documents(run)
        return found
