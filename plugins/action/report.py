# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make the report on recoveries of what hosts answered; controller only, changes nothing of the ecosystem."""

from __future__ import annotations

import os
from typing import Any, Optional

from ansible.utils.display import Display

from ansible_collections.lifeboat.recovery.plugins.module_utils import recoveries
from ansible_collections.lifeboat.recovery.plugins.module_utils.cli.report import lines
from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import StorageError
from ansible_collections.lifeboat.recovery.plugins.module_utils.ledger import now
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.plan.filtering import document_of
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run import files, recovery_page, words
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run.actions import RunActionBase

display = Display()


class ActionModule(RunActionBase):
    """Tables on the screen, report.json and report.html in a directory."""

    _requires_connection = False

    def run(self, tmp: Any = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        del tmp
        _validated, args = self.validate_argument_spec(argument_spec={
            "catalog": {"type": "dict", "required": True},
            "answers": {"type": "dict", "required": True},
            "directory": {"type": "path", "required": True},
        })
        result["changed"] = False
        return self.guarded(result, lambda: self._report(args))

    def _report(self, args: dict[str, Any]) -> dict[str, Any]:
        catalog = document_of(args["catalog"])
        silent, runs = {}, {}
        for service, answer in args["answers"].items():
            told = answer if isinstance(answer, dict) else {}
            if isinstance(told.get("runs"), list):
                runs[service] = told["runs"]
            else:
                silent[service] = words.one_line("its host does not answer" if told.get("unreachable") else told.get("msg") or "no answer", 200)
        facts = {service: catalog["services"].get(service, {}) for service in runs}
        document = recoveries.report(runs, facts, str(catalog["ecosystem"]), now(), silent=silent)
        display.display("\n".join(lines(document)))
        found: dict[str, Any] = {"report": document}
        if not self._task.check_mode:
            place = str(args["directory"])
            try:
                os.makedirs(place, mode=0o700, exist_ok=True)
            except OSError as error:
                raise StorageError(f"cannot create the directory of the report ({error.strerror})", place, "set lifeboat_report_dir to a writable folder") \
                    from error
            files.replace_json(os.path.join(place, "report.json"), document, indent=2)
            files.replace(os.path.join(place, "report.html"), recovery_page.render(document).encode())
            found.update(html=os.path.join(place, "report.html"), json=os.path.join(place, "report.json"))
            display.display(f"report: {found['html']}")
        return found
