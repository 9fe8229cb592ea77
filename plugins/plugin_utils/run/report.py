# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""report.html: one self-contained page about a run. No script, no request to anywhere; every name in it is escaped."""

from __future__ import annotations

from typing import Any

from ansible_collections.lifeboat.recovery.plugins.module_utils import failures
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run import causes, controls, drawing, forecasts, html, measured_section, who, words
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run.drawing import text

_TOUCHED = {
    "untouched": "not touched", "stopped": "stopped; data not touched", "switching": "switch begun, end not recorded", "switched": "live data switched",
    "back": "switched, and back in its former data",
    "restarted": "restarted; data not touched",
}
_HEADLINE = {
    "success": "Every picked service reached its goal", "degraded": "Done, but degraded", "failed": "Not every service reached its goal",
    "interrupted": "Interrupted", "": "Not finished",
}


def _pill(verdict: Any) -> str:
    word = verdict if verdict in words.VERDICTS else "unfinished"
    return f'<span class="pill v-{word}">{word.replace("_", " ")}</span>'


def _code(value: Any, keep: int = 16) -> str:
    """A digest or id, shortened for the eye and whole in the title."""
    whole = words.one_line(value, 200)
    short = whole if len(whole) <= keep else whole[:keep] + "…"
    return f'<code title="{text(whole)}">{text(short, keep + 2)}</code>'


def _digest(value: Any) -> str:
    """A digest for the eye: the beginning of its value; algorithm and value in the title."""
    whole = words.one_line(value or "-", 200)
    return f'<code title="{text(whole)}">{text(whole.rpartition(":")[2][:16])}</code>'


def _yes(value: Any) -> str:
    return {True: '<span class="yes">equal</span>', False: '<span class="no">different</span>'}.get(value, '<span class="dim">not compared</span>')


def _facts(document: dict[str, Any]) -> str:
    run, wall = document["run"], document["wall"]
    goal = document["target"]
    target = goal["asked"] or "-"
    if goal["points"]:
        target += f": {goal['point'] or str(len(set(goal['points'].values()))) + ' points'}, {goal['time'] or 'time unknown'}"
    by = who.text(run) if run["who"]["os_user"] else f"{run['user']} on {run['controller']}"
    facts = [
        ("Ecosystem", text(document["ecosystem"] or "-")), ("Verb", text(run["verb"])), ("Run", f"<code>{text(run['id'])}</code>"),
        ("Target", text(target)), ("By", text(by)), ("Started", text(run["started"])),
        ("Finished", text(run["finished"])), ("Wall clock", text(words.duration(wall["seconds"]))),
    ]
    told = forecasts.sentence(document.get("forecast"))
    if told:
        facts.append(("Forecast", text(told)))
    if document["human"]["seconds"]:
        waits = [f"{words.duration(one['seconds'])} after {one['after']}" for one in document["human"]["waits"]]
        total = f"{words.duration(document['human']['seconds'])}: " if len(waits) > 1 else ""
        facts.append(("Waited for people", text(total + "; ".join(waits))))
    if run["resumes"]:
        facts.append(("Resumes", ", ".join(f"<code>{text(item)}</code>" for item in run["resumes"])))
    if run["resumed_by"]:
        facts.append(("Resumed by", f"<code>{text(run['resumed_by'])}</code>"))
    return '<dl class="facts">' + "".join(f"<div><dt>{label}</dt><dd>{value}</dd></div>" for label, value in facts) + "</dl>"


def _next(document: dict[str, Any]) -> str:
    """Root causes and the commands that go on from here; nothing after a success."""
    if document["outcome"] == "success":
        return ""
    services: dict[str, dict[str, Any]] = document["services"]
    lines = []
    for group in causes.failures({name: item for name, item in services.items() if _at_fault(name, item)}):
        item = group["item"]
        blocks = [other for other, it in services.items() if other not in group["names"] and it["root"] and it["root"]["service"] in group["names"]]
        lines.append(
            f"<li><strong>{text(', '.join(group['names']), 400)}</strong> {_pill(item['verdict'])} in phase {text(item['phase'])}: "
            + text(item["message"] or "no message")
            + (f'<div class="remedy">{text(item["remedy"])}</div>' if item["remedy"] else "")
            + (f'<div class="dim">blocks {text(", ".join(blocks))}</div>' if blocks else "") + "</li>"
        )
    commands = [("Go on", "resume"), ("Look", "status")]
    if any(item["touched"] in ("switched", "switching") for item in services.values()) and document["run"]["verb"] in ("restore", "drill"):
        commands.insert(1, ("Undo", "rollback"))
    shown = "".join(f"<dt>{label}</dt><dd><code>{text(document['next'][key], 2000)}</code></dd>" for label, key in commands)
    listed = f'<ul class="causes">{"".join(lines)}</ul>' if lines else ""
    return f'<section><h2>Root cause and what to do</h2>{listed}<dl class="next">{shown}</dl></section>'


def _at_fault(name: str, item: dict[str, Any]) -> bool:
    root = item["root"]
    return item["verdict"] not in ("verified", "restored", "captured", "committed", "rolled_back") and not (root and root["service"] != name)


def _failed_as(item: dict[str, Any]) -> str:
    """The type of a failure under its verdict."""
    failure = item["failure"]
    if not failure or failure["type"] == item["verdict"]:
        return ""
    return f'<div class="dim" title="{text(failures.TYPES.get(failure["type"], ""))}">{text(failure["type"])}</div>'


def _verdicts(document: dict[str, Any]) -> str:
    rows = []
    for name, item in document["services"].items():
        why = text(item["message"])
        root = item["root"]
        if root and root["service"] != name:
            why = f"root cause <strong>{text(root['service'])}</strong>: {text(root['message'] or root['verdict'])}"
        if item["degraded_by"]:
            why += f' <span class="dim">degraded by {text(", ".join(item["degraded_by"]))}</span>'
        if item["remedy"]:
            why += f'<div class="remedy">{text(item["remedy"])}</div>'
        if item["noop"]:
            why += '<div class="dim">already as asked: nothing to change</div>'
        rto = item["rto"]
        clock = text(words.duration(item["seconds"]))
        if rto["limit"] is not None:
            mark = {True: '<span class="yes">met</span>', False: '<span class="no">missed</span>'}.get(rto["met"], '<span class="no">not recovered</span>')
            took = f'{text(words.duration(rto["raw"]))} of ' if rto["met"] is not None else ""
            clock += f'<div class="dim">RTO {took}{text(words.duration(rto["limit"]))} {mark}</div>'
        rows.append(html.row([
            f'<strong title="{text(name)}">{text(name, 60)}</strong>', _pill(item["verdict"]) + _failed_as(item), clock,
            text(words.duration(item["waited_seconds"])), text(words.size(item["bytes"]["source"])),
            text(_TOUCHED.get(item["touched"], item["touched"])), why or '<span class="dim">-</span>',
        ]))
    return html.table(["Service", "Verdict", "Time", "of it waiting", "Data", "Live data", "Why"], rows, "verdicts")


def _proof(document: dict[str, Any]) -> str:
    parts = []
    for name, item in document["services"].items():
        proof = item["proof"]
        checks, passed = proof["checks"], proof["checks_passed"]
        rows = []
        for source, facts in proof["sources"].items():
            digests = item["digests"].get(source, {})
            rows.append(html.row([
                text(source, 60), text(facts.get("type") or "-"), _code(item["snapshots"].get(source, "-"), 60), _digest(digests.get("captured")),
                _digest(digests.get("found")), _yes(facts.get("equal")), text(facts.get("proof") or "-"), text(words.size(facts.get("bytes"))),
            ]))
        body = html.table(["Source", "Type", "Snapshot", "Digest at capture", "Digest found", "Compared", "Proof", "Bytes"], rows, "proof") if rows \
            else '<p class="dim">No source of its own took part.</p>'
        for source, facts in proof["sources"].items():
            if facts.get("reached"):
                body += f"<p>{text(source, 60)}: {text(words.reached(facts['reached']))}</p>"
        if checks:
            lines = []
            for check in checks:
                mark = '<span class="yes">ok</span>' if check["ok"] else '<span class="no">failed</span>'
                detail = f' <span class="dim">{"= " if check["ok"] else ": "}{text(check["detail"])}</span>' if check["detail"] else ""
                seconds = f' <span class="dim">({text(words.duration(check["seconds"]))})</span>' if check["seconds"] is not None else ""
                lines.append(f"<li>{mark} <em>{text(check['kind'])}</em> {text(check['name'])}{detail}{seconds}</li>")
            body += f'<ul class="checks">{"".join(lines)}</ul>'
        ledger = item["ledger"]
        if ledger["entries"]:
            state = "chain intact" if ledger["whole"] else f'<span class="no">{text(ledger["problem"])}</span>'
            body += f'<p class="dim">Ledger of the host: {ledger["entries"]} entries, {state}, last {_code(ledger["head"])}</p>'
        summary = f'{len(item["snapshots"])} sources' if len(item["snapshots"]) != 1 else "1 source"
        parts.append(
            f'<section class="service"><h3>{text(name, 80)} {_pill(item["verdict"])}'
            f'<span class="dim"> proof {text(proof["kind"])}; {summary}; {passed} of {len(checks)} checks passed</span></h3>{body}</section>'
        )
    return "".join(parts)


def _control(one: dict[str, Any]) -> str:
    """One control of one service: yes, no, or a dash where nobody looked; and what it is known by."""
    if one["ok"] is None:
        return '<span class="dim">-</span>'
    details = [f"{_code(key['key'], 28)} v{text(key['version'])}" for key in one.get("keys") or []]
    details += [text(str(value)) for value in (one.get("how"), f"until {one['until']}" if one.get("until") else "", ", ".join(one.get("by") or [])) if value]
    mark = '<span class="yes">yes</span>' if one["ok"] else '<span class="warning">no</span>'
    return mark + (f'<div class="dim">{"<br>".join(details)}</div>' if details else "")


def _controls(document: dict[str, Any]) -> str:
    rows = [
        html.row([text(name, 60), *(_control(item["controls"][control]) for control in controls.NAMES)]) for name, item in document["services"].items()
    ]
    return html.table(["Service", *(name.capitalize() for name in controls.NAMES)], rows, "controls")


def _trail(document: dict[str, Any]) -> str:
    """What became of the journal."""
    trail = document["audit"]
    if not trail["sealed"]:
        return "not sealed"
    by = trail["signed_by"]
    said = f"sealed, {'signed by ' + _code(by['key'], 40) + ' v' + text(by['version']) if by else 'not signed'}"
    if trail["published"]:
        said += f", published as {_code(trail['published']['object'], 90)}"
    for copy in trail["copies"]:
        words_of = "copied to" if copy["ok"] else '<span class="no">not copied to</span>'
        said += f", {words_of} {text(copy['where'], 120)}"
    return said


def _times(document: dict[str, Any]) -> str:
    services: dict[str, dict[str, Any]] = document["services"]
    columns = [phase for phase in words.PHASES if any(p["name"] == phase for item in services.values() for p in item["phases"])]
    rows = []
    for name, item in services.items():
        sums: dict[str, float] = {}
        for phase in item["phases"]:
            sums[phase["name"]] = sums.get(phase["name"], 0.0) + phase["seconds"]
        waited: dict[str, dict[str, float]] = {}
        for phase in item["phases"]:
            for wait in phase["waited_for"]:
                of_phase = waited.setdefault(phase["name"], {})
                of_phase[wait["service"]] = max(of_phase.get(wait["service"], 0.0), wait["seconds"])
        whom = "; ".join(
            f"{where}: " + ", ".join(f"{one} {words.duration(seconds)}" for one, seconds in sorted(found.items(), key=lambda pair: -pair[1]))
            for where, found in waited.items()
        )
        rows.append(html.row([
            text(name, 60), *(f"{sums[phase]:.2f}" if phase in sums else '<span class="dim">-</span>' for phase in columns),
            text(words.duration(item["seconds"])), text(whom or "-"),
        ]))
    return html.table(["Service", *columns, "in all", "waited for"], rows, "times")


def _remarks(document: dict[str, Any]) -> str:
    """Findings by cause: what many services suffer from is one row."""
    rows = [
        html.row([
            text(group["level"]), text(group["kind"] or "-"), text(", ".join(group["places"]), 400), text(group["what"]), text(causes.where(group)),
            text(group["remedy"]),
        ])
        for group in causes.grouped(document["findings"])
    ]
    body = html.table(["Level", "Kind", "Services", "What", "Where", "What to do"], rows) if rows else '<p class="dim">No findings.</p>'
    if document["warnings"]:
        body += "<ul>" + "".join(f'<li class="warning">{text(item)}</li>' for item in document["warnings"]) + "</ul>"
    return body


def render(document: dict[str, Any]) -> str:
    """The page for a run.json document."""
    run, counts = document["run"], document["counts"]
    title = f"{run['verb']} {run['id']}"
    tally = ", ".join(f"{number} {verdict.replace('_', ' ')}" for verdict, number in sorted(counts["by"].items()))
    journal = document["journal"]
    state = "chain intact" if journal["whole"] else f'<span class="no">{text(journal["problem"])}</span>'
    islands = "; ".join(", ".join(island) for island in document["islands"])
    header = f"""<p class="kicker">{text(document['ecosystem'] or 'ecosystem')} · {text(run['verb'])}</p>
<h1>{text(_HEADLINE.get(document['outcome'], document['outcome']))}</h1>
<p class="lead">{counts['verdicts']} verdicts for {counts['picked']} picked services: {text(tally or 'none yet')}.
Exit code {document['exit']['code']}: {text(document['exit']['reason'])}.</p>
{_facts(document)}"""
    main = f"""{_next(document)}
<section><h2>Time-line</h2>
<p class="dim">Every time was measured; a hatched bar is waiting for others. Islands: {text(islands or '-', 300)}.</p>
<div class="scroll">{drawing.svg(document)}</div>
{drawing.legend(document)}</section>
<section><h2>Verdicts</h2>{_verdicts(document)}</section>
<section><h2>Proof</h2>{_proof(document)}</section>
<section><h2>Controls</h2>
<p class="dim">Only what was seen in this run counts: a dash is where nobody looked, or where it does not apply.</p>{_controls(document)}</section>
<section><h2>Seconds per phase</h2>{_times(document)}</section>
{measured_section.render(document)}
<section><h2>Findings and warnings</h2>{_remarks(document)}</section>"""
    footer = f"""Journal of the controller: {journal['entries']} entries, {state}, last {_code(journal['head'])}; {_trail(document)}.
Catalog {_code(document['catalog_digest'] or '-')}. Made from the files of the run directory; run.json beside this page holds the same facts."""
    return html.page(title, document["outcome"] or "unfinished", header, main, footer)
