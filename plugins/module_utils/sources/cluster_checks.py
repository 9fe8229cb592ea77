# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Is a staged cluster sound? Its files are held against what recovery left, then the server itself reads all of them."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ..libraries import need
from . import cluster_content
from .cluster_places import Owner, run_program
from .cluster_private import STALLED, PrivateCluster, clean, control_data, private_settings
from .contract import Comparison, Context

_BLOCK = 4 << 20
_NAMED = 20


def fingerprint(context: Context, directory: str, known: dict[str, list[Any]] | None = None) -> dict[str, list[Any]]:
    """path -> [size, mtime_ns, ctime_ns, keyed hash] of every file of a cluster that is not running.

    known: an earlier fingerprint; a file with the same size and times as there keeps its hash, because nobody but us wrote meanwhile.
    """
    blake3 = need("blake3").blake3

    def one(path: str) -> list[Any]:
        full = os.path.join(directory, path)
        status = os.stat(full)
        seen = [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
        if known is not None and known.get(path, [])[:3] == seen:
            return known[path]
        hasher = blake3(key=context.digest_key)
        with open(full, "rb", buffering=0) as handle:
            while True:
                data = handle.read(_BLOCK)
                if not data:
                    break
                hasher.update(data)
        context.progress.add(status.st_size)
        return [*seen, hasher.digest(16).hex()]

    names = []
    for folder, _names, files in os.walk(directory, followlinks=True):
        names += [os.path.relpath(os.path.join(folder, name), directory) for name in files]
    names.sort()
    with ThreadPoolExecutor(context.workers, thread_name_prefix="check") as threads:
        return dict(zip(names, threads.map(one, names)))


def differences(expected: dict[str, list[Any]], found: dict[str, list[Any]]) -> list[str]:
    """Files that are not what recovery left."""
    named = [f"{path!r} is {'new' if path not in expected else 'missing'}" for path in sorted(expected.keys() ^ found.keys())]
    named += [f"{path!r} differs from what was staged" for path in sorted(expected.keys() & found.keys()) if expected[path][3] != found[path][3]]
    return named[:_NAMED] + ([f"and {len(named) - _NAMED} more"] if len(named) > _NAMED else [])


def page_checksums(programs: str, directory: str, owner: Owner, control: dict[str, str], where: str) -> bool:
    """Let the server's own program check every page; False when the cluster has no checksums. Raises SourceError."""
    if control.get("Data page checksum version", "0") == "0":
        return False
    run_program([f"{programs}/pg_checksums", "--check", "-D", directory], owner, STALLED, "the check of page checksums", where)
    return True


def amcheck(private: PrivateCluster, owner: Owner) -> list[str]:
    """Check tables and B-trees of every database that has the extension; returns their names. Raises SourceError."""
    program = f"{private.programs}/pg_amcheck"
    if not os.path.exists(program):
        return []
    client, checked = private.client, []
    connection = client.connect(client.database)
    try:
        names = [row[0] for row in client.rows(connection, "SELECT datname FROM pg_database WHERE datallowconn ORDER BY 1")]
    finally:
        connection.close()
    for name in names:
        connection = client.connect(name)
        try:
            if client.rows(connection, "SELECT 1 FROM pg_extension WHERE extname = 'amcheck'"):
                checked.append(name)
        finally:
            connection.close()
    for name in checked:
        environment = client.environment(client.database)
        run_program([program, "--no-dependent-toast", "--jobs=2", f"--database={_pattern(name)}"], owner, STALLED, f"pg_amcheck of database {name!r}",
                    private.where, environment)
    return checked


def _pattern(name: str) -> str:
    """A name as a pattern that means only itself."""
    return '"' + name.replace('"', '""') + '"'


def examine(context: Context, programs: str, directory: str, private_dir: str, owner: Owner, where: str) -> dict[str, Any]:
    """Start the staged cluster privately, let it read everything, stop it cleanly.

    Returns {"content", "evidence", "checksums": bool, "amcheck": [databases]}. Raises SourceError naming what cannot be read.
    """
    control = control_data(programs, directory, owner, where)
    checked = clean(control) and page_checksums(programs, directory, owner, control, where)
    user = str(context.config.get("user") or "postgres")
    with PrivateCluster(programs, directory, private_dir, owner, user, private_settings(programs, directory, owner, where), where) as private:
        private.wait_answer()
        databases = amcheck(private, owner)
        content = cluster_content.measure(private.client, context.digest_key, context.workers, context.progress.add)
        evidence = cluster_content.evidence(private.client)
        private.stop()
    return {"content": content, "evidence": evidence, "checksums": checked, "amcheck": databases}


def compare(baseline: dict[str, Any] | None, found: dict[str, Any]) -> Comparison:
    """The content found against an earlier one of the same stage; the first one is what later ones are held against."""
    if baseline is None:
        return Comparison(True, [], len(found))
    return cluster_content.compare(baseline, found)
