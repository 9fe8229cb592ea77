# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""The part of report.html about what was measured on hosts: steps of the stage, bytes, what processes used, what clients of others saw."""

from __future__ import annotations

from typing import Any

from ansible_collections.lifeboat.recovery.plugins.module_utils import meter
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run import html, words
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run.drawing import text

_NONE = '<span class="dim">-</span>'


def _step(told: dict[str, Any] | None) -> str:
    if not told:
        return _NONE
    beside = f' <span class="dim">({told["busy"]:.2f})</span>' if told["busy"] > told["seconds"] + 0.005 else ""
    return f"{told['seconds']:.2f}{beside}"


def _services(services: dict[str, dict[str, Any]]) -> str:
    rows = []
    for name, item in services.items():
        told = item["measured"]
        if not told["calls"]:
            continue
        used, moved = told["usage"], told["bytes"]
        rows.append(html.row([
            text(name, 60), *(_step(told["steps"].get(step)) for step in meter.STEPS), *(text(words.size(moved[key])) for key in meter.BYTES),
            f"{used['cpu_seconds']:.2f}", text(words.size(used["peak_memory_bytes"])), text(words.size(used["read_bytes"])),
            text(words.size(used["written_bytes"])), f"{told['queue_seconds']:.2f}",
        ]))
    if not rows:
        return '<p class="dim">Nothing was measured on a host.</p>'
    head = ["Service", *meter.STEPS, *meter.BYTES, "CPU s", "memory", "disk read", "disk written", "queued"]
    return html.table(head, rows, "times")


def _clients(clients: dict[str, Any] | None) -> str:
    if not clients:
        return ""
    rows = []
    for name, told in sorted(clients.items()):
        errors = f'<span class="no">{told["errors"]}</span>' if told["errors"] else "0"
        rows.append(html.row([
            text(name, 60), str(told["probes"]), errors,
            *(f"{told[key] * 1000:.0f} ms" if isinstance(told[key], (int, float)) else _NONE for key in ("p50", "p95", "max")),
            text(words.duration(told["seconds"])),
        ]))
    return (
        '<h3>What clients of the other services saw</h3><p class="dim">Their own health probes, asked at a low rate from their hosts while this run '
        f"worked.</p>{html.table(['Service', 'Probes', 'Errors', 'p50', 'p95', 'Slowest', 'Watched for'], rows, 'times')}"
    )


def render(document: dict[str, Any]) -> str:
    """The section; "" for a verb of which nothing is measured."""
    return (
        '<section><h2>Measured on the hosts</h2><p class="dim">Seconds of a step: at least one thread was in it; steps run side by side, so they do not add '
        "up. In brackets: summed over threads, where more than one was at it. CPU, memory and disk are those of the engine's processes and their children, "
        "not of a database server that was there before. Queued: seconds in no phase.</p>"
        f"{_services(document['services'])}{_clients(document.get('clients'))}</section>"
    )
