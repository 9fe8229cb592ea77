# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Command probe: {command: [argv]}: exit status 0; the value is its output without the blanks at both ends. No shell."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from typing import IO, TYPE_CHECKING, Any

from ..errors import CheckError, ConfigError
from . import expect

if TYPE_CHECKING:
    from ..spec import Spec

_LIMIT = 64 << 10


def probe(spec: Spec, entry: dict[str, Any], timeout: float) -> str | None:
    """Run it; its output only counts when an expectation is declared on it."""
    argv = entry["command"]
    if not isinstance(argv, list) or not argv:
        raise ConfigError("a command is a list of words", repr(argv), "")
    status, output, errors = run_argv([str(word) for word in argv], timeout)
    if status != 0:
        lines = (errors.strip() or output.strip()).splitlines()
        raise CheckError(f"exit status {status}" + (f" ({expect.shown(lines[-1])})" if lines else ""), str(argv[0]))
    return output.strip() if any(word in entry for word in ("equals", "at_least", "at_most")) else None


def run_argv(argv: list[str], timeout: float) -> tuple[int, str, str]:
    """(exit status, standard output, standard error) of a command in its own process group, which a time-out kills.

    Output goes to nameless files, not pipes: a daemon that the command leaves behind may keep them open.
    """
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=errors, start_new_session=True, cwd="/")
        except OSError as error:
            raise CheckError(f"cannot run ({error.strerror})", argv[0], "check the path and its permissions") from error
        try:
            status = process.wait(timeout)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if isinstance(error, subprocess.TimeoutExpired):
                raise CheckError(f"did not end within {timeout:g} s", argv[0]) from None
            raise
        return status, _read(output), _read(errors)


def _read(handle: IO[bytes]) -> str:
    size = handle.seek(0, os.SEEK_END)
    handle.seek(max(0, size - _LIMIT))
    return handle.read(_LIMIT).decode("utf-8", "replace")
