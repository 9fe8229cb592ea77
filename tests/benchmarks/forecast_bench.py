# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How good the forecast of a restore is: three restores, then ten more that are predicted, among them twice the data and a slowed link.

usage: make bench-forecast FORECAST_ARGS="..." or forecast_bench.py [--docs] [--few] [--mib N] [--json FILE]

Every restore is the playbook as an operator runs it: services with files and with a database of PostgreSQL, which take a while to start, an S3
store (SeaweedFS) behind a proxy that lets through so many bytes a second. What is compared is the forecast that preflight prints, before anything
is touched, with the time from the begin of the run to its last verdict.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / ".dev"))

MIB = 1 << 20
#: Bytes a second of the link: 0 is as fast as it goes.
FAST, SLOW, SLOWER = 0.0, 8.0 * MIB, 4.0 * MIB
LEARNT = [(1, FAST)] * 3
#: The ten: (which point, link).
TEN = [(1, FAST), (2, FAST), (1, SLOW), (1, FAST), (2, SLOW), (2, FAST), (1, SLOWER), (1, FAST), (1, SLOW), (2, SLOWER)]
BEGIN, END = "<!-- forecast: begin -->", "<!-- forecast: end -->"
DOCS = ROOT / "docs" / "benchmarks.md"


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """{"learnt": [run], "predicted": [run], "error", "inside"}."""
    from ansible_collections.lifeboat.recovery.tests.lab.forecast_site import Site
    from ansible_collections.lifeboat.recovery.tests.lab.postgres import Postgres
    from ansible_collections.lifeboat.recovery.tests.lab.seaweed import Seaweed
    from ansible_collections.lifeboat.recovery.tests.lab.slow_link import SlowLink

    rows: list[dict[str, Any]] = []
    server = Postgres().init().start()
    try:
        server.sql("create database ledger")
        server.sql("create table entries (id bigint primary key, note text)", "ledger")
        with Seaweed() as store, SlowLink(store.ports[3]) as link, Site(options.mib, server, store, link, options.few) as site:
            site.succeed("bootstrap")
            points = {}
            for times in (1, 2):
                site.grow(times)
                directory = site.succeed("backup").directory
                points[times] = directory.name if directory else ""
            for number, (times, rate) in enumerate([*LEARNT, *TEN]):
                load = os.getloadavg()[0]
                told = site.restore(points[times], rate)
                rows.append({"times": times, "rate": rate, "load": round(load, 1), **{key: told[key] for key in (
                    "seconds", "low", "high", "measured", "error", "inside", "elapsed", "links")}})
                print(f"{number + 1:3d}. data x{times}, {_rate(rate):>9}: {_told(rows[-1])}", flush=True)
    finally:
        server.destroy()
    predicted = rows[len(LEARNT):]
    return {
        "learnt": rows[:len(LEARNT)], "predicted": predicted, "error": round(statistics.median(abs(row["error"]) for row in predicted), 4),
        "inside": sum(bool(row["inside"]) for row in predicted), "mib": options.mib, "few": options.few, "cores": len(os.sched_getaffinity(0)),
    }


def _rate(rate: float) -> str:
    return f"{rate / MIB:.0f} MiB/s" if rate else "unlimited"


def _told(row: dict[str, Any]) -> str:
    if row["seconds"] is None:
        return f"no forecast, {row['measured']:.1f} s"
    return f"{row['seconds']:.1f} s ({row['low']:.1f} to {row['high']:.1f}), measured {row['measured']:.1f} s, {100 * row['error']:+.0f} %, load {row['load']}"


def page(found: dict[str, Any]) -> str:
    """The measured part of the documentation."""
    rows = found["predicted"]
    loads = [row["load"] for row in [*found["learnt"], *rows]]
    lines = [
        f"Measured {datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC on {found['cores']} cores, load average {min(loads)} to {max(loads)} before each restore; "
        f"{'three' if found['few'] else 'five'} services, {found['mib']:g} MiB in the largest. The three that were learnt from took "
        + ", ".join(f"{row['measured']:.1f} s" for row in found["learnt"]) + ".", "",
        "| data | link | forecast | 80 % interval | measured | error | inside |", "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [f"{row['times']}×", _rate(row["rate"]), f"{row['seconds']:.1f} s", f"{row['low']:.1f} to {row['high']:.1f} s", f"{row['measured']:.1f} s",
                 f"{100 * row['error']:+.0f} %", "yes" if row["inside"] else "no"]
        lines.append(f"| {' | '.join(cells)} |")
    inside = f"{found['inside']} of {len(rows)} inside (required: 7)"
    return "\n".join([*lines, "", f"Median absolute error {100 * found['error']:.0f} % (required: 20 %), {inside}."])


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=float, default=32, help="size of the largest service (default 32)")
    parser.add_argument("--few", action="store_true", help="three services instead of five")
    parser.add_argument("--docs", action="store_true", help="replace the measured part of docs/benchmarks.md")
    parser.add_argument("--json", type=Path, help="where the raw result goes")
    options = parser.parse_args(argv)
    begin = time.monotonic()
    found = measure(options)
    text = page(found)
    print(text + f"\n\n{time.monotonic() - begin:.0f} s in all")
    if options.json:
        options.json.write_text(json.dumps(found, indent=2), encoding="utf-8")
    if options.docs:
        before, _begin, rest = DOCS.read_text(encoding="utf-8").partition(BEGIN)
        DOCS.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.partition(END)[2]}", encoding="utf-8")
    return 0 if found["error"] <= 0.2 and found["inside"] >= 7 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
