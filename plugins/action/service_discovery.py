# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the service_discovery module from the code that the host keeps."""

from __future__ import annotations

from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run.actions import ShortModule


class ActionModule(ShortModule):
    """Nothing but the module."""

    MODULE = "lifeboat.recovery.service_discovery"
