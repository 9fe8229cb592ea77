# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A process that is connected to a port of this machine, and does nothing else."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from typing import Any, Iterator

_PROGRAM = """
import socket, sys
peer = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
sys.stdout.write(str(peer.getsockname()[1]) + "\\n")
sys.stdout.flush()
sys.stdin.read()
"""


@contextlib.contextmanager
def talking(port: int, folder: os.PathLike[str] | str, **options: Any) -> Iterator[int]:
    """Its own port, while it is connected; it works in ``folder``, as a service does in its data."""
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", _PROGRAM, str(port)], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          **options) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.stdin.close()
            process.wait(60)
