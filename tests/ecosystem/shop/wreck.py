# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The disaster of the demo, in one go."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Iterator

from . import processes, stores
from .layout import Home

#: Killed with -9. identity and its cluster go on serving; payments' cluster has to come up again by its own crash recovery.
_KILLED = ("gateway", "sessions", "payments", "orders", "inventory", "pg-orders", "pg-payments")


def wreck(home: Home, seed: int) -> dict[str, Any]:
    """Kill, delete, drop, corrupt and empty; returns what was done. Works on a shop that is wrecked already."""
    rng = random.Random(seed)
    with ThreadPoolExecutor(len(_KILLED)) as pool:
        died = list(pool.map(lambda name: _kill(home, name), _KILLED))
    result: dict[str, Any] = {"killed": [name for name, yes in zip(_KILLED, died) if yes]}
    data = home.data("pg-orders")
    result["deleted_directory"] = str(data) if data.exists() else None
    shutil.rmtree(data, ignore_errors=True)
    result["dropped_database"] = _drop(home)
    result["invoices"] = _spoil(home.invoices, rng)
    result["emptied_redis_keys"] = _empty(home)
    result["still_running"] = [name for name in ("pg-shared", "redis", "identity") if processes.find(home, name) is not None]
    return result


def _kill(home: Home, name: str) -> bool:
    process = processes.find(home, name)
    return process is not None and processes.end(process, signal.SIGKILL, 20)


def _drop(home: Home) -> str | None:
    with contextlib.suppress(Exception), contextlib.closing(stores.connect(home, "postgres:pg-shared")) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("SELECT FROM pg_database WHERE datname = 'inventory'")
            if cursor.rowcount:
                cursor.execute("DROP DATABASE inventory WITH (FORCE)")
                return "inventory"
    return None


def _empty(home: Home) -> int:
    with contextlib.suppress(Exception):
        client = stores.redis_client(home)
        keys = sum(int(database["keys"]) for database in client.info("keyspace").values())
        client.flushall()
        return keys
    return 0


def _spoil(root: Path, rng: random.Random) -> dict[str, int]:
    """Delete a third of the plain invoices and one whole year's end, spoil a tenth, remove a link, change a mode, add what was not there."""
    counts = {"deleted": 0, "flipped": 0, "shortened": 0, "changed_modes": 0, "added": 0}
    if not root.is_dir():
        return counts
    years = sorted(path for path in root.iterdir() if path.is_dir() and path.name.isdigit())
    if years:
        months = sorted(path for path in years[0].iterdir() if path.is_dir())
        for path in months[-1:]:
            counts["deleted"] += sum(1 for item in path.rglob("*") if item.is_file())
            shutil.rmtree(path)
    for path in sorted(root.rglob("INV-*.txt")):
        dice = rng.random()
        if dice < 0.3:
            path.unlink()
            counts["deleted"] += 1
        elif dice < 0.35:
            _flip(path, rng)
            counts["flipped"] += 1
        elif dice < 0.38:
            with _writable(path):
                os.truncate(path, path.stat().st_size // 2)
            counts["shortened"] += 1
        elif dice < 0.40:
            path.chmod(0o666)
            counts["changed_modes"] += 1
    odd = root / "archive" / "odd"
    with contextlib.suppress(OSError):
        (odd / "link-relative").unlink()
        (odd / "link-relative").symlink_to("elsewhere")
        with contextlib.suppress(OSError):
            os.removexattr(odd / "with-xattrs", "user.origin")
        (odd / "hard-1").unlink()
        (odd / "hard-1").write_bytes(b"no longer linked\n")
        (root / "READ_ME_TO_GET_YOUR_FILES_BACK.txt").write_text("this was not here before\n", encoding="ascii")
        counts["added"] += 1
    return counts


@contextlib.contextmanager
def _writable(path: Path) -> Iterator[None]:
    """Its owner may not write to every invoice, but may change that."""
    mode = path.stat().st_mode & 0o7777
    path.chmod(mode | 0o200)
    yield
    path.chmod(mode)


def _flip(path: Path, rng: random.Random) -> None:
    """Change one bit and keep size and time: what only a look at the content finds."""
    before = path.stat()
    with _writable(path), open(path, "r+b") as file:
        data = bytearray(file.read())
        if data:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        file.seek(0)
        file.write(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
