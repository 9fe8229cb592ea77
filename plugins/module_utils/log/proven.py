# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""The proven position: how far the log is in the repository without a gap, read back. Kept durably on the host."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from .. import state
from ..errors import DamageError
from ..repository.log_piece import iso
from . import wal

#: Gaps that are remembered; the newest count.
_GAPS = 100


@dataclass
class Proven:
    """begin, position: the gap-free range that is proven on ``timeline``; timeline 0: nothing yet. time_ns: when the last byte of it was captured.

    epoch, digest: the newest epoch this host wrote. gaps: [{"timeline", "from", "to", "found", "reason"}], positions as text.
    """

    repository: str = ""
    system: str = ""
    segment_size: int = 0
    timeline: int = 0
    begin: int = 0
    position: int = 0
    time_ns: int = 0
    epoch: int = 0
    digest: str | None = None
    gaps: list[dict[str, Any]] = field(default_factory=list)

    def add_gap(self, timeline: int, start: int, end: int, reason: str, found_ns: int) -> dict[str, Any]:
        """A stretch that the repository does not have and will not get; as it is remembered."""
        gap = {"timeline": timeline, "from": wal.text(start), "to": wal.text(end), "reason": reason, "found": iso(found_ns)}
        same = [one for one in self.gaps if one["timeline"] == timeline and one["from"] == gap["from"]]
        for one in same:
            self.gaps.remove(one)
        self.gaps = [*self.gaps, gap][-_GAPS:]
        return gap


def read(path: str, url: str) -> Proven:
    """What the host remembers for the repository at this URL; an empty one where it knows nothing. Raises DamageError."""
    kept = (state.read_json(path) or {}).get(url)
    if kept is None:
        return Proven()
    try:
        return Proven(**kept)
    except TypeError as error:
        raise DamageError("the proven position of a log cannot be read", path, "move it aside; it is found again in the repository") from error


def write(path: str, url: str, proven: Proven) -> None:
    """Durably; what is known of other repositories stays."""
    document = state.read_json(path) or {}
    document[url] = asdict(proven)
    state.write_json(path, document, "logmark")
