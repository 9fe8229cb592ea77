# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""The process that hands out the work comes before those that do it.

ansible-playbook itself needs a fifth of a core, but every step of every service waits for it. Behind as many workers as there are forks on the same
cores it got a tenth of what it needed.
"""

from __future__ import annotations

import atexit
import contextlib
import os

#: Where the kernel shares the processors among sessions first, niceness counts within one only; this tells that of the session: "/autogroup-123 nice 5".
_SESSION = "/proc/self/autogroup"
_ahead = False


def set_niceness(value: int, of_session: int | None = None) -> None:
    """Of this process and, where there is such a thing, of its session, the same unless said. OSError when it is not allowed."""
    os.setpriority(os.PRIO_PROCESS, 0, value)
    with contextlib.suppress(OSError), open(_SESSION, "w", encoding="ascii") as handle:
        handle.write(str(value if of_session is None else of_session))


def _of_session() -> int:
    """The session's niceness; 0 where there is no such thing."""
    with contextlib.suppress(OSError, ValueError, IndexError), open(_SESSION, encoding="ascii") as handle:
        return int(handle.read().split()[-1])
    return 0


def _put_back(pid: int, was: int, of_session: int) -> None:
    """At the end of ansible-playbook, not of what it forked: its session may be a shell's."""
    if os.getpid() == pid:
        with contextlib.suppress(OSError):
            set_niceness(was, of_session)


def go_first(by: int) -> bool:
    """Lower the niceness of this process and its session, not of what it forks, by so much; whether that is so. Only root may: for others nothing changes."""
    global _ahead
    if by > 0 and not _ahead:
        was, of_session = os.getpriority(os.PRIO_PROCESS, 0), _of_session()
        try:
            set_niceness(max(-20, was - by), max(-20, of_session - by))
        except OSError:
            return False
        atexit.register(_put_back, os.getpid(), was, of_session)
        os.register_at_fork(after_in_child=lambda: os.setpriority(os.PRIO_PROCESS, 0, was))
        _ahead = True
    return _ahead
