# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Say which host is asked what, and hold what hosts answered against the catalog; controller only, changes nothing of the ecosystem."""

from __future__ import annotations

import os
from typing import Any, Mapping, Optional

from ansible.utils.display import Display

from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import CheckError, ConfigError, StorageError
from ansible_collections.lifeboat.recovery.plugins.module_utils.ledger import now
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.plan import discovery
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.plan.filtering import document_of
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run import files, words
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run.actions import RunActionBase

display = Display()

_SPEC: dict[str, dict[str, Any]] = {
    "step": {"type": "str", "required": True, "choices": ["ask", "compare"]},
    "catalog": {"type": "dict", "required": True},
    "services": {"type": "list", "elements": "str", "default": []},
    "answers": {"type": "dict"},
    "directory": {"type": "path"},
    "strict": {"type": "bool", "default": False},
}


class ActionModule(RunActionBase):
    """A few lines on the screen, discovery.json in a directory."""

    _requires_connection = False

    def run(self, tmp: Any = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        del tmp
        _validated, args = self.validate_argument_spec(argument_spec=_SPEC)
        result["changed"] = False
        return self.guarded(result, lambda: self._ask(args) if args["step"] == "ask" else self._compare(args))

    def _ask(self, args: dict[str, Any]) -> dict[str, Any]:
        services = document_of(args["catalog"])["services"]
        return {"lookouts": discovery.lookouts(services, args["services"]), "declared": discovery.declared(services)}

    def _compare(self, args: dict[str, Any]) -> dict[str, Any]:
        if not args["directory"]:
            raise ConfigError("no directory for what was discovered", "directory", "give one")
        document, place = document_of(args["catalog"]), str(args["directory"])
        path = os.path.join(place, "discovery.json")
        answers: dict[str, Mapping[str, Any]] = {}
        for service, told in (args["answers"] or {}).items():
            if not isinstance(told, Mapping) or told.get("skipped"):
                continue
            for one in told.get("results") or []:
                answers[str(one["item"]["machine"])] = one if "spaces" in one else {"silent": _why(one, service)}
        former = files.read_json(path) if os.path.exists(path) else {}
        found = discovery.compare(document, answers, now(), former if isinstance(former, dict) else {})
        display.display("\n".join(discovery.lines(found)))
        told: dict[str, Any] = {"discovery": found}
        if not self._task.check_mode:
            try:
                os.makedirs(place, mode=0o700, exist_ok=True)
            except OSError as error:
                raise StorageError(f"cannot create the directory of what was discovered ({error.strerror})", place,
                                   "set lifeboat_report_dir to a writable folder") from error
            files.replace_json(path, found, indent=2)
            told["json"] = path
            display.display(f"discovered: {path}")
        warnings = [one for one in found["findings"] if one["level"] == "warning"]
        if args["strict"] and warnings:
            more = f" (and {len(warnings) - 1} more)" if len(warnings) > 1 else ""
            error = CheckError(warnings[0]["what"] + more, str(document["ecosystem"]), warnings[0]["remedy"])
            told.update(failed=True, msg=str(error), error=error.as_dict())
        return told


def _why(answer: Mapping[str, Any], service: str) -> str:
    return words.one_line("it does not answer" if answer.get("unreachable") else answer.get("msg") or f"no answer for {service}", 200)
