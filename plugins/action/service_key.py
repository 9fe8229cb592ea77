# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the service_key module and show its progress. Without a run directory in ``run`` it behaves as the module."""

from __future__ import annotations

from typing import Any

from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run.actions import LongModule


class ActionModule(LongModule):
    """Keys have no phase of their own in a run: their work lies between plan and verdict."""

    MODULE = "lifeboat.recovery.service_key"

    def phase_of(self, args: dict[str, Any], check: bool) -> str:
        return ""

    def subject_of(self, args: dict[str, Any], check: bool) -> str:
        return "keys"
