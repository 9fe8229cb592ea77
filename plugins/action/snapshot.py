# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the snapshot module and show its progress. Without a run directory in ``run`` it behaves as the module."""

from __future__ import annotations

from typing import Any

from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run.actions import LongModule


class ActionModule(LongModule):
    """A capture: its own phase in a backup, the re-protection of a service in any other verb (in check mode: would it work)."""

    MODULE = "lifeboat.recovery.snapshot"

    def phase_of(self, args: dict[str, Any], check: bool) -> str:
        run = args.get("run")
        if isinstance(run, dict) and run.get("verb") == "backup":
            return "preflight" if check else "capture"
        return "protect"

    def subject_of(self, args: dict[str, Any], check: bool) -> str:
        return "protect" if check else "snapshot"
