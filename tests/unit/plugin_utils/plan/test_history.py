# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A forecast stands on measured, whole, successful runs, and never falls over a broken file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ansible_collections.lifeboat.recovery.plugins.plugin_utils.plan import history


def item(**change: Any) -> dict[str, Any]:
    phases = [{"name": "stage", "seconds": 4.0, "outcome": "done"}, {"name": "start", "seconds": 1, "outcome": "done"},
              {"name": "start", "seconds": 2, "outcome": "done"}]
    return {"verdict": "verified", "noop": False, "bytes": {"source": 100, "stored": 50}, "phases": phases, **change}


def write(root: Path, name: str, document: Any) -> None:
    (root / name).mkdir()
    (root / name / "run.json").write_text(document if isinstance(document, str) else json.dumps(document))


def run(services: Any, ecosystem: str = "shop") -> dict[str, Any]:
    return {"ecosystem": ecosystem, "services": services}


def test_only_what_was_measured_counts(tmp_path: Path) -> None:
    open_phase = [{"name": "stage", "seconds": 4.0, "outcome": "open"}]
    write(tmp_path, "20300102T000000Z-restore-aaaaaa", run({"orders": item(), "mail": item(verdict="failed"), "noop": item(noop=True),
                                                            "cut": item(phases=open_phase), "none": item(phases=[]), "odd": [1]}))
    write(tmp_path, "20300101T000000Z-drill-bbbbbb", run({"orders": item(verdict="restored", bytes={"source": None})}))
    write(tmp_path, "20300103T000000Z-backup-cccccc", run({"orders": item(verdict="captured")}))
    write(tmp_path, "20300104T000000Z-restore-dddddd", run({"orders": item()}, "store"))
    write(tmp_path, "20300105T000000Z-restore-eeeeee", "{broken")
    write(tmp_path, "20300106T000000Z-restore-ffffff", "[" * 100000)
    write(tmp_path, "20300107T000000Z-restore-abcdef", run([1]))
    (tmp_path / "20300108T000000Z-restore-abcdef").mkdir()
    (tmp_path / "notes").mkdir()
    phases = {"stage": 4.0, "start": 3.0}
    assert history.read(str(tmp_path), "shop") == {"orders": [
        {"run": "20300101T000000Z-drill-bbbbbb", "bytes": 0, "phases": phases},
        {"run": "20300102T000000Z-restore-aaaaaa", "bytes": 100, "phases": phases},
    ]}


def test_no_directory_is_no_history(tmp_path: Path) -> None:
    assert history.read(str(tmp_path / "absent"), "shop") == {}
