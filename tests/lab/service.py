# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A service with a directory of files, a repository and keys below one folder: the smallest thing that can be captured."""

from __future__ import annotations

import os
import pathlib
import platform
from typing import Any

from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline.capture import capture_service
from ansible_collections.lifeboat.recovery.plugins.module_utils.repository.repository import Repository
from ansible_collections.lifeboat.recovery.plugins.module_utils.spec import Spec

#: The process that counts as the controller, if not this one; a test that plays a machine booting again names a dead one.
controller_pid = 0


def run_record(run_id: str, verb: str = "backup") -> dict[str, Any]:
    """What the modules pass as ``run``."""
    return {
        "id": run_id, "verb": verb, "controller": platform.node(), "pid": controller_pid, "user": "test", "started": "2026-01-01T00:00:00Z", "resumes": None,
    }


class FilesService:
    """One service ``docs`` with one source ``tree``."""

    def __init__(self, home: pathlib.Path, service: str = "docs", sources: dict[str, Any] | None = None) -> None:
        self.home = home
        self.tree = home / "data" / "tree"
        self.repository = home / "repository"
        self.document = {
            "service": service,
            "entry": {"owner": "team-docs", "sources": sources or {"tree": {"type": "files", "path": str(self.tree)}}},
            "repository": {"name": "local", "url": f"file://{self.repository}"},
            "keys": {"provider": "file", "path": str(home / "keys" / "host"), "private_path": str(home / "keys" / "private")},
            "state_dir": str(home / "state"),
            "catalog": {"digest": "0" * 64, "ecosystem": "lab"},
        }
        self.spec = Spec.from_dict(self.document)

    def bootstrap(self) -> FilesService:
        """Make the directory, keys and repository."""
        self.tree.mkdir(parents=True, exist_ok=True)
        self.spec.provider().ensure()
        Repository.create(self.spec.repository)
        return self

    def without_private_keys(self) -> Spec:
        """The spec of a host that can capture and not restore."""
        return Spec.from_dict({**self.document, "keys": {"provider": "file", "path": str(self.home / "keys" / "host")}})

    def capture(self, run_id: str, spec: Spec | None = None) -> dict[str, Any]:
        """Take a snapshot; the result of capture_service."""
        return capture_service(spec or self.spec, run_record(run_id))

    def objects(self) -> list[pathlib.Path]:
        """Every object in the repository."""
        return sorted(path for path in self.repository.rglob("*") if path.is_file())

    def fill(self, files: int = 20) -> None:
        """A tree with small, large, sparse, linked and oddly named files."""
        self.tree.mkdir(parents=True, exist_ok=True)
        for number in range(files):
            folder = self.tree / f"d{number % 3}"
            folder.mkdir(exist_ok=True)
            (folder / f"f{number}.txt").write_bytes(f"file {number}\n".encode() * (number + 1))
        (self.tree / "large").write_bytes(bytes(range(256)) * 4096 + os.urandom(3 << 20))
        with open(self.tree / "sparse", "wb") as handle:
            handle.truncate(5 << 20)
            handle.seek(3 << 20)
            handle.write(b"in the middle")
        os.link(self.tree / "large", self.tree / "linked")
        os.symlink("../elsewhere", self.tree / "symlink")
        os.mkfifo(self.tree / "pipe")
        (self.tree / "new\nline").write_text("odd")
        with open(os.fsencode(str(self.tree)) + b"/\xff\xfe", "wb") as handle:
            handle.write(b"not UTF-8")
        (self.tree / "empty").touch()
        os.chmod(self.tree / "empty", 0o4710)
        os.utime(self.tree / "d0" / "f0.txt", ns=(1, 981173106123456789))
        os.utime(self.tree / "d0", ns=(1, 981173106987654321))
