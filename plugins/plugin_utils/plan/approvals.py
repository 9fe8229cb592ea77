# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""May this plan be carried out: the catalog's ``approvals`` against what was given as ``lifeboat_approval``."""

from __future__ import annotations

import json
import os
from typing import Any, Mapping, Sequence

from ansible_collections.lifeboat.recovery.plugins.module_utils.audit import approval
from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import ConfigError

_LIMIT = 1 << 20


def read(given: Any) -> list[tuple[str, str]]:
    """(where, text) of each approval: a file, several with commas or as a list, or the text itself, as a survey of AWX gives it. ConfigError."""
    if isinstance(given, Mapping):  # the text itself, which somebody on the way read as JSON
        return [("lifeboat_approval", json.dumps({str(key): value for key, value in given.items()}))]
    if isinstance(given, str) and given.lstrip().startswith("{"):
        return [("lifeboat_approval", given)]
    names = [str(name).strip() for name in (given if isinstance(given, list) else str(given or "").split(","))]
    found = []
    for name in names:
        if not name:
            continue
        try:
            with open(os.path.expanduser(name), encoding="utf-8") as handle:
                found.append((name, handle.read(_LIMIT)))
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read an approval ({getattr(error, 'strerror', '') or 'not text'})", name,
                              "lifeboat_approval names a file on the controller") from error
    return found


def standing(rules: Mapping[str, Any] | None, plan: Mapping[str, Any], given: Any, operator: Sequence[str]) -> dict[str, Any]:
    """What plan.json keeps of it: {"required", "persons", "approvers", "digest", "given": as approval.check(), "missing": why it may not begin, or ""}."""
    required = bool(rules) and plan["verb"] in (rules or {}).get("required", ())
    told: dict[str, Any] = {
        "required": required, "persons": int((rules or {}).get("persons") or 1) if required else 0, "approvers": sorted((rules or {}).get("keys") or {}),
        "digest": approval.digest(plan), "given": [], "missing": None,
    }
    try:
        texts = read(given)
        if texts and not rules:
            raise ConfigError("an approval was given, and the catalog lists nobody who may approve", "lifeboat_approval",
                              "add approvals: to the catalog, or leave it out")
        if required or texts:
            told["given"] = approval.check(texts, rules or {}, plan, operator)
    except ConfigError as error:
        told["missing"] = error.as_dict()
    return told
