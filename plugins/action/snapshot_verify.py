# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the snapshot_verify module and show its progress. Without a run directory in ``run`` it behaves as the module."""

from __future__ import annotations

from typing import Any

from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run.actions import LongModule


class ActionModule(LongModule):
    """A verification: its own phase in the verify verb, a part of the preflight in any other."""

    MODULE = "lifeboat.recovery.snapshot_verify"

    def phase_of(self, args: dict[str, Any], check: bool) -> str:
        run = args.get("run")
        return "verify" if isinstance(run, dict) and run.get("verb") == "verify" else "preflight"

    def subject_of(self, args: dict[str, Any], check: bool) -> str:
        return "verify"
