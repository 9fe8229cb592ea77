# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A running cluster, and shippers that do not outlive their test."""

from __future__ import annotations

import pathlib
from typing import Any, Callable, Iterator

import pytest

from ansible_collections.lifeboat.recovery.tests.lab.log_lab import LogLab, WalPostgres


@pytest.fixture
def cluster() -> Iterator[WalPostgres]:
    one = WalPostgres().init()
    one.start()
    yield one
    one.destroy()


@pytest.fixture
def make_lab(tmp_path: pathlib.Path, cluster: WalPostgres) -> Iterator[Callable[..., LogLab]]:
    labs: list[LogLab] = []

    def make(**log: Any) -> LogLab:
        home = tmp_path / f"lab{len(labs)}"
        home.mkdir()
        labs.append(LogLab(home, cluster, **log))
        return labs[-1]

    yield make
    for lab in labs:
        lab.end()


@pytest.fixture
def lab(make_lab: Callable[..., LogLab]) -> LogLab:
    return make_lab()
