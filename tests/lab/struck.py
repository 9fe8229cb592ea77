# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A piece of work in a process of its own, which a fault may kill.

A fork: it is done at hundreds of points, and a new interpreter would import longer than most of the work takes.
"""

from __future__ import annotations

import os
import signal
import traceback
from pathlib import Path
from typing import Callable

from ansible_collections.lifeboat.recovery.plugins.module_utils import faults
from ansible_collections.lifeboat.recovery.tests.lab import processes


def run(work: Callable[[], object], said: Path, fault: str = "", trace: Path | None = None) -> int:
    """Do the work, perhaps with a fault; its exit code (-9: killed). said: where a traceback is kept; trace: where the points that it passes are."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            faults.configure(fault, str(trace or ""))
            work()
            code = 0
        except BaseException:  # the parent reports it; nothing of the parent's clean-up may run here
            said.write_text(traceback.format_exc(), encoding="utf-8")
        finally:
            os._exit(code)
    ended: list[int] = []

    def over() -> bool:
        pid, status = os.waitpid(child, os.WNOHANG)
        ended.extend([os.waitstatus_to_exitcode(status)] if pid else [])
        return bool(pid)

    try:
        processes.wait_for(over, "the end of the work", 600)
    except TimeoutError:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise
    assert ended[0] in (0, -signal.SIGKILL), said.read_text(encoding="utf-8") if said.exists() else ended
    return ended[0]
