# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The time-line and report.html: readable, complete, self-contained, and deaf to hostile text."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run import drawing, lifecycle, timeline
from ansible_collections.lifeboat.recovery.tests.doubles import run_sample

HOSTILE = "<script>alert(1)</script>\"'><img src=http://evil.example/x onerror=alert(1)> & \x1b[31m\x00\u202e 💾 ${x} {{ y }} </style></svg>"


class Page(HTMLParser):
    """Collects tags and attributes, and whether what was opened was closed."""

    VOID = {"meta", "br", "img", "link", "rect", "line", "input", "hr"}

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        self.open.append(tag)
        if tag in self.VOID and tag not in ("rect",):
            self.open.pop()

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def hostile(tmp_path: Path) -> str:
    return Path(run_sample.render(str(tmp_path), fail="orders", text=HOSTILE, check=HOSTILE)).read_text()


def test_the_page_is_well_formed_and_asks_nobody(hostile: str) -> None:
    page = Page(hostile)
    assert page.wrong == [] and page.open == []
    assert not page.tags & {"script", "img", "link", "iframe", "object", "embed", "form", "base", "audio", "video"}
    assert not [name for name, _value in page.attributes if name.startswith("on") or name in ("src", "href", "srcset", "action", "style", "xlink:href")]
    assert "url(" not in hostile.replace("url(#waits)", "") and "@import" not in hostile
    assert "default-src 'none'" in hostile


def test_hostile_text_is_shown_and_not_obeyed(hostile: str) -> None:
    page = Page(hostile)
    assert "<script>alert(1)</script>" in page.text and "\\x1b[31m" in page.text
    assert not re.search(r"[\x00-\x08\x0b-\x1f\u202e]", hostile)


def test_the_page_tells_everything(tmp_path: Path) -> None:
    page = Page(Path(run_sample.render(str(tmp_path), fail="orders")).read_text())
    for expected in (
        "Not every service reached its goal", "Root cause and what to do", "blocks payments, gateway", "lifeboat.recovery.rollback",
        "Time-line", "Verdicts", "Proof",
        "orders.db-000007-1a2b3c4d", "chain intact", "Seconds per phase", "every payment has its order", "stopped; data not touched", "RTO",
    ):
        assert expected in page.text, expected
    titles = re.findall(r"gate: [^<]*; waited [^<]* for orders", Path(tmp_path / run_sample.RUN / "report.html").read_text())
    assert len(titles) == 2  # payments and gateway


def test_a_good_page_has_no_root_cause(tmp_path: Path) -> None:
    text = Path(run_sample.render(str(tmp_path))).read_text()
    assert "Every picked service reached its goal" in text and "Root cause" not in text


@pytest.mark.parametrize("width", [40, 80, 100, 120, 300])
def test_the_terminal_line_fits(tmp_path: Path, width: int) -> None:
    document = lifecycle.write_documents(run_sample.make(str(tmp_path), fail="orders"))
    lines = timeline.render(document, width).splitlines()
    assert max(len(line) for line in lines) <= max(80, min(120, width))
    for name in run_sample.SHOP:
        assert any(line.startswith(name) and "|" in line for line in lines)
    assert any("s stage" in line and ". waits" in line for line in lines)


def test_bars_show_what_filled_them() -> None:
    phases = [
        {"name": "stage", "offset": 0.0, "seconds": 5.0}, {"name": "gate", "offset": 5.0, "seconds": 4.0}, {"name": "cutover", "offset": 9.0, "seconds": 1.0},
    ]
    assert timeline.strip(phases, 10.0, 10) == "sssss....C"
    assert timeline.strip(phases, 20.0, 10) == "ss" + timeline.strip(phases, 20.0, 10)[2:] and timeline.strip(phases, 20.0, 10)[5:] == "     "
    assert timeline.strip([], 10.0, 5) == "     " and timeline.strip(phases, 0.0, 5) == "     "
    # a cutover of a hundredth of a cell still shows: it is what an operator looks for
    assert "C" in timeline.strip([{"name": "gate", "offset": 0.0, "seconds": 9.9}, {"name": "cutover", "offset": 9.9, "seconds": 0.1}], 10.0, 10)


@pytest.mark.parametrize("total", [0.0, 0.003, 1.0, 7.0, 59.0, 61.0, 600.0, 86400.0, 1e7])
def test_scales_are_short_and_reach_the_end(total: float) -> None:
    found = drawing.ticks(total)
    assert found[0] == 0 and 1 <= len(found) <= 12 and all(one <= total + 1e-6 for one in found)
    assert not total or found[-1] >= total / 2
