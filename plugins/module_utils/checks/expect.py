# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""What a check's value must be, and how values are shown."""

from __future__ import annotations

import decimal
import re
from typing import Any

from ..errors import CheckError, ConfigError

_USERINFO = re.compile(r"([a-z][a-z0-9+.-]*://)[^/@\s]+@", re.IGNORECASE)
_SHOWN = 200


def without_secrets(text: str) -> str:
    """A URL's user and password never reach a message."""
    return _USERINFO.sub(r"\1***@", text)


def seconds(value: Any) -> float:
    """Seconds of a number or of 500ms, 90s, 15m, 2h; 0 for nothing. Raises ConfigError."""
    if value in (None, ""):
        return 0.0
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h)?", str(value).strip())
    if not match:
        raise ConfigError("not a duration", repr(value), "write it like 5, 90s or 2m")
    return float(match.group(1)) * {"ms": 0.001, "m": 60.0, "h": 3600.0}.get(match.group(2) or "s", 1.0)


def shown(value: Any) -> str:
    """A value as it appears in a message: one line, bounded."""
    text = without_secrets(repr(value) if isinstance(value, str) else str(value))
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def equal(value: Any, wanted: Any) -> bool:
    """Equality across what stores and YAML call the same: 0, Decimal(0), b"0" and "0"; True and "true"."""
    value, wanted = _plain(value), _plain(wanted)
    if isinstance(value, bool) or isinstance(wanted, bool):
        return str(value).lower() == str(wanted).lower()
    left, right = _number(value), _number(wanted)
    if left is not None and right is not None:
        return left == right
    return bool(value == wanted) or (type(value) is not type(wanted) and str(value) == str(wanted))


def judge(value: Any, probe: dict[str, Any]) -> str:
    """Hold a value against ``equals``, ``at_least`` and ``at_most``; the detail to show. Raises CheckError."""
    if "equals" in probe and not equal(value, probe["equals"]):
        raise CheckError(f"is {shown(_plain(value))}, expected {shown(probe['equals'])}")
    for word in ("at_least", "at_most"):
        if word not in probe:
            continue
        have, limit = _number(_plain(value)), _number(_plain(probe[word]))
        if limit is None:
            raise ConfigError(f"{word!r} needs a number, not {shown(probe[word])}", str(probe.get("name", "")), "")
        if have is None or (have < limit if word == "at_least" else have > limit):
            raise CheckError(f"is {shown(_plain(value))}, expected {word.replace('_', ' ')} {limit}")
    return "" if value is None else shown(_plain(value))


def _plain(value: Any) -> Any:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).decode("utf-8", "backslashreplace")
    return value


def _number(value: Any) -> decimal.Decimal | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float, decimal.Decimal)):
        return decimal.Decimal(str(value))
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?", value.strip()):
        return decimal.Decimal(value.strip())
    return None
