# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Which host this is. The id is made of the machine id as its manual asks for: hashed with a word of our own, since it may be told to others."""

from __future__ import annotations

import hashlib
import hmac
import platform
from typing import Any

from .lease import boot_id

_PLACES = ("/etc/machine-id", "/var/lib/dbus/machine-id")


def host_id(places: tuple[str, ...] = _PLACES) -> str:
    """32 hex digits that stay with an installation; "" where the host does not say which it is."""
    for place in places:
        try:
            with open(place, encoding="ascii", errors="replace") as handle:
                found = handle.read(64).strip()
        except OSError:
            continue
        if hashed(found):
            return hashed(found)
    return ""


def hashed(machine: str) -> str:
    """The id of a machine id as it stands in /etc/machine-id; "" for what is none."""
    if len(machine) != 32 or machine.strip("0123456789abcdef"):
        return ""
    return hmac.new(bytes.fromhex(machine), b"lifeboat/host/1", hashlib.sha256).hexdigest()[:32]


def host() -> dict[str, Any]:
    """{"name", "id", "boot"} of this host: its name, host_id(), and which boot of which kernel."""
    return {"name": platform.node(), "id": host_id(), "boot": boot_id()}
