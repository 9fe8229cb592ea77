# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test code: what a policy of Amazon S3 says to a request, for what the stores of the tests do not know.

Rules: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html (a denial wins, nothing said is a denial) and
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html (a key that the request lacks matches no operator
but Null). Operators and elements that are not here are refused loudly.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

_ELEMENTS = {"Sid", "Effect", "Principal", "Action", "Resource", "Condition"}


def allowed(statements: Sequence[Mapping[str, Any]], principal: str, action: str, resource: str, **context: str) -> bool:
    """Whether a request is answered. context: condition keys as they are, without ``s3:`` and with _ for -."""
    keys = {"s3:" + name.replace("_", "-"): value for name, value in context.items()}
    said = {statement["Effect"] for statement in statements if _applies(statement, principal, action, resource, keys)}
    return said == {"Allow"}


def _applies(statement: Mapping[str, Any], principal: str, action: str, resource: str, keys: Mapping[str, str]) -> bool:
    unknown = set(statement) - _ELEMENTS
    assert not unknown, f"not understood: {unknown}"
    whom = statement["Principal"]
    if whom != "*" and principal not in _list(whom["AWS"]):
        return False
    return (
        any(_like(pattern, action) for pattern in _list(statement["Action"])) and any(_like(pattern, resource) for pattern in _list(statement["Resource"]))
        and all(_holds(operator, key, _list(values), keys) for operator, tests in statement.get("Condition", {}).items() for key, values in tests.items())
    )


def _holds(operator: str, key: str, values: list[str], keys: Mapping[str, str]) -> bool:
    if operator == "Null":
        return (key not in keys) == (values == ["true"])
    held = keys.get(key)
    if operator == "StringLike":
        return held is not None and any(_like(pattern, held) for pattern in values)
    if operator == "Bool":
        return held is not None and held in values
    if operator == "NumericGreaterThan":
        return held is not None and any(float(held) > float(value) for value in values)
    raise AssertionError(f"not understood: {operator}")


def _like(pattern: str, text: str) -> bool:
    return re.fullmatch("".join({"*": ".*", "?": "."}.get(each, re.escape(each)) for each in pattern), text, re.DOTALL) is not None


def _list(value: Any) -> list[str]:
    return list(value) if isinstance(value, (list, tuple)) else [value]
