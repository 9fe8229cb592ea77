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
    own = {"phases": {"stage": 4.0, "start": 3.0}, "waited": {"stage": 0.0, "start": 0.0}, "offset": None, "moved": None}
    found = history.runs(str(tmp_path), "shop")
    assert history.by_service(found) == {"orders": [
        {"run": "20300101T000000Z-drill-bbbbbb", "bytes": 0, **own}, {"run": "20300102T000000Z-restore-aaaaaa", "bytes": 100, **own},
    ]}
    assert [one["seconds"] for one in found] == [None, None]  # the second left somebody behind, and neither says when its services were there


def test_no_directory_is_no_history(tmp_path: Path) -> None:
    assert history.runs(str(tmp_path / "absent"), "shop") == []


def test_waiting_forecast_and_moved_bytes_are_kept_apart(tmp_path: Path) -> None:
    phases = [{"name": "stage", "seconds": 4.0, "offset": 2.5, "outcome": "done", "waited_for": []},
              {"name": "gate", "seconds": 9.0, "offset": 6.5, "outcome": "done",
               "waited_for": [{"service": "a", "seconds": 8.5}, {"service": "b", "seconds": 3}]}]
    told = {"seconds": 20, "low": 10.5, "high": "x", "elapsed": 2, "pace": 1.5, "links": {"db1": 1000, "db2": None},
            "services": {"orders": {"moved": {"written": 70, "fetched": 30, "bytes": 100, "reused": 30}}, "mail": {"moved": None}}}
    write(tmp_path, "20300101T000000Z-restore-aaaaaa", {**run({"orders": item(seconds=18.5, phases=phases), "mail": item(seconds=4)}), "forecast": told})
    (found,) = history.runs(str(tmp_path), "shop")
    assert found["seconds"] == 18.5
    assert found["forecast"] == {"seconds": 20.0, "low": 10.5, "high": None, "elapsed": 2.0, "pace": 1.5, "links": {"db1": 1000.0}}
    orders = found["services"]["orders"]
    assert (orders["offset"], orders["waited"]["gate"], orders["moved"]) == (2.5, 8.5, {"written": 70.0, "fetched": 30.0})
    assert found["services"]["mail"]["moved"] is None


def measured(run_id: str, **change: Any) -> dict[str, Any]:
    data = {"verb": "restore", "verdict": "verified", "seconds": 9, "phases": {"stage": {"seconds": 3.0, "waited_for": None},
            "gate": {"seconds": 4.0, "waited_for": "identity"}}, "bytes": {"fetched": 10, "written": 40, "reused": 60}, "failure": None}
    return {"run": run_id, "verb": "restore", "verdict": "verified", "measured": {**data, **change}}


def test_what_hosts_recorded_fills_in_the_runs_of_other_controllers(tmp_path: Path) -> None:
    write(tmp_path, "20300102T000000Z-restore-aaaaaa", run({"orders": item()}))
    entries = [
        measured("20300101T000000Z-restore-bbbbbb"), measured("20300102T000000Z-restore-aaaaaa"), measured("20300103T000000Z-backup-cccccc", verb="backup"),
        measured("20300104T000000Z-restore-dddddd", verdict="failed"), measured("20300105T000000Z-restore-eeeeee", phases={"stage": {"seconds": "1"}}),
        measured("../../etc"), measured("20300106T000000Z-restore-ffffff", recovery={"noop": True}), {"run": 1, "measured": None}, None, [1],
    ]
    found = history.by_service(history.runs(str(tmp_path), "shop", ["orders"], {"orders": entries}))["orders"]
    assert [one["run"] for one in found] == ["20300101T000000Z-restore-bbbbbb", "20300102T000000Z-restore-aaaaaa"]
    assert found[0] == {"run": "20300101T000000Z-restore-bbbbbb", "bytes": 100, "phases": {"stage": 3.0, "gate": 4.0}, "waited": {"stage": 0.0, "gate": 4.0},
                        "offset": None, "moved": {"written": 40.0, "fetched": 10.0}}


def test_no_more_is_read_than_is_needed(tmp_path: Path) -> None:
    for day in range(1, 20):
        write(tmp_path, f"203001{day:02d}T000000Z-restore-aaaaaa", run({"orders": item(), **({"mail": item()} if day < 5 else {})}))
    assert [one["run"][:8] for one in history.runs(str(tmp_path), "shop", ["orders"])] == [f"203001{day:02d}" for day in range(8, 20)]
    assert len(history.runs(str(tmp_path), "shop", ["orders", "mail"])) == 19
