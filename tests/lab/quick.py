# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the playbooks of the tests share, so that each costs half: the code of modules that controller and host keep (docs/runs.md)."""

from __future__ import annotations

from pathlib import Path

KEPT = Path(__file__).resolve().parents[1] / "output" / "cache"


def variables(collections: Path) -> dict[str, str]:
    """Environment of a playbook with the collections in this folder."""
    return {"XDG_CACHE_HOME": str(KEPT), "ANSIBLE_COLLECTIONS_PATH": str(collections)}
