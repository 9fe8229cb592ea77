# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""The page of the verb report, from a document of recoveries.report(): self-contained, everything in it escaped."""

from __future__ import annotations

from typing import Any, Mapping

from ansible_collections.lifeboat.recovery.plugins.module_utils import failures
from ansible_collections.lifeboat.recovery.plugins.module_utils.cli.report import trend
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run import html, words
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run.drawing import text

_HEAD = ["Count", "Mean", "Median", "90 %", "Last", "Trend", "Success", "RTO met", "People", "Failures"]
_NONE = '<span class="dim">-</span>'
#: Recoveries drawn per service, and the size of the drawing.
_DRAWN = 30
_WIDTH, _HEIGHT, _STEP = 180, 26, 6


def _time(seconds: Any) -> str:
    return text(words.duration(seconds)) if isinstance(seconds, (int, float)) else _NONE


def _share(good: int, of: int) -> str:
    if not of:
        return _NONE
    kind = "yes" if good == of else "warning" if good else "no"
    return f'<span class="{kind}">{good} of {of}</span>'


def _trend(moved: Mapping[str, float] | None) -> str:
    """Seconds per recovery, in words in the title, and what the last but one took."""
    if moved is None:
        return _NONE
    slope = moved["slope"]
    kind = "no" if slope > 0.005 else "yes" if slope < -0.005 else "dim"
    sign = "+" if slope > 0.005 else "−" if slope < -0.005 else ""
    return f'<span class="{kind}" title="{text(trend(moved))}; the one before the last took {text(words.duration(moved["previous"]))}">' \
        f"{sign}{text(words.duration(abs(slope)))}</span>"


def _cells(one: Mapping[str, Any]) -> list[str]:
    mttr, moved, met = one["mttr"] or {}, one["trend"], one["rto"]
    wrong = "<br>".join(f"{text(kind)} {count}" for kind, count in one["failures"].items())
    return [
        str(mttr.get("count", 0)), *(_time(mttr.get(key)) for key in ("mean", "median", "p90")), _time(one["last"]["raw"] if one["last"] else None),
        _trend(moved), _share(one["succeeded"], one["runs"]), _share(met["met"], met["met"] + met["missed"]),
        _time(one["human_seconds"] or None), wrong or _NONE,
    ]


def _bars(one: Mapping[str, Any]) -> str:
    """The newest recoveries of a service as bars: height is time; missed objectives stand out, a line is the objective."""
    listed = one["recoveries"][-_DRAWN:]
    if not listed:
        return _NONE
    limit = one.get("limit")
    top = max([float(item["raw"]) for item in listed] + ([float(limit)] if isinstance(limit, (int, float)) else []) + [1e-3])
    parts = []
    for position, item in enumerate(listed):
        height = max(1.0, float(item["raw"]) / top * (_HEIGHT - 2))
        kind = "missed" if item["met"] is False else "met"
        parts.append(
            f'<rect class="{kind}" x="{position * _STEP}" y="{_HEIGHT - height:.1f}" width="{_STEP - 2}" height="{height:.1f}">'
            f"<title>{text(item['run'])}: {text(words.duration(item['raw']))}, net {text(words.duration(item['net']))}</title></rect>"
        )
    if isinstance(limit, (int, float)):
        y = _HEIGHT - float(limit) / top * (_HEIGHT - 2)
        parts.append(f'<line x1="0" x2="{_WIDTH}" y1="{y:.1f}" y2="{y:.1f}"><title>objective {text(words.duration(limit))}</title></line>')
    return f'<svg class="bars" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" role="img">{"".join(parts)}</svg>'


def _groups(document: Mapping[str, Any], kind: str, head: str) -> str:
    rows = [
        html.row([f"<strong>{text(name, 60)}</strong>", text(str(len(one["services"]))), *_cells(one)]) for name, one in document[kind].items()
    ]
    if not rows:
        return ""
    return f"<section><h2>{head}s</h2>{html.table([head, 'Services', *_HEAD], rows, 'recoveries')}</section>"


def _phases(services: Mapping[str, Mapping[str, Any]]) -> str:
    columns = [phase for phase in words.PHASES if any(phase in one["phases"] for one in services.values())]
    if not columns:
        return ""
    rows = [
        html.row([text(name, 60), *(f"{one['phases'][phase]:.2f}" if phase in one["phases"] else _NONE for phase in columns),
                  f"{one['forecast']['median_error']:.0%}" if one["forecast"] else _NONE])
        for name, one in services.items() if one["phases"]
    ]
    return (
        '<section><h2>Median seconds per phase</h2><p class="dim">Of all recoveries. Forecasts off: the median difference between what the plan said '
        f"and the work that was measured, without waiting for others.</p>{html.table(['Service', *columns, 'forecasts off'], rows, 'times')}</section>"
    )


def _failures(whole: Mapping[str, Any]) -> str:
    if not whole["failures"]:
        return '<section><h2>Failures</h2><p class="dim">None on record.</p></section>'
    rows = [
        html.row([f"<strong>{text(kind)}</strong>", str(count), text(failures.TYPES.get(kind, ""))]) for kind, count in whole["failures"].items()
    ]
    return f"<section><h2>Failures by type</h2>{html.table(['Type', 'Services', 'What it means'], rows)}</section>"


def render(document: Mapping[str, Any]) -> str:
    """The page."""
    services, whole = document["services"], document["all"]
    mttr = whole["mttr"]
    said = f"{mttr['count']} recoveries, {words.duration(mttr['mean'])} on average, {words.duration(mttr['p90'])} for nine out of ten" if mttr \
        else "No recovery is on record yet"
    header = f"""<p class="kicker">{text(document['ecosystem'] or 'ecosystem')} · report</p>
<h1>Time to recover</h1>
<p class="lead">{text(said)}; {whole['succeeded']} of {whole['runs']} attempts of services succeeded. Made {text(document['made'])}.</p>"""
    rows = [
        html.row([
            f"<strong>{text(name, 60)}</strong><div class=\"dim\">{text(' · '.join(str(one[key]) for key in ('domain', 'tier') if one[key]) or '-', 80)}</div>",
            _time(one["limit"]), _bars(one), *_cells(one),
        ])
        for name, one in services.items()
    ]
    main = (
        _groups(document, "tiers", "Tier") + _groups(document, "domains", "Domain")
        + "<section><h2>Services</h2><p class=\"dim\">From the incident to the verdict, with the waiting for people. Bars: the newest recoveries, a line is "
        "the objective. Trend: how much longer or shorter each recovery is than the one before, over the newest ones. People: waited for them.</p>"
        + html.table(["Service", "RTO", "", *_HEAD], rows, "recoveries") + "</section>"
        + _phases(services) + _failures(whole)
    )
    if document["silent"]:
        main += "<section><h2>Without a history</h2><ul>" + "".join(
            f'<li class="warning">{text(name, 60)}: {text(why)}</li>' for name, why in document["silent"].items()
        ) + "</ul></section>"
    footer = "Made of the ledgers of the services, from their hosts and repositories. A domain or tier is back when the last of its services is, in a run in " \
        "which none of them failed. report.json beside this page holds the same facts."
    return html.page(f"time to recover: {document['ecosystem']}", "", header, main, footer)
