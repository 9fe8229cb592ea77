# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Whether the live view runs in this ansible-playbook: set by the callback before workers are forked, read by actions in them."""

from __future__ import annotations

_watched = False


def watch() -> None:
    """The live view runs: actions leave the display to it."""
    global _watched
    _watched = True


def watched() -> bool:
    """Whether the live view runs."""
    return _watched
