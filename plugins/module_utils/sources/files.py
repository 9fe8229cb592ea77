# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Source type ``files``: any directory tree with metadata, xattrs, hard links and sparse files."""

from __future__ import annotations

import os
import shutil
from typing import Any, ClassVar

from .. import durable, faults
from ..errors import ConflictError, LifeboatError, SourceError
from .contract import Captured, Comparison, Context, Finding, Footprint, Need, Reader, Source, TreeReader, Writer
from .disk import rename_refused, tree_bytes
from .files_capture import FilesCapture
from .files_restore import FilesRestore, compare_tree
from .server import Server


def _identity(path: str) -> list[int] | None:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None
    return [status.st_dev, status.st_ino]


def _remove_tree(path: str, subject: str) -> int:
    """Delete a whole tree durably; returns the bytes it held. Absent is fine."""
    if _identity(path) is None:
        return 0
    freed = tree_bytes(path)
    faults.point(f"{subject}.unlink.before")
    _make_removable(path)
    shutil.rmtree(path)
    faults.point(f"{subject}.unlink.after")
    durable.fsync_dir(os.path.dirname(path), subject)
    return freed


def _make_removable(path: str) -> None:
    """An owner who is not root cannot delete inside directories that deny writing."""
    if os.geteuid() == 0:
        return
    for directory, names, _files in os.walk(path):
        for name in names:
            child = os.path.join(directory, name)
            if not os.path.islink(child):
                os.chmod(child, 0o700)


def _unwritten(error: OSError, staged: str) -> SourceError:
    return SourceError(f"cannot write the staged copy ({error.strerror})", error.filename or staged,
                       "free space or fix permissions, then run the same command again; live data is as it was")


class Files(Source):
    """A directory, staged as a sibling on the same file system and swapped in by two renames."""

    type = "files"
    options: ClassVar[dict[str, dict[str, Any]]] = {
        "path": {"type": "path", "required": True, "help": "the directory; not a mount point"},
        "reread": {"type": "bool", "default": False, "help": "read every file at each capture instead of trusting size, times and inode"},
    }

    def _path(self, context: Context) -> str:
        return str(context.config["path"]).rstrip("/")

    # -- capture

    def preflight_capture(self, context: Context) -> list[Finding]:
        path = self._path(context)
        if os.path.islink(path) or not os.path.isdir(path):
            what = "is a symbolic link" if os.path.islink(path) else "does not exist" if _identity(path) is None else "is not a directory"
            return [Finding("error", SourceError(f"source directory {what}", path, "correct 'path' in the catalog, or restore the service"))]
        if not os.access(path, os.R_OK | os.X_OK):
            return [Finding("error", SourceError("source directory cannot be read", path, "run as a user who may read it"))]
        return []

    def capture(self, context: Context, writer: Writer) -> Captured:
        for finding in self.preflight_capture(context):
            raise finding.error
        return FilesCapture(context, writer, "the catalog says reread" if context.config.get("reread") else "").run()

    # -- restore

    def preflight_restore(self, context: Context, manifest: dict[str, Any]) -> list[Finding]:
        path = self._path(context)
        findings: list[Finding] = []
        parent = os.path.dirname(path)

        def error(kind: str, what: str, where: str, remedy: str) -> None:
            findings.append(Finding("error", SourceError(what, where, remedy, "permission" if kind == "permission" else ""), kind))

        if os.path.islink(path) or (_identity(path) is not None and not os.path.isdir(path)):
            error("place", "what stands in the place of the source is no directory", path, "move it away, or correct 'path' in the catalog")
        elif os.path.ismount(path):
            error("place", "source directory is a mount point, which cannot be swapped by rename", path, "use a directory below the mount point as 'path'")
        if not os.path.isdir(parent):
            if not context.config.get("provision"):
                error("place", "the directory above the source does not exist", parent, "create or mount it, or give the source a 'provision' command")
            return findings
        refused = rename_refused(parent, path)
        if refused:
            error("permission", *refused)
        foreign = [uid for uid in manifest.get("facts", {}).get("owners", []) if uid != os.geteuid()]
        if foreign and os.geteuid() != 0:
            error("permission", f"the snapshot holds files of other users (uid {', '.join(map(str, foreign[:5]))})", path,
                  "run the restore as root (become: true)")
        return findings

    def footprint(self, context: Context, manifest: dict[str, Any]) -> Footprint:
        path, facts = self._path(context), manifest.get("facts", {})
        need = Need(os.path.dirname(path), int(facts.get("bytes", 0)), int(facts.get("entries", 0)))
        return Footprint(os.path.realpath(path), needs=(need,))

    def plan_stage(self, context: Context, manifest: dict[str, Any], stage_id: str) -> dict[str, Any]:
        path = self._path(context)
        parent, name = os.path.split(path)
        beside = os.path.join(parent, f".{name}.lifeboat-{stage_id}")
        return {"live": path, "staged": beside + ".staged", "displaced": beside + ".displaced", "set_aside": beside + ".set-aside"}

    def prepare(self, context: Context, record: dict[str, Any]) -> bool:
        if os.path.isdir(os.path.dirname(record["live"])) or not context.config.get("provision"):
            return False
        server = Server(context.config, f"{context.service}.{context.source}", f"files:{record['live']}")
        with server.lock():
            server.provision()
        return True

    def stage(self, context: Context, reader: Reader, record: dict[str, Any]) -> None:
        staged = record["staged"]
        _remove_tree(staged, "stage")
        try:
            durable.make_dirs(staged, 0o700, "stage")
            FilesRestore(context, reader, staged).run()
        except OSError as error:
            raise _unwritten(error, staged) from error

    def settle(self, context: Context, record: dict[str, Any]) -> None:
        staged = record["staged"]
        try:
            durable.sync_tree(staged, "stage")
            durable.fsync_dir(os.path.dirname(staged), "stage")
        except OSError as error:
            raise _unwritten(error, staged) from error

    def verify_staged(self, context: Context, reader: Reader, record: dict[str, Any]) -> Comparison:
        return self._compare(context, reader, record["staged"])

    def verify_live(self, context: Context, reader: TreeReader, manifest: dict[str, Any]) -> Comparison:
        return self._compare(context, reader, self._path(context))

    def _compare(self, context: Context, tree: TreeReader, path: str) -> Comparison:
        if not os.path.isdir(path) or os.path.islink(path):
            return Comparison(False, [f"{path} does not exist"])
        try:
            return compare_tree(context, tree, path)
        except OSError as error:
            raise SourceError(f"cannot read back ({error.strerror})", error.filename or path, "check permissions and the disk") from error

    # -- swap: (live, staged, displaced) tell by themselves how far an earlier try came

    def cutover(self, context: Context, record: dict[str, Any]) -> dict[str, Any]:
        live, staged, displaced = record["live"], record["staged"], record["displaced"]
        try:
            if _identity(staged) is not None:
                if _identity(live) is not None:
                    if _identity(displaced) is not None:
                        raise ConflictError("something created the live directory again while it was being swapped", live,
                                            "stop what writes there, move it away, then run the same command again")
                    durable.rename(live, displaced, "swap")
                faults.point("restore.cutover.displaced")
                durable.rename(staged, live, "swap")
                faults.point("restore.cutover.swapped")
            elif _identity(live) is None:
                raise LifeboatError("neither staged nor live directory is there", live, "stage it again: run the restore with lifeboat_force=true")
            durable.fsync_dir(os.path.dirname(live), "swap")
        except OSError as error:
            raise SourceError(f"cannot swap directories ({error.strerror})", live, "fix permissions, then run the same command again") from error
        return {"displaced": _identity(displaced) is not None}

    def rollback(self, context: Context, record: dict[str, Any]) -> dict[str, Any]:
        live, displaced, aside = record["live"], record["displaced"], record["set_aside"]
        try:
            if _identity(aside) is None and _identity(live) is not None:
                durable.rename(live, aside, "swap")
            faults.point("rollback.displaced")
            if _identity(displaced) is not None:
                durable.rename(displaced, live, "swap")
            faults.point("rollback.swapped")
            durable.fsync_dir(os.path.dirname(live), "swap")
        except OSError as error:
            raise SourceError(f"cannot swap directories back ({error.strerror})", live, "fix permissions, then run the same command again") from error
        return {"set_aside": aside if _identity(aside) is not None else None, "restored_former": _identity(live) is not None}

    def commit(self, context: Context, record: dict[str, Any]) -> dict[str, Any]:
        try:
            return {"freed": _remove_tree(record["displaced"], "displaced") + _remove_tree(record["set_aside"], "displaced")}
        except OSError as error:
            raise SourceError(f"cannot delete displaced data ({error.strerror})", record["displaced"], "fix permissions, then commit again") from error

    def discard(self, context: Context, record: dict[str, Any]) -> None:
        try:
            _remove_tree(record["staged"], "stage")
        except OSError as error:
            raise SourceError(f"cannot delete a staged copy ({error.strerror})", record["staged"], "fix permissions, then run again") from error
