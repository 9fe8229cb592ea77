# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Where a snapshot was taken, so that a restore knows whether it is the same place."""

from __future__ import annotations

from typing import Any

from .. import identity


def taken(catalog: dict[str, Any], live: str) -> dict[str, Any]:
    """{"host": {"name", "id"}, "ecosystem", "production", "live"}. catalog: of the Spec; live: the data in one word (Footprint.live)."""
    document, here = catalog.get("document") or {}, identity.host()
    return {
        "host": {"name": here["name"], "id": here["id"]}, "ecosystem": str(catalog.get("ecosystem") or document.get("ecosystem") or ""),
        "production": bool(catalog.get("production") or document.get("production")), "live": live,
    }
