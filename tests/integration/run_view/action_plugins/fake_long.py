# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An action like those of the long modules, for a module that only pretends to work."""

from __future__ import annotations

from typing import Any

from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run.actions import LongModule


class ActionModule(LongModule):
    MODULE = "fake_long"

    def phase_of(self, args: dict[str, Any], check: bool) -> str:
        return "preflight" if check else "stage"

    def subject_of(self, args: dict[str, Any], check: bool) -> str:
        return "preflight" if check else "staged"
