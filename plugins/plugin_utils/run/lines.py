# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Lines of the live view: what one service does now, in one line, and when that line is worth printing again."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Optional

from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run import words
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run.directory import RunDirectory


@dataclass
class _Seen:
    key: tuple[Any, ...] = ()
    bytes_done: int = -1
    shown: float = 0.0
    phase: str = ""
    since: float = 0.0
    base: tuple[float, int] = (0.0, 0)


@dataclass
class View:
    """Turns the files of a run into lines. ``tick`` returns the lines that are new; call it as often as you like.

    A change of phase, verdict or of what is waited for is shown at once. Counters are shown again at most every ``every``
    seconds per service, and only when they moved.
    """

    run: RunDirectory
    every: float = 2.0
    width: int = 100
    began: float = field(default_factory=time.monotonic)
    _seen: dict[str, _Seen] = field(default_factory=dict)
    _names: int = 8

    def tick(self, now: Optional[float] = None) -> list[str]:
        """Lines for what changed since the last call. ``now``: monotonic seconds."""
        moment = time.monotonic() if now is None else now
        states = self.run.states()
        self._names = min(20, max([self._names, *(len(name) for name in states)]))
        lines = []
        for name in self._order(states):
            line = self._line(name, states[name], moment)
            if line is not None:
                lines.append(line)
        return lines

    def _order(self, states: dict[str, dict[str, Any]]) -> list[str]:
        picked = [name for name in self.run.picked() if name in states]
        return picked + sorted(set(states) - set(picked))

    def _line(self, name: str, state: dict[str, Any], now: float) -> Optional[str]:
        seen = self._seen.setdefault(name, _Seen())
        phase, verdict = str(state.get("phase") or ""), state.get("verdict")
        if phase != seen.phase:
            seen.phase, seen.since, seen.base, seen.bytes_done = phase, now, (now, 0), -1
        waiting = [item.get("service") for item in state.get("waiting") or [] if isinstance(item, dict)]
        key = (phase, bool(state.get("open")), verdict, tuple(waiting))
        counters = None if verdict or not state.get("open") else self.run.progress_of(name)
        done = _count(counters.get("bytes_done")) if counters else -1
        if not seen.key and phase == "plan" and not verdict and not state.get("open"):
            seen.key = key
            return None  # everybody begins there: not worth a line each
        changed = key != seen.key
        if changed and not verdict and not state.get("open"):
            seen.key = key
            return None  # the end of a phase: the next one's line tells it
        moved = counters is not None and done != seen.bytes_done and now - seen.shown >= self.every
        if not changed and not moved:
            return None
        seen.key, seen.bytes_done, seen.shown = key, done, now
        if verdict:
            return self._put(now, name, str(verdict), verdict_text(state))
        if waiting:
            return self._put(now, name, phase, "waits for " + ", ".join(str(item) for item in waiting))
        return self._put(now, name, phase, progress_text(counters, max(0.0, now - seen.since)) if counters else "")

    def _put(self, now: float, name: str, what: str, text: str) -> str:
        line = f"{now - self.began:8.1f}s  {words.one_line(name, self._names):<{self._names}}  {what:<11} {words.one_line(text)}".rstrip()
        return line if len(line) <= self.width else line[: self.width - 1] + "~"


def verdict_text(state: dict[str, Any]) -> str:
    """Why, in a few words: the root first when it is another service."""
    root = state.get("root")
    message = str(state.get("message") or "")
    if isinstance(root, dict) and root.get("service") and root.get("service") != state.get("service"):
        return f"by {root['service']}: {root.get('message') or root.get('verdict') or 'failed'}"
    return message


def progress_text(counters: dict[str, Any], elapsed: float) -> str:
    """Bytes, share, rate and time of a phase from its counters; the rate is the mean since the phase's own start on its host."""
    done, expected = _count(counters.get("bytes_done")), _count(counters.get("bytes_total"))
    started, updated = counters.get("started"), counters.get("updated")
    if isinstance(started, (int, float)) and isinstance(updated, (int, float)) and updated > started:
        elapsed = float(updated) - float(started)
    parts = []
    if done or expected:
        parts.append(words.size(done) + (f" of {words.size(expected)} {min(100, done * 100 // expected)} %" if expected else ""))
        if elapsed >= 0.2:
            parts.append(f"{words.size(done / elapsed)}/s")
    if _count(counters.get("items_done")):
        parts.append(f"{_count(counters.get('items_done'))} items")
    parts.append(words.duration(elapsed))
    if counters.get("detail"):
        parts.append(words.one_line(counters["detail"], 60))
    return "  ".join(parts)


def _count(value: Any) -> int:
    return int(value) if isinstance(value, (int, float)) and value > 0 else 0


def opening(run: RunDirectory) -> str:
    """The line that begins the view."""
    owner = run.run
    return f"{owner.get('verb')} {owner.get('id')}: {len(run.picked())} services; run directory {run.path}"
