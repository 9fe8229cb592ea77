# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""The words of a restore target: a point, and a position in the logs that follow it.

    [POINT@]KIND[:VALUE][,timeline:N]

POINT is a point id or snapshot id. KIND is ``latest`` (to the end of the log), ``time`` (ISO 8601 with zone), ``lsn``, ``xid``,
``name`` (a named restore point) or ``immediate`` (the snapshot itself). Without a KIND it is what resolve.resolve_target takes.
"""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass

KINDS = ("latest", "time", "lsn", "xid", "name", "immediate")
_VALUELESS = ("latest", "immediate")
_SHAPES = {
    "lsn": re.compile(r"[0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8}\Z"),
    "xid": re.compile(r"[0-9]{1,20}\Z"),
    "name": re.compile(r"[^\x00-\x1f,]{1,63}\Z"),
}
_TIMELINE = re.compile(r"[0-9]{1,10}\Z")


@dataclass(frozen=True)
class Position:
    """Where in a log a restore shall end. timeline: "" for the newest reachable one, or its number."""

    kind: str
    value: str = ""
    timeline: str = ""

    def __str__(self) -> str:
        text = f"{self.kind}:{self.value}" if self.value else self.kind
        return f"{text},timeline:{self.timeline}" if self.timeline else text

    def as_dict(self) -> dict[str, str]:
        """As Context.target takes it."""
        return {"kind": self.kind, "value": self.value, "timeline": self.timeline}


def parse_time(text: str) -> datetime.datetime:
    """An ISO 8601 time with zone; ValueError without one."""
    value = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
    if value.tzinfo is None:
        raise ValueError("no time zone")
    return value


def split(target: str) -> tuple[str, Position | None]:
    """(point or "", position or None) of a target. ValueError says what is wrong with a position.

    ``latest`` and a bare time come back as the first part: whether a log goes on from there is not known here.
    """
    base, at, tail = target.rpartition("@")
    if not at and tail in ("latest", "proven"):
        return tail, None
    head, _comma, timeline = tail.partition(",timeline:")
    kind, colon, value = head.partition(":")
    if kind not in KINDS:
        if at:
            raise ValueError(f"unknown kind of position {kind!r}; use one of {', '.join(KINDS)}")
        return target, None
    if kind in _VALUELESS and colon or kind not in _VALUELESS and not value:
        raise ValueError(f"position {kind!r} takes {'no value' if colon else 'a value after a colon'}")
    if kind == "time":
        try:
            parse_time(value)
        except ValueError as error:
            raise ValueError(f"{value!r} is no ISO 8601 time with zone") from error
    elif kind in _SHAPES and not _SHAPES[kind].match(value):
        raise ValueError(f"{value!r} is no {kind}")
    if _comma and not _TIMELINE.match(timeline):
        raise ValueError(f"{timeline!r} is no timeline number (decimal)")
    return base, Position(kind, value, timeline)
