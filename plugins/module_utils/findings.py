# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Findings of a preflight: how grave, of which kind, and what they are the fault of. docs/preflight.md has the table for people."""

from __future__ import annotations

from typing import Any

from .errors import LifeboatError

#: error: the restore would not work, or work on the wrong thing. warning: it works, but an operator should know. note: for the record.
LEVELS = ("error", "warning", "note")

#: Kind -> what it is about. A closed list: whatever finds something says which of these it is.
KINDS = {
    "snapshot": "a stored object is missing, altered, or does not decode",
    "target": "the point that was asked for does not exist, does not fit the catalog, or cannot be reached",
    "key": "a key is missing, is the wrong one, or its provider does not answer",
    "repository": "the repository cannot be reached or read from this host",
    "store": "the data store is not as the restore needs it, or does not let it in",
    "space": "not enough bytes, inodes or memory, added up over everything that is staged at once",
    "version": "a server, a program, a library or Ansible is missing or of a version that does not do",
    "port": "another process listens where the service or its server will",
    "permission": "the user who runs the restore may not read, write, rename or change owners there",
    "place": "what stands where the data belongs cannot be displaced or is somebody else's",
    "command": "a command of the catalog is missing or is not there to be run",
    "catalog": "the catalog contradicts itself or what is there",
    "clock": "two clocks are further apart than the restore can bear",
    "identity": "this may not be the host, the data or the service that is meant",
    "lease": "somebody else works on the service",
    "record": "the records of the service on its host are damaged or cannot be written",
    "host": "the host does not answer, or its answer is no answer",
}


def finding(level: str, error: LifeboatError, kind: str = "", source: str | None = None, cause: str = "") -> dict[str, Any]:
    """{"level", "kind", "source", "cause", code, what, where, remedy}. cause: the one thing that several services may suffer from, as
    a repository; findings of one kind, cause and wording are told once. "": ``where`` itself.
    """
    word = kind or error.kind
    if word not in KINDS or level not in LEVELS:
        raise AssertionError(f"no such finding: {level} of kind {word}")
    return {"level": level, "kind": word, "source": source, "cause": cause, **error.as_dict()}
