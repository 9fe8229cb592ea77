# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A captured service with keys in files or in Vault, seen by the role that does what is tested."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils.pipeline import operations
from ansible_collections.lifeboat.recovery.plugins.module_utils.spec import Spec
from ansible_collections.lifeboat.recovery.tests.doubles.vault import running
from ansible_collections.lifeboat.recovery.tests.integration.keys.conftest import Site, double, short_pauses
from ansible_collections.lifeboat.recovery.tests.lab.service import FilesService, run_record

__all__ = ["World", "double", "short_pauses", "site", "world"]


class World:
    """One service of files below ``home``. spec(role): as a host with that role's credentials sees it."""

    def __init__(self, home: Path, vault: Site | None = None, service: str = "docs", escrow: str = "", repository: str = "") -> None:
        self.files = FilesService(home, service)
        self.vault = vault
        self.service = service
        self.escrow = {"escrow": escrow} if escrow else {}
        self.repository = {"repository": {"name": "local", "url": repository}} if repository else {}
        self._runs = 0
        self.files.fill(3)
        assert self.spec("bootstrap").provider().ensure()
        operations.prepare_repository(self.spec("backup"), check=False)

    def spec(self, role: str, **keys: Any) -> Spec:
        base = self.vault.config(self.vault.token(role, self.service)) if self.vault else dict(self.files.document["keys"])
        return Spec.from_dict({**self.files.document, **self.repository, "keys": {**base, **self.escrow, **keys}})

    def run(self, verb: str) -> dict[str, Any]:
        self._runs += 1
        return run_record(f"20260101T{self._runs:06d}Z-{verb}-{self._runs:06x}", verb)

    def capture(self, name: str) -> str:
        """Capture with one more file; the snapshot's id."""
        self.files.tree.mkdir(parents=True, exist_ok=True)
        (self.files.tree / name).write_text(f"content of {name}\n")
        return str(operations.capture(self.spec("backup"), self.run("backup"), "auto")["snapshots"][0]["id"])

    def restore(self, snapshot: str, spec: Spec | None = None) -> set[str]:
        """Restore a snapshot over the lost tree; the names of what is there then."""
        shutil.rmtree(self.files.tree, ignore_errors=True)
        run = self.run("restore")
        used = spec or self.spec("restore")
        try:
            operations.set_state(used, run, "live", snapshot, "last", {"force": True}, False)
        except Exception as error:
            operations.conclude(used, run, "failed", str(error), False)
            raise
        operations.conclude(used, run, "verified", "", False)
        operations.set_state(used, self.run("commit"), "committed", "", "last", {}, False)
        return {path.name for path in self.files.tree.iterdir()}

    def key_objects(self) -> list[str]:
        """The key objects, as file names."""
        return sorted(path.name for path in self.files.objects() if path.parent.name == "keys")


@pytest.fixture(scope="session")
def server() -> Iterator[Callable[[str], running.Server]]:
    """A Vault server of a kind, started when it is first wanted."""
    with contextlib.ExitStack() as stack:
        started: dict[str, running.Server] = {}

        def get(kind: str) -> running.Server:
            if kind not in started:
                started[kind] = stack.enter_context(running.start(kind))
            return started[kind]

        yield get


@pytest.fixture(params=["file", *running.kinds()])
def world(request: pytest.FixtureRequest, server: Callable[[str], running.Server], tmp_path: Path) -> Iterator[Callable[..., World]]:
    """Makes services; the keys of all that one test makes are in the same place: files, or a mount of each Vault that there is."""
    vault = None
    if request.param != "file":
        one = server(request.param)
        vault = Site(one, one.mount("transit"))

    def make(service: str = "docs", **options: Any) -> World:
        return World(tmp_path / service, vault, service, **options)

    yield make
    if vault is not None:
        vault.server.clean()


@pytest.fixture(params=running.kinds())
def site(request: pytest.FixtureRequest, server: Callable[[str], running.Server]) -> Iterator[Site]:
    one = server(request.param)
    yield Site(one, one.mount("transit"))
    one.clean()
