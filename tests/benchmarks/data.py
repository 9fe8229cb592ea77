# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The trees that the contenders carry: made once per size, from fixed seeds, and kept between runs.

postgresql      the data directory of a real, cleanly stopped PostgreSQL: pgbench tables, wide rows of text and JSON, indexes
small-files     many small files in many directories, two thirds text-like, one third random
incompressible  a few large files of random bytes
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

MIB = 1 << 20
SEED = 20260101

#: One row is about 600 bytes on disk with its index entries.
EVENTS = """
SELECT setseed(0.42);
CREATE TABLE events (
    id bigint PRIMARY KEY, customer int NOT NULL, happened timestamptz NOT NULL, kind text NOT NULL, body jsonb NOT NULL, note text, token bytea NOT NULL
);
INSERT INTO events
SELECT n, (power(random(), 3) * 200000)::int, timestamptz '2026-01-01' + n * interval '3.7 s',
    (array['order.created', 'order.paid', 'order.shipped', 'customer.updated', 'cart.abandoned'])[1 + (power(random(), 2) * 5)::int %% 5],
    jsonb_build_object('order', n, 'total', (random() * 100000)::int, 'currency', 'EUR', 'ip', format('10.%%s.%%s.%%s',
        (random() * 255)::int, (random() * 255)::int, (random() * 255)::int), 'agent', 'Mozilla/5.0 (X11; Linux x86_64)', 'trace', md5(random()::text)),
    CASE WHEN random() < 0.5 THEN NULL ELSE repeat('lorem ipsum dolor sit amet ', 1 + (random() * 6)::int) END,
    decode(md5(random()::text) || md5(random()::text), 'hex')
FROM generate_series(1, %(rows)d) AS n;
CREATE INDEX ON events (customer, happened);
CREATE INDEX ON events (kind);
"""


def postgresql_program(name: str) -> str:
    """A program of the newest installed PostgreSQL; Debian keeps them out of PATH."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name), reverse=True)
    for candidate in [*(str(folder / name) for folder in folders), shutil.which(name)]:
        if candidate and os.access(candidate, os.X_OK):
            return candidate
    raise SystemExit(f"bench: {name} not found; install postgresql")


def make_postgresql(target: Path, size: int) -> None:
    """A cluster of about ``size`` bytes; PostgreSQL refuses root, so root drops to ``nobody`` for it."""
    drop: dict[str, Any] = {}
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        drop = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        target.mkdir()
        os.chown(target, nobody.pw_uid, nobody.pw_gid)
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8", "HOME": "/"}

    def run(program: str, *arguments: str) -> None:
        subprocess.run(
            [postgresql_program(program), *arguments], check=True, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, cwd="/", timeout=1800, **drop,
        )

    with tempfile.TemporaryDirectory(prefix="lifeboat-bench-") as folder:
        socket = Path(folder)
        if drop:
            os.chown(socket, drop["user"], drop["group"])
        with open_path(target):
            run("initdb", "-D", str(target), "-U", "bench", "-A", "trust", "-E", "UTF8", "--data-checksums", "--no-sync")
            settings = ["listen_addresses=''", f"unix_socket_directories='{socket}'", "fsync=off", "wal_level=minimal", "max_wal_senders=0"]
            settings += ["max_wal_size=64MB", "min_wal_size=32MB"]
            options = " ".join(f"-c {setting}" for setting in settings)
            run("pg_ctl", "-D", str(target), "-w", "-t", "60", "-l", str(socket / "log"), "-o", options, "start")
            try:
                place = ["-h", str(socket), "-U", "bench"]
                run("pgbench", *place, "-i", "-q", "-I", "dtGvp", "-s", str(max(1, size // 4 // (15 * MIB))), "postgres")
                script = socket / "events.sql"
                script.write_text(EVENTS % {"rows": max(1000, size * 3 // 4 // 600)}, encoding="utf-8")
                script.chmod(0o644)
                run("psql", *place, "-q", "-v", "ON_ERROR_STOP=1", "-f", str(script), "postgres")
                run("vacuumdb", *place, "-q", "-z", "-a")
            finally:
                run("pg_ctl", "-D", str(target), "-w", "-t", "120", "-m", "fast", "stop")


@contextlib.contextmanager
def open_path(target: Path) -> Iterator[None]:
    """Let the unprivileged server walk to its directory while it runs, when parents are closed to others (as /root is)."""
    closed = []
    if os.geteuid() == 0:
        for parent in target.resolve().parents:
            mode = parent.stat().st_mode
            if not mode & 0o001:
                closed.append((parent, mode & 0o7777))
                parent.chmod(mode & 0o7777 | 0o001)
    try:
        yield
    finally:
        for parent, mode in closed:
            parent.chmod(mode)


def make_small_files(target: Path, count: int) -> None:
    """``count`` files, log-normal sizes around 4 KiB (at most 256 KiB), a hundred to a directory."""
    chance = random.Random(SEED)
    words = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=chance.randint(3, 11))).encode() for _word in range(4000)]
    text = b" ".join(chance.choices(words, k=400_000))
    for number in range(count):
        folder = target / f"{number // 10000:02d}" / f"{number // 100:04d}"
        if number % 100 == 0:
            folder.mkdir(parents=True)
        size = min(256 << 10, int(chance.lognormvariate(8.3, 1.1)))
        start = chance.randrange(len(text) - (256 << 10))
        (folder / f"item-{number:06d}").write_bytes(chance.randbytes(size) if number % 3 == 0 else text[start:start + size])


def make_incompressible(target: Path, size: int) -> None:
    """Random bytes in four files."""
    chance = random.Random(SEED)
    target.mkdir()
    for number in range(4):
        with (target / f"blob-{number}").open("wb") as handle:
            for _block in range(max(1, size // 4 // MIB)):
                handle.write(chance.randbytes(MIB))


MAKERS: dict[str, Callable[[Path, int], None]] = {
    "postgresql": make_postgresql, "small-files": make_small_files, "incompressible": make_incompressible,
}


def provide(folder: Path, name: str, size: int) -> tuple[Path, dict[str, int]]:
    """The tree of one data set, made when it is not there; returns (path, {"files", "bytes"})."""
    target = folder / f"{name}-{size}"
    facts = folder / f"{name}-{size}.json"
    if not facts.exists():
        if target.exists():
            shutil.rmtree(target)
        folder.mkdir(parents=True, exist_ok=True)
        # a process of its own: what is started later begins with the memory that the benchmark ever used
        subprocess.run([sys.executable, __file__, name, str(target), str(size)], check=True, timeout=3600)
        sizes = [path.lstat().st_size for path in target.rglob("*") if path.is_file() and not path.is_symlink()]
        facts.write_text(json.dumps({"files": len(sizes), "bytes": sum(sizes)}), encoding="utf-8")
    known: dict[str, int] = json.loads(facts.read_text(encoding="utf-8"))
    return target, known


if __name__ == "__main__":
    MAKERS[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]))
