# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A small sampling profiler over all threads: where the time goes, without anything to install.

Every few milliseconds it notes which line each thread is on. A thread inside a C library (zstd, hashing, reading)
shows as the Python line that called it; threads that wait for others are counted apart.
"""

from __future__ import annotations

import collections
import json
import sys
import threading
from pathlib import Path
from types import FrameType

PACKAGE = "lifeboat/recovery/"
_WAITING = ("threading.py", "queue.py", "_base.py", "selectors.py")


class Sampler:
    """Context manager; writes {"samples", "busy": [[share, place], ...], "threads_busy": average} on exit."""

    def __init__(self, path: Path, interval: float = 0.004) -> None:
        self._path = path
        self._interval = interval
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._busy: collections.Counter[str] = collections.Counter()
        self._samples = 0

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stop.set()
        self._thread.join(5)
        total = sum(self._busy.values()) or 1
        top = [[round(100 * count / total, 1), place] for place, count in self._busy.most_common(25)]
        report = {"samples": self._samples, "threads_busy": round(total / max(1, self._samples), 2), "busy": top}
        self._path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")

    def _run(self) -> None:
        me = threading.get_ident()
        while not self._stop.wait(self._interval):
            self._samples += 1
            for ident, frame in sys._current_frames().items():
                if ident != me:
                    self._note(frame)

    def _note(self, frame: FrameType | None) -> None:
        if frame is None or frame.f_code.co_filename.endswith(_WAITING) or "concurrent/futures" in frame.f_code.co_filename:
            return
        leaf = frame
        while frame is not None and PACKAGE not in frame.f_code.co_filename:
            frame = frame.f_back
        if frame is None:
            return
        place = f"{frame.f_code.co_filename.split(PACKAGE)[-1]}:{frame.f_lineno} {frame.f_code.co_name}"
        if leaf is not frame:
            place += f" > {Path(leaf.f_code.co_filename).name} {leaf.f_code.co_name}"
        self._busy[place] += 1
