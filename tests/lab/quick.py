# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What makes a playbook of the tests cost half: see fast/sitecustomize.py."""

from __future__ import annotations

from pathlib import Path

FAST = Path(__file__).with_name("fast")
KEPT = Path(__file__).resolve().parents[1] / "output" / "fast"


def variables(collections: Path) -> dict[str, str]:
    """Environment of a playbook with the collections in this folder."""
    return {"PYTHONPATH": str(FAST), "LIFEBOAT_TESTS_FAST": str(KEPT), "ANSIBLE_COLLECTIONS_PATH": str(collections)}
