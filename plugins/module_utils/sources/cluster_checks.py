# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Is a staged cluster sound, and still what was staged?

Every page was held against the snapshot when it was staged. What recovery wrote since is told by its files' sizes, times and
inodes: of those files every page's own checksum is verified, and a hash is kept. So what a later look finds changed can be held
against the one or the other, file by file.
"""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from ..errors import SourceError
from ..libraries import need
from . import cluster_pages as pages
from .cluster_fill import Filler, Wanted, seen
from .cluster_places import Owner, run_program
from .cluster_private import STALLED, PrivateCluster
from .cluster_walk import relation_of
from .contract import Context, Reader

_BLOCK = 1 << 20
_NAMED = 20

#: path -> [size, mtime_ns, ctime_ns, inode, hash]; the hash is "" where the snapshot's own marks say what the file holds.
Files = dict[str, list[Any]]


def listing(directory: str) -> dict[str, list[int]]:
    """path -> what tells whether somebody wrote to the file since, of every file of a cluster that is not running."""
    found: dict[str, list[int]] = {}
    start = len(directory) + 1
    pending = [directory]
    while pending:
        folder = pending.pop()
        with os.scandir(folder) as entries:
            for entry in entries:
                # tablespaces and a log directory lie behind links that a restore makes itself, and no other link is followed
                path = entry.path[start:]
                if entry.is_dir(follow_symlinks=path == "pg_wal" or path.rpartition("/")[0] == "pg_tblspc"):
                    pending.append(entry.path)
                else:
                    found[path] = seen(entry.stat(follow_symlinks=False))
    return found


class Inspection:
    """Of a staged cluster after its recovery. known: pages that the manifest names as bad, {"path", "block"} each. segment: bytes of a relation's files."""

    def __init__(self, context: Context, directory: str, where: str, known: list[dict[str, Any]], segment: int) -> None:
        self._context = context
        self._directory = directory
        self._where = where
        self._known = {(str(page["path"]), int(page["block"])) for page in known}
        self._segment_pages = segment // pages.PAGE

    def run(self, staged: dict[str, list[int]], doubtful: set[str], checksums: bool) -> Files:
        """Verify the page checksums of all files that are not as ``staged`` any more, and of the doubtful ones. Raises SourceError naming pages.

        Returns what later looks compare with.
        """
        now = listing(self._directory)
        touched = [path for path, status in now.items() if staged.get(path) != status]
        wrong: list[str] = []

        def read(path: str) -> str:
            bad, digest = self._read(path, checksums)
            wrong.extend(bad)
            return digest

        look = sorted({*touched, *(path for path in doubtful if path in now)}, key=lambda path: -now[path][0])
        with ThreadPoolExecutor(self._context.workers, thread_name_prefix="check") as threads:
            hashes = dict(zip(look, threads.map(read, look)))
        if wrong:
            wrong.sort()
            more = f", and {len(wrong) - _NAMED} more" if len(wrong) > _NAMED else ""
            raise SourceError("pages of the recovered cluster have wrong checksums", f"{self._where}: {', '.join(wrong[:_NAMED])}{more}",
                              "restore another point; check this host's memory and disk when the source is sound")
        changed = set(touched)
        return {path: [*status, hashes[path] if path in changed else ""] for path, status in now.items()}

    def one(self, path: str) -> list[Any]:
        """What later looks compare one file with, which was written since."""
        return [*seen(os.stat(os.path.join(self._directory, path))), self._read(path, False)[1]]

    def _read(self, path: str, checksums: bool) -> tuple[list[str], str]:
        """(pages with a wrong checksum, hash) of one file."""
        relation = relation_of(path) if checksums else None
        hasher = need("blake3").blake3(key=self._context.digest_key)
        buffer = bytearray(_BLOCK)
        wrong: list[str] = []
        block = relation.segment * self._segment_pages if relation is not None else 0
        with open(os.path.join(self._directory, path), "rb", buffering=0) as handle:
            while True:
                have = _fill(handle, buffer)
                if not have:
                    break
                hasher.update(memoryview(buffer)[:have])
                if relation is not None:
                    wrong += [f"{path!r} page {page}" for page in self._bad(path, buffer, have, block)]
                    block += have // pages.PAGE
                self._context.progress.add(have)
        return wrong, hasher.digest(16).hex()

    def _bad(self, path: str, buffer: bytearray, have: int, first: int) -> list[int]:
        """Numbers of the pages in a buffer that a server would refuse."""
        numpy = need("numpy")
        count = have // pages.PAGE
        found: list[int] = []
        if count:
            shaped = numpy.frombuffer(buffer, numpy.uint8, count * pages.PAGE).reshape(-1, pages.PAGE)
            with pages.CPU:
                found = [first + int(page) for page in pages.bad_pages(shaped, numpy.arange(first, first + count, dtype=numpy.uint32))]
        if have % pages.PAGE:
            found.append(first + count)
        return [page for page in found if (path, page) not in self._known]


def _fill(handle: Any, buffer: bytearray) -> int:
    have = 0
    view = memoryview(buffer)
    while have < len(buffer):
        got = handle.readinto(view[have:])
        if not got:
            break
        have += got
    return have


def differences(context: Context, reader: Reader, directory: str, files: Files, everything: bool) -> list[str]:
    """Files that are not what was staged, by name.

    A file with other size, times or inode is read and compared, with ``everything`` each one is: with the hash that was kept of
    it, or span by span with the snapshot. Segments of the log, which a cleanly stopped cluster does not need, are not read.
    """
    now = listing(directory)
    named = [f"{path!r} is {'new' if path not in files else 'missing'}" for path in files.keys() ^ now.keys()]
    look = [path for path in files.keys() & now.keys() if files[path][:4] != now[path] or everything]
    named += [f"{path!r} has another size than what was staged" for path in look if files[path][0] != now[path][0]]
    look = [path for path in look if files[path][0] == now[path][0] and not (everything and path.startswith("pg_wal/") and files[path][:4] == now[path])]
    hashed = [path for path in look if files[path][4]]
    inspection = Inspection(context, directory, "", [], 0)
    with ThreadPoolExecutor(context.workers, thread_name_prefix="check") as threads:
        results = threads.map(lambda path: inspection._read(path, False)[1], hashed)
        wrong = {path for path, digest in zip(hashed, results) if digest != files[path][4]}
        wrong |= _unlike(context, reader, directory, {path: files[path][0] for path in look if not files[path][4]}, threads)
    named += [f"{path!r} differs from what was staged" for path in wrong]
    named.sort()
    return named[:_NAMED] + ([f"and {len(named) - _NAMED} more"] if len(named) > _NAMED else [])


def _unlike(context: Context, reader: Reader, directory: str, sizes: dict[str, int], threads: ThreadPoolExecutor) -> set[str]:
    """Those of the files whose content is not the snapshot's."""
    if not sizes:
        return set()
    filler = Filler(context, reader, in_place=False)

    wrong: set[str] = set()
    jobs: deque[tuple[str, Future[bool]]] = deque()

    def equal(wanted: Wanted) -> bool:
        with open(os.path.join(directory, wanted.path), "rb", buffering=0) as handle:
            return filler.equal(handle.fileno(), wanted)

    def judge() -> None:
        path, future = jobs.popleft()
        if not future.result():
            wrong.add(path)

    for entry in reader.entries():
        path = str(entry.get("path"))
        if entry["type"] == "span" and path in sizes:
            jobs.append((path, threads.submit(equal, Wanted(path, sizes[path], entry))))
            if len(jobs) > 4 * context.workers:
                judge()
    while jobs:
        judge()
    return wrong


def has_amcheck(private: PrivateCluster, connection: Any) -> bool:
    """The extension is there, in the database of a connection, and so is the server's program."""
    return os.path.exists(f"{private.programs}/pg_amcheck") and bool(
        private.client.rows(connection, "SELECT 1 FROM pg_extension WHERE extname = 'amcheck'"))


def amcheck(private: PrivateCluster, owner: Owner, names: list[str]) -> None:
    """Check tables and B-trees of databases that have the extension. Raises SourceError."""
    environment = private.client.environment(private.client.database)
    for name in names:
        run_program([f"{private.programs}/pg_amcheck", "--no-dependent-toast", "--jobs=2", f"--database={_pattern(name)}"], owner, STALLED,
                    f"pg_amcheck of database {name!r}", private.where, environment)


def _pattern(name: str) -> str:
    """A name as a pattern that means only itself."""
    return '"' + name.replace('"', '""') + '"'
