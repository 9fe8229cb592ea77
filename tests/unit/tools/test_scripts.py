# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The scripts that set up, check and measure: what they count and what they tell."""

from __future__ import annotations

import configparser
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[3]


def load(monkeypatch: pytest.MonkeyPatch, path: str) -> ModuleType:
    """A script by its path; its neighbours can be imported while the test runs."""
    monkeypatch.syspath_prepend(str((ROOT / path).parent))
    spec = importlib.util.spec_from_file_location(f"scripts.{Path(path).stem}", ROOT / path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # dataclasses look their module up by name
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def test_pip_settings_say_what_pip_was_told(monkeypatch: pytest.MonkeyPatch) -> None:
    places = load(monkeypatch, "tests/tools/places.py")
    listing = "\n".join([
        ":env:.timeout='30'", ":env:.config-file='/dev/null'", "global.timeout='5'", "global.find-links='\\n/wheels\\n/more'",
        "install.no-compile='true'", "nonsense",
    ])
    told = configparser.ConfigParser()
    told.read_string(places.pip_settings(listing, {"HTTPS_PROXY": "http://127.0.0.1:1", "SSL_CERT_FILE": "/ca.pem"}))
    assert dict(told["global"]) == {"timeout": "30", "find-links": "/wheels\n/more", "proxy": "http://127.0.0.1:1", "cert": "/ca.pem"}
    assert dict(told["install"]) == {"no-compile": "true"}


def test_search_path_has_no_shims(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    places = load(monkeypatch, "tests/tools/places.py")
    for name in ("shims", "versions/3.9.1/bin"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.setenv("PATH", f"{tmp_path}/shims:/usr/bin")
    folders = places.search_path().split(":")
    assert folders[0] == str(places.VENV / "bin")
    assert f"{tmp_path}/shims" not in folders
    assert folders.index("/usr/bin") < folders.index(f"{tmp_path}/versions/3.9.1/bin")


@pytest.mark.parametrize("user", [0, 1000])
def test_setup_names_exactly_what_is_missing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, user: int) -> None:
    setup = load(monkeypatch, "tests/tools/setup.py")
    monkeypatch.setattr(setup.os, "geteuid", lambda: user)
    # root of some other system has no apt-get, a user of this one may not use it
    monkeypatch.setattr(setup, "has_program", lambda name: name == "apt-get" and user != 0)
    monkeypatch.setattr(setup, "PACKAGES", [
        ("there", "is there", lambda: True, {"demo"}), ("absent", "is absent", lambda: False, {"demo"}), ("other", "not for this", lambda: False, {"test"}),
    ])
    with pytest.raises(SystemExit) as ended:
        setup.install_packages("demo", setup.Clock(), tmp_path / "log")
    assert ended.value.code == 1
    told = capsys.readouterr().err
    assert "missing: absent: is absent" in told
    assert "there" not in told.split() and "other" not in told.split()


def test_a_skipped_or_lost_report_counts_as_failed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    checks = load(monkeypatch, "tests/tools/checks.py")
    report = tmp_path / "report.xml"
    assert checks.count_pytest(report) == (0, 1, "pytest wrote no report")
    report.write_text('<testsuites><testsuite tests="7" failures="1" errors="1" skipped="2"/></testsuites>', encoding="utf-8")
    assert checks.count_pytest(report) == (3, 4, "2 skipped")
    report.write_text('<testsuites><testsuite tests="0" failures="0" errors="0" skipped="0"/></testsuites>', encoding="utf-8")
    assert checks.count_pytest(report) == (0, 1, "no test was found")


def test_a_command_that_hangs_is_stopped_and_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    checks = load(monkeypatch, "tests/tools/checks.py")
    monkeypatch.setattr(checks, "LOGS", tmp_path)
    monkeypatch.setattr(checks, "REPORTS", tmp_path)
    outcome = checks.run_check(checks.Check("hangs", [["sleep", "600"]], limit=1), False)
    assert (outcome.passed, outcome.failed) == (0, 1)
    assert outcome.note == "stopped after 1 s"
    assert outcome.seconds < 60


def test_counted_checks_tell_how_many_failed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    checks = load(monkeypatch, "tests/tools/checks.py")
    monkeypatch.setattr(checks, "LOGS", tmp_path)
    monkeypatch.setattr(checks, "REPORTS", tmp_path)

    def run(script: str) -> tuple[int, int]:
        check = checks.Check("counts", [["sh", "-c", script]], counted="^did ", broken=r"(\d+) bad")
        outcome = checks.run_check(check, False)
        return outcome.passed, outcome.failed

    assert run("echo did a; echo did b") == (2, 0)
    assert run("echo did a; echo did b; echo did c; echo 2 bad; exit 1") == (1, 2)
    assert run("true") == (0, 1)


def test_every_target_of_make_is_a_check(monkeypatch: pytest.MonkeyPatch) -> None:
    checks = load(monkeypatch, "tests/tools/checks.py")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = next(line for line in makefile.splitlines() if line.startswith("TARGETS :=")).split()[2:]
    assert set(targets) == set(checks.all_checks()) - {"soak"}


def test_benchmark_ratios_are_taken_within_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    report = load(monkeypatch, "tests/benchmarks/report.py")
    rounds = [{"Lifeboat": {"seconds": mine}, "restic": {"seconds": theirs}} for mine, theirs in ((1, 2), (10, 40), (2, 6))]
    assert report.ratios(rounds, "restic", "Lifeboat") == {"median": 3, "least": 2, "most": 4}


def test_benchmark_says_where_it_falls_short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    report = load(monkeypatch, "tests/benchmarks/report.py")

    def step(seconds: float) -> dict[str, object]:
        return {"seconds": seconds, "cpu": seconds, "peak": 600 << 20, "detail": {}}

    rounds = {phase: [{"Lifeboat": step(1.0), "restic": step(1.9)}] for phase in report.PHASES}
    result = {"contenders": ["Lifeboat", "restic"], "data": {
        "postgresql": {"files": 1, "bytes": 1 << 20, "rounds": rounds, "stored": {"Lifeboat": 1, "restic": 1}},
    }}
    lines = report.judge(result)
    assert lines[0] == "SHORT postgresql, first backup: restic / Lifeboat 1.90, required 2.0"
    assert lines[1].startswith("ok    postgresql, restore")
    assert lines[2].startswith("SHORT peak memory")
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- measured: begin -->\nold\n<!-- measured: end -->\nafter\n", encoding="utf-8")
    report.update(page, "new")
    assert page.read_text(encoding="utf-8") == "before\n<!-- measured: begin -->\n\nnew\n\n<!-- measured: end -->\nafter\n"
