# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""The style sheet of report.html: light, dark and print."""

from __future__ import annotations

#: Phase -> (light, dark) colour. Neighbouring phases differ in hue and in lightness, so they differ in grey print too.
COLOURS = {
    "plan": ("#9aa3ad", "#7d8894"), "preflight": ("#b7a4dd", "#a88fdc"), "stage": ("#4c8fd6", "#5b9fe6"), "stop": ("#8a5a44", "#b57b60"),
    "cutover": ("#d1495b", "#ee6a7b"), "migrate": ("#a8556f", "#c98aa0"), "start": ("#edae49", "#f0b95c"),
    "health": ("#5aa469", "#6fbf7f"), "invariants": ("#1f7a8c", "#39a0b4"),
    "protect": ("#6d5dd3", "#8d80ec"), "verdict": ("#55606b", "#a3adb8"), "capture": ("#4c8fd6", "#5b9fe6"), "verify": ("#1f7a8c", "#39a0b4"),
    "commit": ("#7a5195", "#b084cc"), "rollback": ("#d1495b", "#ee6a7b"),
}
GOOD = ("verified", "restored", "captured", "committed", "rolled_back")
BAD = ("failed",)
MIDDLE = ("degraded", "blocked", "interrupted", "skipped", "unfinished")

_BASE = """
:root{--bg:#fff;--ink:#1b2430;--dim:#5f6b78;--line:#dfe4ea;--soft:#f4f6f9;--good:#1d7a46;--bad:#b3261e;--mid:#8a5a00;
--good-bg:#e3f4ea;--bad-bg:#fbe4e2;--mid-bg:#fdf1d8;--wait:#eceff3;--wait-line:#aab4bf}
*{box-sizing:border-box}
body{margin:0 auto;padding:0 28px 40px;max-width:1280px;background:var(--bg);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","DejaVu Sans",sans-serif}
header{padding:26px 0 4px 18px;margin:24px 0 8px;border-left:6px solid var(--dim)}
header.o-success{border-color:var(--good)}header.o-failed{border-color:var(--bad)}
header.o-degraded,header.o-interrupted,header.o-unfinished{border-color:var(--mid)}
.kicker{margin:-16px 0 0;color:var(--dim);text-transform:uppercase;letter-spacing:.06em;font-size:12px}
h1{margin:2px 0 4px;font-size:26px;line-height:1.25}
h2{margin:34px 0 8px;font-size:19px;border-bottom:1px solid var(--line);padding-bottom:5px}
h3{margin:22px 0 6px;font-size:16px}h3 .dim{font-weight:400;font-size:13px}
.lead{margin:0 0 12px}.dim{color:var(--dim)}p.dim{margin:4px 0 10px}
.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(230px,1fr));gap:8px 22px;margin:12px 0 0}
.facts div{min-width:0}.facts dt{color:var(--dim);font-size:12px}.facts dd{margin:0;overflow-wrap:anywhere}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:14px;font-variant-numeric:tabular-nums}
th{text-align:left;font-weight:600;color:var(--dim);font-size:12px;padding:6px 12px 6px 0;border-bottom:1px solid var(--line);white-space:nowrap}
td{padding:7px 12px 7px 0;border-bottom:1px solid var(--line);vertical-align:top;overflow-wrap:anywhere}
.verdicts td:nth-child(1){min-width:110px}.verdicts td:nth-child(3),.verdicts td:nth-child(4),.verdicts td:nth-child(5){white-space:nowrap}
.verdicts td:last-child{min-width:260px}.times td{white-space:nowrap}.times td:last-child{white-space:normal}
code{font:13px/1.4 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
.pill{display:inline-block;padding:0 9px;border-radius:10px;font-size:12.5px;font-weight:600;line-height:20px;white-space:nowrap}
.yes{color:var(--good);font-weight:600}.no{color:var(--bad);font-weight:600}
.remedy{color:var(--ink);border-left:3px solid var(--line);padding-left:8px;margin-top:3px;font-size:13px}
.proof{table-layout:fixed;min-width:900px}.proof th:nth-child(1){width:10%}.proof th:nth-child(2){width:15%}.proof th:nth-child(3){width:25%}
.proof th:nth-child(n+4){width:12.5%}.proof th:nth-child(n+6){width:8.3%}
.controls td{font-size:13px}.controls td:nth-child(n+2){min-width:110px}
.causes{margin:8px 0 14px;padding-left:20px}.causes li{margin:4px 0}
.next{display:grid;grid-template-columns:max-content 1fr;gap:5px 14px;margin:0}.next dt{color:var(--dim)}.next dd{margin:0;overflow-wrap:anywhere}
.checks{margin:8px 0;padding:0;list-style:none;columns:2 420px;font-size:14px}.checks li{break-inside:avoid;padding:1px 0}
.checks em{color:var(--dim);font-style:normal}
.warning{color:var(--mid)}
.timeline{width:100%;min-width:760px;height:auto;display:block}
.timeline .grid{stroke:var(--line);stroke-width:1}.timeline .lane{fill:var(--soft);opacity:.7}
.timeline text{font-size:12.5px;fill:var(--ink)}.timeline .tick{fill:var(--dim);font-size:11px}.timeline .whom{fill:var(--dim);font-size:10px}
.timeline .v{font-weight:600;font-size:12px}
.wait-ground{fill:var(--wait)}.wait-line{fill:var(--wait-line)}
.timeline .p-island,.timeline .p-gate{fill:url(#waits)}
.timeline .bad{stroke:var(--bad);stroke-width:1.6}.timeline .p-gate.bad,.timeline .p-island.bad{stroke-width:.8}
.recoveries td{white-space:nowrap}.recoveries td:first-child{white-space:normal;min-width:110px}
.bars{display:block}.bars .met{fill:var(--good)}.bars .missed{fill:var(--bad)}.bars line{stroke:var(--mid);stroke-width:1;stroke-dasharray:3 2}
.legend{display:flex;flex-wrap:wrap;gap:4px 18px;list-style:none;margin:6px 0 0;padding:0;font-size:13px;color:var(--dim)}
.swatch{display:inline-block;width:12px;height:12px;border-radius:2px;margin-right:6px;vertical-align:-1px}
.s-wait{background:repeating-linear-gradient(45deg,var(--wait) 0 3px,var(--wait-line) 3px 4.5px)}
footer{margin-top:36px;color:var(--dim);font-size:13px;border-top:1px solid var(--line);padding-top:8px}
"""
_DARK = """--bg:#12171e;--ink:#e4e9ef;--dim:#9aa6b3;--line:#2b343f;--soft:#1a212a;--good:#6fcf97;--bad:#ff8a80;--mid:#f2c166;
--good-bg:#173726;--bad-bg:#45201d;--mid-bg:#40310f;--wait:#232c36;--wait-line:#52606e"""
_PRINT = """@page{margin:14mm}
@media print{body{max-width:none;padding:0;font-size:11px}table{font-size:10.5px}h2{break-after:avoid}.service,tr,svg{break-inside:avoid}
.scroll{overflow:visible}.timeline,.proof{min-width:0}*{-webkit-print-color-adjust:exact;print-color-adjust:exact}}
"""


def _phases(index: int) -> str:
    return "".join(
        f".timeline .p-{phase}{{fill:{colours[index]}}}.s-{phase}{{background:{colours[index]}}}" for phase, colours in COLOURS.items()
    )


def _verdicts() -> str:
    parts = []
    for verdicts, name in ((GOOD, "good"), (BAD, "bad"), (MIDDLE, "mid")):
        for verdict in verdicts:
            parts.append(f".pill.v-{verdict}{{background:var(--{name}-bg);color:var(--{name})}}.timeline .v-{verdict}{{fill:var(--{name})}}")
    return "".join(parts)


def sheet() -> str:
    """The whole sheet; dark where the reader's system asks for it, light when printed."""
    return (
        _BASE + _phases(0) + _verdicts() + f"\n@media screen and (prefers-color-scheme:dark){{:root{{{_DARK}}}{_phases(1)}}}\n" + _PRINT
    )
