# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""The frame of a page and its tables: self-contained, no script, no request to anywhere. What goes in must be escaped already."""

from __future__ import annotations

from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run import style
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run.drawing import text


def row(cells: list[str], tag: str = "td") -> str:
    """One row of a table."""
    return "<tr>" + "".join(f"<{tag}>{cell}</{tag}>" for cell in cells) + "</tr>"


def table(head: list[str], rows: list[str], kind: str = "") -> str:
    """A table that scrolls by itself where the page is narrow; ``head`` is plain text."""
    return f'<div class="scroll"><table class="{kind}"><thead>{row([text(cell) for cell in head], "th")}</thead><tbody>{"".join(rows)}</tbody></table></div>'


def page(title: str, outcome: str, header: str, main: str, footer: str) -> str:
    """The whole page; ``title`` and ``outcome`` are plain text."""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="color-scheme" content="light dark">
<title>{text(title)}</title>
<style>{style.sheet()}</style>
</head>
<body>
<header class="o-{text(outcome, 20)}">
{header}
</header>
<main>
{main}
</main>
<footer><p>{footer}</p></footer>
</body>
</html>
"""
