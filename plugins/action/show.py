# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Print what hosts answered as a table; controller only, changes nothing."""

from __future__ import annotations

from typing import Any, Optional

from ansible.utils.display import Display

from ansible_collections.lifeboat.recovery.plugins.plugin_utils.plan import overview
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run.actions import RunActionBase

display = Display()


class ActionModule(RunActionBase):
    """The tables of the verbs status and points, and what bootstrap leaves to people."""

    _requires_connection = False

    def run(self, tmp: Any = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        del tmp
        _validated, args = self.validate_argument_spec(argument_spec={
            "what": {"type": "str", "required": True, "choices": ["status", "points", "logs"]},
            "answers": {"type": "dict", "required": True},
            "clusters": {"type": "dict", "default": {}},
            "inventory": {"type": "str", "default": ""},
            "newest": {"type": "int", "default": 10},
            "root": {"type": "path", "default": ""},
        })
        result["changed"] = False

        def work() -> dict[str, Any]:
            if args["what"] == "status":
                lines = overview.status(args["answers"], args["inventory"], args["root"], args["clusters"])
            elif args["what"] == "logs":
                lines = overview.shippers(args["answers"])
            else:
                lines = overview.points(args["answers"], args["inventory"], args["newest"])
            display.display("\n".join(lines))
            return {"lines": lines}

        return self.guarded(result, work)
