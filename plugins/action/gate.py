# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Wait until the services that this one depends on are ready, or fail and say who is to blame."""

from __future__ import annotations

from typing import Any, Optional

from ansible_collections.lifeboat.recovery.plugins.module_utils import arguments
from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import ConfigError
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run import standing, waiting, words
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run.actions import RunActionBase, run_directory


class ActionModule(RunActionBase):
    """One blocking action per host; nothing runs on the host itself."""

    _requires_connection = False

    def run(self, tmp: Any = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        del tmp
        _validated, args = self.validate_argument_spec(argument_spec={
            "run": {"type": "dict"},
            "run_dir": {"type": "path"},
            "service": {"type": "str", "required": True},
            "waits": {"type": "str", "choices": list(arguments.WAITS), "default": "requirements"},
            "services": {"type": "list", "elements": "raw"},
            "open_on": {"type": "list", "elements": "str", "default": list(words.USABLE)},
            "begins": {"type": "str"},
            "unless_untouched": {"type": "bool", "default": False},
            "timeout": {"type": "float", "default": 3600.0},
            "poll": {"type": "float", "default": 0.1},
        })
        result["changed"] = False
        return self.guarded(result, lambda: self._wait(args, task_vars or {}))

    def _wait(self, args: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        if self._task.check_mode:
            return {"opened": True, "waited": 0.0, "waited_for": [], "degraded_by": [], "not_picked": [], "msg": "check mode: nothing to wait for"}
        run, service = run_directory(args.get("run"), args.get("run_dir")), str(args["service"])
        if run is None:
            raise ConfigError("the gate needs a run", f"gate of {service}", "pass run or run_dir of lifeboat.recovery.run_state")
        told = self.wait(run, service, waiting.Gate(args["waits"], args["services"], tuple(args["open_on"]), args["timeout"], args["poll"]), task_vars)
        if told.get("failed"):
            return told
        if args["unless_untouched"]:
            told["because_of"] = standing.to_change(run, service)
            told["untouched"] = not told["because_of"]
        if args["begins"]:
            run.phase(service, args["begins"])
        return told
