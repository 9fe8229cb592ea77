# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The taxonomy of failures is closed: every error there is has a type, and no type comes from words."""

from __future__ import annotations

import errno
import importlib
import pkgutil

import pytest

from ansible_collections.lifeboat.recovery.plugins import module_utils
from ansible_collections.lifeboat.recovery.plugins.module_utils import failures
from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import CheckError, LifeboatError, SourceError, StorageError
from ansible_collections.lifeboat.recovery.plugins.plugin_utils.run import words


def every_error() -> set[type[LifeboatError]]:
    for module in pkgutil.walk_packages(module_utils.__path__, module_utils.__name__ + "."):
        importlib.import_module(module.name)
    found, left = {LifeboatError}, [LifeboatError]
    while left:
        for kind in left.pop().__subclasses__():
            if kind not in found:
                found.add(kind)
                left.append(kind)
    return found


def test_every_code_has_a_type_in_every_phase() -> None:
    kinds = every_error()
    assert len(kinds) > 9
    assert {kind.code for kind in kinds} == set(failures.CODES), "a new error class needs its code in failures.CODES"
    for code in failures.CODES:
        for phase in words.PHASES:
            for cause in ("", *failures.CAUSES):
                assert failures.classify(code, phase, cause) in failures.TYPES
    assert set(failures.CAUSES.values()) <= set(failures.TYPES)
    assert {failures.without_error(phase) for phase in words.PHASES} <= set(failures.TYPES)


@pytest.mark.parametrize(("code", "phase", "cause", "wanted"), [
    ("damage", "stage", "", "data_damaged"), ("key", "preflight", "", "key_unavailable"), ("storage", "stage", "no_space", "no_space"),
    ("storage", "stage", "unreachable", "repository_unreachable"), ("storage", "stage", "", "storage_failed"), ("source", "stage", "permission", "permission"),
    ("source", "start", "", "start_failed"), ("source", "stop", "", "stop_failed"), ("source", "cutover", "", "source_failed"),
    ("check", "health", "", "unhealthy"), ("check", "invariants", "", "invariant_broken"), ("check", "protect", "", "unprotected"),
    ("check", "stage", "", "data_damaged"), ("conflict", "stage", "", "conflict"), ("target", "preflight", "", "target_unavailable"),
    ("a code of the future", "stage", "", "internal"), ("source", "stage", "timeout", "timeout"),
])
def test_types(code: str, phase: str, cause: str, wanted: str) -> None:
    assert failures.classify(code, phase, cause) == wanted


def test_the_cause_is_the_number_behind_the_error_or_what_its_raiser_knows() -> None:
    def raised(number: int, kind: type[LifeboatError] = StorageError) -> LifeboatError:
        try:
            try:
                raise OSError(number, "whatever it says")
            except OSError as error:
                raise kind("cannot write", "/x", "free space") from error
        except LifeboatError as error:
            return error

    assert raised(errno.ENOSPC).as_dict()["reason"] == "no_space" and raised(errno.EACCES, SourceError).cause == "permission"
    assert raised(errno.EIO).cause == "" and "reason" not in raised(errno.EIO).as_dict()
    assert SourceError("the disk is full: no space, permission denied").cause == ""
    outer = SourceError("also")
    outer.__cause__ = raised(errno.EDQUOT)
    assert outer.cause == "no_space"
    assert StorageError("no answer", cause="unreachable").cause == "unreachable"


@pytest.mark.parametrize(("answer", "phase", "wanted"), [
    ({"unreachable": True, "msg": "disk full"}, "stage", "host_unreachable"), ({"failed": True, "timedout": {"period": 3}}, "start", "timeout"),
    ({"failed": True, "error": CheckError("x").as_dict()}, "health", "unhealthy"),
    ({"failed": True, "msg": "MODULE FAILURE", "exception": "…"}, "stage", "internal"),
    ({"failed": True, "rc": 1}, "start", "start_failed"),
])
def test_answers_of_modules(answer: dict[str, object], phase: str, wanted: str) -> None:
    assert failures.of_answer(answer, phase) == wanted
