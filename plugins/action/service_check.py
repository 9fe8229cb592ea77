# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the service_check module; with a run directory in ``run`` the phase is timed and the results are kept for the report."""

from __future__ import annotations

from typing import Any

from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run.actions import LongModule


class ActionModule(LongModule):
    """Checks are short: no progress, only time and results."""

    MODULE = "lifeboat.recovery.service_check"

    def phase_of(self, args: dict[str, Any], check: bool) -> str:
        asked = str(args.get("phase") or "all")
        return asked if asked in ("health", "invariants") else ("health" if asked == "all" else "")

    def subject_of(self, args: dict[str, Any], check: bool) -> str:
        return "checks"

    def then(self, answer: dict[str, Any]) -> list[tuple[str, float]]:
        """Invariants behind status and health, and protection behind both, where the call did them."""
        kinds = {str(item.get("kind")) for item in answer.get("results") or [] if isinstance(item, dict)}
        found = []
        for kind, phase, key in (("invariant", "invariants", "judged"), ("protect", "protect", "protected")):
            if kind in kinds and len(kinds) > 1 and isinstance(answer.get(key), (int, float)):
                found.append((phase, float(answer[key])))
        return found

    def long(self, args: dict[str, Any]) -> bool:
        return False
