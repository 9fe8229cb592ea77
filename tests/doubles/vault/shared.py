# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test code: what the parts of the double have in common: refusals, loudness, durations, the shape of an answer."""

from __future__ import annotations

import re
import uuid
from typing import Any

MAX_TTL = 32 * 24 * 3600


class Refused(Exception):
    """An error answer: status, texts, and data where the real engine sends a whole answer with an error status."""

    def __init__(self, status: int, *errors: str, data: dict[str, Any] | None = None) -> None:
        super().__init__(*errors)
        self.status = status
        self.errors = list(errors)
        self.data = data


class Unsupported(Exception):
    """The real server knows this, the double does not: a test must not pass by it."""


def only(body: dict[str, Any], *known: str) -> None:
    """Unsupported for a parameter that the double would ignore."""
    unknown = sorted(set(body) - set(known))
    if unknown:
        raise Unsupported(f"parameter {unknown[0]!r}")


def seconds(value: Any) -> int:
    """A duration as Vault takes it: seconds, or a number with s, m, h."""
    if value in (None, ""):
        return 0
    match = re.fullmatch(r"([0-9]+)([smh]?)", str(value))
    if match is None:
        raise Refused(400, f"error parsing duration {value!r}")
    return int(match.group(1)) * {"": 1, "s": 1, "m": 60, "h": 3600}[match.group(2)]


def listed(value: Any) -> list[str]:
    """A list, or a text with commas: both are taken where Vault's documentation says ``array``."""
    return [each for each in str(value).split(",") if each] if isinstance(value, str) else [str(each) for each in value or ()]


def answer(data: Any = None, auth: Any = None, mount_type: str = "", warnings: list[str] | None = None) -> dict[str, Any]:
    """A whole answer (https://developer.hashicorp.com/vault/api-docs#the-x-vault-request-header and the samples of every page)."""
    return {
        "request_id": str(uuid.uuid4()), "lease_id": "", "renewable": False, "lease_duration": 0, "data": data, "wrap_info": None, "warnings": warnings,
        "auth": auth, "mount_type": mount_type,
    }
