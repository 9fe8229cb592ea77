# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An S3 server that says yes to everything: it accepts object locks and conditional writes, and keeps neither.

It is a real program (`rclone serve s3`), used as the store that a preflight has to unmask.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from typing import Any

from . import processes

ACCESS, SECRET = "yesyesyes", "yes-secret-canary-2"


class YesStore:
    """One server over a private directory. Use it as a context manager."""

    def __init__(self) -> None:
        self.home = processes.private_dir("yes", "/var/tmp")
        self.port = processes.free_port()
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> YesStore:
        program = shutil.which("rclone", path=os.path.dirname(sys.executable)) or "rclone"
        data = os.path.join(self.home, "data")
        os.makedirs(data)
        with open(os.path.join(self.home, "log"), "wb") as log:
            self.process = subprocess.Popen(
                [program, "--config", os.devnull, "serve", "s3", "--addr", f"127.0.0.1:{self.port}", "--auth-key", f"{ACCESS},{SECRET}", data],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.home, env={"PATH": "/usr/bin:/bin", "HOME": self.home}, start_new_session=True,
            )
        try:
            processes.wait_for(self._answers, "rclone")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_exception: object) -> None:
        if self.process is not None:
            processes.end(self.process.pid, signal.SIGKILL)
            self.process.wait(10)
        processes.remove(self.home)

    def _answers(self) -> bool:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{self.port}", timeout=30).close()
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False
        return True

    def config(self, bucket: str, **options: Any) -> dict[str, Any]:
        """A repository of the catalog there."""
        path = os.path.join(self.home, "credentials")
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as handle:
            handle.write(f"[default]\naws_access_key_id = {ACCESS}\naws_secret_access_key = {SECRET}\n")
        place = {"name": "yes", "url": f"s3://{bucket}/shop", "endpoint": f"http://127.0.0.1:{self.port}", "path_style": True}
        return {**place, "credentials_file": path, **options}
