# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The box with a continuous log: it asks the repository's log as a cluster does, and reads all of it on the way to its target while it stages."""

from __future__ import annotations

import dataclasses
from typing import Any

from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import TargetError
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources import cluster_reach
from ansible_collections.lifeboat.recovery.plugins.module_utils.sources.contract import Captured, Covered, Log

from .box_source import Box

SEGMENT = 1 << 16
SYSTEM = "7000000000000000001"
#: What a snapshot says of where its log goes on.
FACTS = {"system_identifier": SYSTEM, "timeline": 1, "stop_lsn": "0/10000", "segment_size": SEGMENT, "stop_time": "2026-01-01T00:00:00Z"}


class LoggedBox(Box):
    """What it says of reach is what the type ``postgresql`` says."""

    type = "logged_box"

    def capture(self, context: Any, writer: Any) -> Captured:
        captured = super().capture(context, writer)
        return dataclasses.replace(captured, facts={**captured.facts, **FACTS})

    def log_range(self, manifest: dict[str, Any], log: Log) -> Covered | None:
        return cluster_reach.log_range(manifest["facts"], log)

    def reachable(self, manifest: dict[str, Any], position: dict[str, str], log: Log) -> str:
        return cluster_reach.reachable(manifest["facts"], position, log)

    def lost_behind(self, manifest: dict[str, Any], position: dict[str, str], log: Log) -> str:
        return cluster_reach.lost_behind(manifest["facts"], position, log)

    def stage(self, context: Any, reader: Any, record: dict[str, Any]) -> None:
        if context.target is not None:
            fitting, against = cluster_reach.candidates(reader.manifest["facts"], reader.log, context.target)
            if not fitting:
                raise TargetError(f"the target cannot be reached: {against}", context.config["path"])
            position = fitting[0].stop
            while position < fitting[0].end:
                timeline, end = fitting[0].part(position)
                reader.log.read(timeline, position, end)
                position = end
        super().stage(context, reader, record)
