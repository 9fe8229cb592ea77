# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Where the parts of a cluster lie while it is staged, live, displaced or set aside.

The data directory is staged as a sibling and swapped by rename. A tablespace is staged inside its own location, below
``.lifeboat-<id>.staged``, so that locations that are mount points need no room beside them; a log directory behind a
symbolic link is staged as a sibling. The links of a cluster always point at where its parts lie now, so a displaced
cluster never shares files with the live one.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
from dataclasses import dataclass
from typing import Any, Iterator

from .. import durable, faults
from ..errors import ConflictError, SourceError
from .disk import tree_bytes

CONTROL = "global/pg_control"
_SPACE = re.compile(r"[0-9]{1,10}\Z")


def side(path: str, stage_id: str, part: str) -> str:
    """The sibling of a directory for one part (staged, displaced, aside, private) of one stage."""
    parent, name = os.path.split(path)
    return os.path.join(parent, f".{name}.lifeboat-{stage_id}.{part}")


def inside(location: str, stage_id: str, part: str) -> str:
    """The directory of one part inside a tablespace's location."""
    return os.path.join(location, f".lifeboat-{stage_id}.{part}")


def given_up(live: str) -> list[str] | None:
    """[path, stage id] of a cluster that a restore in place took and did not finish; None when there is none."""
    parent, name = os.path.split(live)
    try:
        names = sorted(os.listdir(parent))
    except FileNotFoundError:
        return None
    for found in reversed(names):
        matched = re.fullmatch(rf"\.{re.escape(name)}\.lifeboat-(.+)\.staged", found)
        if matched and os.path.isdir(os.path.join(parent, found)):
            return [os.path.join(parent, found), matched.group(1)]
    return None


def present(path: str) -> bool:
    """Something has this name, a dangling link too."""
    return os.path.lexists(path)


def holds_cluster(path: str) -> bool:
    """A directory with a cluster in it."""
    return os.path.isdir(path) and present(os.path.join(path, "PG_VERSION"))


@dataclass(frozen=True)
class Owner:
    """Who owns a cluster's files and runs its server."""

    uid: int
    gid: int

    def run_as(self) -> dict[str, Any]:
        """Keyword arguments for subprocess: the server's programs refuse root."""
        if os.geteuid() != 0:
            return {}
        try:
            groups = os.getgrouplist(pwd.getpwuid(self.uid).pw_name, self.gid)
        except KeyError:
            groups = [self.gid]
        return {"user": self.uid, "group": self.gid, "extra_groups": groups}

    def give(self, path: str | int) -> None:
        """Make it theirs; nothing to do when it is ours already."""
        if os.geteuid() == 0 and (self.uid, self.gid) != (0, os.getegid()):
            if isinstance(path, int):
                os.fchown(path, self.uid, self.gid)
            else:
                os.chown(path, self.uid, self.gid, follow_symlinks=False)


def find_owner(live: str, facts: dict[str, Any]) -> Owner:
    """The owner of the live data directory; without one the captured user by name, then by number."""
    try:
        status = os.stat(live)
        if status.st_uid != 0:
            return Owner(status.st_uid, status.st_gid)
    except FileNotFoundError:
        pass
    if os.geteuid() != 0:
        return Owner(os.geteuid(), os.getegid())
    try:
        entry = pwd.getpwnam(str(facts.get("user") or ""))
        return Owner(entry.pw_uid, entry.pw_gid)
    except KeyError:
        return Owner(int(facts.get("uid", 0)), int(facts.get("gid", 0)))


def spaces(directory: str) -> Iterator[tuple[str, str]]:
    """(link, target) of the tablespaces of a cluster; those inside the data directory have no link."""
    folder = os.path.join(directory, "pg_tblspc")
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        return
    for name in names:
        link = os.path.join(folder, name)
        if _SPACE.match(name) and os.path.islink(link):
            yield link, os.readlink(link)


def version_directories(location: str, major: int) -> list[str]:
    """Names of what a server of this major version keeps in a tablespace's location."""
    try:
        return sorted(name for name in os.listdir(location) if re.match(rf"PG_{major}_[0-9]+\Z", name))
    except FileNotFoundError:
        return []


def point_link(link: str, target: str, subject: str) -> None:
    """Replace a symbolic link in one step."""
    if os.path.islink(link) and os.readlink(link) == target:
        return
    temporary = f"{link}.lifeboat"
    if present(temporary):
        os.unlink(temporary)
    os.symlink(target, temporary)
    durable.rename(temporary, link, subject)
    durable.fsync_dir(os.path.dirname(link), subject)


def postmaster(directory: str) -> int | None:
    """The pid of the server that runs on a data directory."""
    try:
        with open(os.path.join(directory, "postmaster.pid"), encoding="utf-8") as handle:
            pid = int(handle.readline())
        if pid <= 0 or not os.path.samefile(f"/proc/{pid}/cwd", directory):
            return None
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as handle:
            return None if handle.read().rsplit(")", 1)[1].split()[0] == "Z" else pid
    except (OSError, ValueError):
        return None


def major_of(directory: str) -> int:
    """The major version that a data directory says of itself; 0 when it says none."""
    try:
        with open(os.path.join(directory, "PG_VERSION"), encoding="ascii") as handle:
            return int(handle.readline().strip().split(".")[0])
    except (OSError, ValueError):
        return 0


def move_out(directory: str, target: str, stage_id: str, part: str) -> None:
    """Put a cluster with its tablespaces and log aside under ``part``, the data directory last. May be repeated after a kill."""
    owner = os.stat(directory)
    for link, location in spaces(directory):
        if _is_side(location, stage_id):
            continue
        aside = inside(location, stage_id, part)
        for name in version_directories(location, major_of(directory)):
            if not os.path.isdir(aside):
                os.mkdir(aside, 0o700)
                if os.geteuid() == 0:
                    os.chown(aside, owner.st_uid, owner.st_gid)
            if present(os.path.join(aside, name)):
                raise ConflictError("a tablespace was filled again while it was being swapped", os.path.join(location, name),
                                    "stop what writes there, move it away, then run the same command again")
            durable.rename(os.path.join(location, name), os.path.join(aside, name), "swap")
            durable.fsync_dir(aside, "swap")
            durable.fsync_dir(location, "swap")
        if os.path.isdir(aside):
            point_link(link, aside, "swap")
    log = os.path.join(directory, "pg_wal")
    if os.path.islink(log):
        place = os.readlink(log)
        if not _is_side(place, stage_id):
            aside = side(place, stage_id, part)
            if os.path.isdir(place) and not present(aside):
                durable.rename_durably(place, aside, "swap")
            if os.path.isdir(aside):
                point_link(log, aside, "swap")
    durable.rename_durably(directory, target, "swap")


def move_in(directory: str, target: str, stage_id: str, part: str) -> None:
    """Bring a cluster from ``part`` to its own place, the data directory last. May be repeated after a kill."""
    for link, place in spaces(directory):
        location = os.path.dirname(place)
        if place != inside(location, stage_id, part):
            continue
        for name in version_directories(place, major_of(directory)):
            if present(os.path.join(location, name)):
                raise ConflictError("the place of a tablespace is taken", os.path.join(location, name),
                                    "find out what made it and move it away, then run the same command again")
            durable.rename(os.path.join(place, name), os.path.join(location, name), "swap")
            durable.fsync_dir(location, "swap")
        point_link(link, location, "swap")
        _remove_empty(place)
    log = os.path.join(directory, "pg_wal")
    if os.path.islink(log):
        place = os.readlink(log)
        found = re.match(rf"(.*/)\.([^/]+)\.lifeboat-{re.escape(stage_id)}\.{part}\Z", place)
        if found:
            home = found.group(1) + found.group(2)
            if os.path.isdir(place):
                if present(home):
                    raise ConflictError("the place of the log directory is taken", home,
                                        "find out what made it and move it away, then run the same command again")
                durable.rename_durably(place, home, "swap")
            point_link(log, home, "swap")
    durable.rename_durably(directory, target, "swap")


def _is_side(path: str, stage_id: str) -> bool:
    return f".lifeboat-{stage_id}." in os.path.basename(path)


def _remove_empty(path: str) -> None:
    try:
        os.rmdir(path)
    except OSError:
        pass  # gone already, or somebody keeps something there


def size_of(directory: str) -> int:
    """Bytes on disk of a cluster with the tablespaces and the log that belong to it alone; 0 when it is not there."""
    roots = [directory, *(place for _link, place in spaces(directory))]
    log = os.path.join(directory, "pg_wal")
    if os.path.islink(log):
        roots.append(os.readlink(log))
    return sum(tree_bytes(root) for root in roots)


def remove(directory: str, stage_id: str, part: str, record: dict[str, Any], subject: str) -> int:
    """Delete a cluster that lies aside, with its tablespaces and its log; returns the bytes. Absent is fine.

    Only places that carry the name of this stage are touched, whatever the cluster's links say.
    """
    places = {inside(str(space["to"]), stage_id, part) for space in record.get("tablespaces", [])}
    places |= {place for _link, place in spaces(directory) if place == inside(os.path.dirname(place), stage_id, part)}
    if record.get("wal_directory"):
        places.add(side(str(record["wal_directory"]), stage_id, part))
    log = os.path.join(directory, "pg_wal")
    if os.path.islink(log) and os.readlink(log).endswith(f".lifeboat-{stage_id}.{part}"):
        places.add(os.readlink(log))
    freed = 0
    if os.path.isdir(directory) and not os.path.islink(directory):
        durable.unlink(os.path.join(directory, CONTROL), subject)  # half of a cluster must not start
    for place in sorted(places):
        freed += _remove_tree(place, subject)
    return freed + _remove_tree(directory, subject)


def _remove_tree(path: str, subject: str) -> int:
    if not os.path.isdir(path) or os.path.islink(path):
        return 0
    freed = tree_bytes(path)
    faults.point(f"{subject}.unlink.before")
    shutil.rmtree(path)
    faults.point(f"{subject}.unlink.after")
    durable.fsync_dir(os.path.dirname(path), subject)
    return freed


def run_program(argv: list[str], owner: Owner, timeout: float, what: str, where: str, environment: dict[str, str] | None = None) -> str:
    """Run a program of the server as the server's user; its output. Raises SourceError with its last words."""
    environment = environment or {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "TZ": "UTC"}
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, check=False, cwd="/",
                              env=environment, **owner.run_as())
    except subprocess.TimeoutExpired:
        raise SourceError(f"{what} did not end within {timeout:.0f} s", f"{where}: {argv[0]}", "see what keeps the disk busy") from None
    except OSError as error:
        raise SourceError(f"{what} cannot be run ({error.strerror})", f"{where}: {argv[0]}", "install the server's programs, or correct bin_dir") from error
    if done.returncode != 0:
        lines = [line.strip() for line in (done.stdout + b"\n" + done.stderr).decode("utf-8", "replace").splitlines() if line.strip()]
        raise SourceError(f"{what} failed" + (f" ({lines[-1][:300]})" if lines else ""), f"{where}: {os.path.basename(argv[0])}", "see the remedy in its words")
    output: bytes = done.stdout
    return output.decode("utf-8", "replace")
