# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the snapshot_restore module and show its progress. Without a run directory in ``run`` it behaves as the module."""

from __future__ import annotations

import time
from typing import Any

from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run.actions import LongModule

_PHASES = {"staged": "stage", "live": "cutover", "rolled_back": "rollback", "committed": "commit"}


class ActionModule(LongModule):
    """One step of a restore; the phase follows from the state that is asked for."""

    MODULE = "lifeboat.recovery.snapshot_restore"

    def _run(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        return self.waited(self._task.args, task_vars) or super()._run(task_vars)

    def _plain(self, args: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        return self._with_skew(time.time(), super()._plain(args, task_vars))

    def _as_job(self, args: dict[str, Any], task_vars: dict[str, Any], *more: Any) -> dict[str, Any]:
        return self._with_skew(time.time(), super()._as_job(args, task_vars, *more))

    @staticmethod
    def _with_skew(asked: float, answer: dict[str, Any]) -> dict[str, Any]:
        """The answer, with how far its host's clock is ahead of ours: it began after we asked, and ended before we had the answer."""
        clock = answer.get("clock")
        if isinstance(clock, dict):
            clock["skew"] = [clock["ended"] - time.time(), clock["began"] - asked]
        return answer

    def phase_of(self, args: dict[str, Any], check: bool) -> str:
        return "preflight" if check else _PHASES.get(str(args.get("state") or "live"), "cutover")

    def then(self, answer: dict[str, Any]) -> list[tuple[str, float]]:
        """Behind the cutover, what the same call did to make the data ready for the service: its migrations, and the look at its schema version."""
        return [("migrate", float(answer["readied"]))] if isinstance(answer.get("readied"), (int, float)) else []

    def subject_of(self, args: dict[str, Any], check: bool) -> str:
        return "preflight" if check else str(args.get("state") or "live")

    def long(self, args: dict[str, Any]) -> bool:
        """A preflight that decodes nothing takes no longer than looking at a job would."""
        return not self._task.check_mode or str(args.get("depth") or "") == "decode"
