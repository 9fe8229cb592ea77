# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""pg_receivewal as a child: started, stopped, and never left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

from .. import lease, state
from ..errors import ConflictError, SourceError
from ..sources.server import wait_until

if TYPE_CHECKING:
    from ..sources.postgresql_client import Client

#: Seconds a receiver may take to close its file.
_STOP = 15.0
#: Asks the kernel to end this process with its parent (a shipper that was killed must not leave a receiver that nobody bounds), then
#: becomes the receiver. 1 is PR_SET_PDEATHSIG, 2 SIGINT.
_BOUND = (
    "import ctypes, os, sys\n"
    "ctypes.CDLL(None).prctl(1, 2, 0, 0, 0)\n"
    "os.getppid() == int(sys.argv[1]) or sys.exit(1)\n"
    "os.execv(sys.argv[2], sys.argv[2:])\n"
)


class Receiver:
    """One pg_receivewal at a time, writing into a spool. Not thread-safe; start it from a thread that lives as long as it shall."""

    def __init__(self, directory: str, wal: str) -> None:
        self._wal = wal
        self._record = os.path.join(directory, "receiver.json")
        self._messages = os.path.join(directory, "receiver.log")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    def start(self, program: str, client: Client, slot: str) -> None:
        """Begin to receive; the password goes through the environment of the child only."""
        environment = client.environment(client.database)
        environment["PGAPPNAME"] = slot
        argv = [program, f"--directory={self._wal}", f"--slot={slot}", "--no-loop", "--no-password", "--status-interval=1"]
        with open(self._messages, "wb") as messages:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _BOUND, str(os.getpid()), *argv],
                stdin=subprocess.DEVNULL, stdout=messages, stderr=messages, env=environment, cwd="/", start_new_session=True,
            )
        state.write_json(self._record, {"boot": lease.boot_id(), "pid": self._process.pid, "started": lease.process_started(self._process.pid)}, "logmark")

    def ended(self) -> int | None:
        """The exit status when it has ended."""
        return self._process.poll() if self._process is not None else None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def message(self) -> str:
        """The last thing it said; what the server told it rather than that it is disconnected now."""
        with contextlib.suppress(OSError), open(self._messages, "rb") as handle:
            handle.seek(max(0, os.fstat(handle.fileno()).st_size - 2000))
            lines = [line for line in handle.read().decode("utf-8", "replace").splitlines() if line.strip()]
            wanted = [line for line in lines if ("error:" in line or "FATAL" in line or "ERROR" in line) and not line.endswith("error: disconnected")]
            return (wanted or lines or [""])[-1].strip()[:300]
        return ""

    def stop(self) -> None:
        """Let it close its file; kill it when it does not."""
        if self._process is None:
            return
        if self._process.poll() is None:
            # SIGINT: versions before 16 know no clean end by SIGTERM
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(_STOP)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(_STOP)
        self._process = None

    def rebooted(self) -> bool:
        """The machine went down since the last receiver wrote."""
        record = state.read_json(self._record)
        return record is None or record.get("boot") != lease.boot_id()

    def end_orphan(self) -> None:
        """End the receiver of a shipper that was killed."""
        record = state.read_json(self._record)
        if record is None or record.get("boot") != lease.boot_id():
            return
        pid, started = int(record.get("pid") or 0), str(record.get("started") or "")

        def alive() -> bool:
            return bool(started) and lease.process_started(pid) == started

        for how in (signal.SIGINT, signal.SIGKILL):
            if not alive():
                return
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, how)
            with contextlib.suppress(SourceError):
                wait_until(lambda: not alive(), _STOP, SourceError("still there"))
        if alive():
            raise ConflictError("the receiver of a former shipper does not end", f"process {pid}", "end it, then start the shipper again")
