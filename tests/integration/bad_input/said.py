# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a refused command must have said: one line with what, where and what to do, on the first screen, and no traceback."""

from __future__ import annotations

import re

from ansible_collections.lifeboat.recovery.tests.lab.harbour import SCREEN, Outcome

#: Lines that a terminal of this width shows a message in.
_WIDTH = 100


def refused(outcome: Outcome, what: str, where: str, remedy: str) -> str:
    """Assert that the command failed and said so; the three parts are regular expressions. Returns the line."""
    assert outcome.code != 0, outcome.text
    for word in ("Traceback", "An unhandled exception", "object has no attribute", "is undefined"):
        assert word not in outcome.text, outcome.text
    wanted = re.compile(f"{what}.*: .*{where}.*; .*{remedy}")
    shown = 0
    for line in outcome.lines():
        if wanted.search(line):
            return line
        shown += 1 + len(line) // _WIDTH
        if shown > SCREEN:
            break
    raise AssertionError(f"no line like {wanted.pattern!r} on the first screen:\n{outcome.text}")
