# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One kit per source type for the conformance suite: how to make, fill, change, damage and lose its store.

A new source type joins with one class and one line in KITS. A kit's fingerprint is taken without any code of the
source: two states are the same if and only if their fingerprints are equal.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from abc import ABC, abstractmethod
from typing import Any, Callable

from . import postgres, postgres_content, processes
from .redis_server import RedisServer


class Kit(ABC):
    """A running, private, empty store and what can happen to it."""

    type: str
    #: A capture is proven by the pages it read: another one of the same content differs from it, and whether live content is
    #: the captured one is known only where the snapshot was staged and verified once.
    physical = False

    @property
    @abstractmethod
    def config(self) -> dict[str, Any]:
        """The source's catalog entry."""

    @abstractmethod
    def fill(self) -> None:
        """Put one of everything in."""

    @abstractmethod
    def change(self) -> None:
        """What an application does between two captures."""

    @abstractmethod
    def damage(self) -> None:
        """Change and lose content; the store goes on running."""

    @abstractmethod
    def lose(self) -> None:
        """Lose the store as a whole."""

    @abstractmethod
    def damage_staged(self, record: dict[str, Any]) -> None:
        """Change one item of a staged copy."""

    @abstractmethod
    def fingerprint(self) -> Any:
        """Everything that makes the content the same, or None when there is none."""

    def nothing(self) -> bool:
        """No content is live: the store is absent, down, or as empty as it is provisioned."""
        return self.fingerprint() is None

    @abstractmethod
    def leftovers(self) -> list[str]:
        """Names of staged, displaced or aside copies that are still there."""

    @abstractmethod
    def destroy(self) -> None:
        """Stop and delete everything."""


class PostgresKit(Kit):
    """A database with an odd name in a cluster where another one must not be touched."""

    type = "postgresql_database"
    database = 'sh"op Ü'

    def __init__(self) -> None:
        self.server = postgres.Postgres().init(copied=True).start()

    @property
    def config(self) -> dict[str, Any]:
        return {
            "type": self.type, "database": self.database, "port": self.server.port, "password_file": self.server.password_file,
            "data_directory": self.server.data, "provision": self.server.provision_argv(),
            "server": {"start": self.server.start_argv(), "stop": self.server.stop_argv(), "status": self.server.status_argv()},
        }

    def fill(self) -> None:
        postgres_content.roles(self.server)
        postgres_content.fill(self.server, self.database, 60)
        self.server.sql("CREATE DATABASE neighbour")
        self.server.sql("CREATE TABLE kept AS SELECT generate_series(1, 10)", "neighbour")

    def _run(self, *statements: str) -> None:
        connection = self.server.connect(self.database)
        try:
            with connection.cursor() as cursor:
                for statement in ("SET default_transaction_read_only = off", *statements):
                    cursor.execute(statement)
        finally:
            connection.close()

    def change(self) -> None:
        self._run("INSERT INTO no_key VALUES ('new', 2)", "SELECT nextval('untouched')")

    def damage(self) -> None:
        postgres_content.damage(self.server, self.database)

    def lose(self) -> None:
        self.server.wipe()

    def damage_staged(self, record: dict[str, Any]) -> None:
        connection = self.server.connect(record["staged"])
        try:
            with connection.cursor() as cursor:
                cursor.execute("SET default_transaction_read_only = off")
                cursor.execute("UPDATE orders SET notes = 'x' WHERE id = 3")
        finally:
            connection.close()

    def fingerprint(self) -> Any:
        if not self.server.sql("SELECT 1 FROM pg_database WHERE datname = %s AND datallowconn", parameters=(self.database,)):
            return None
        environment = {**os.environ, "PGPASSWORD": postgres.PASSWORD, "PGHOST": "127.0.0.1", "PGPORT": str(self.server.port), "PGUSER": postgres.SUPERUSER}
        texts = [
            subprocess.run(argv, env=environment, capture_output=True, timeout=300, check=True).stdout
            for argv in (
                [f"{self.server.bin}/pg_dump", "--create", f"--dbname={_conninfo(self.database)}"],
                [f"{self.server.bin}/pg_dumpall", "--roles-only"],
            )
        ]
        lines = [_plain(line) for line in texts[0].splitlines() if not line.startswith((b"--", b"\\restrict", b"\\unrestrict"))]
        roles = [line for line in texts[1].splitlines() if (b"ROLE" in line or b"GRANT" in line) and b" bystander" not in line and b" postgres " not in line]
        return sorted(filter(None, lines)), sorted(roles), self.server.sql("SELECT * FROM kept", "neighbour") if self._neighbour() else "lost with the server"

    def _neighbour(self) -> bool:
        return bool(self.server.sql("SELECT 1 FROM pg_database WHERE datname = 'neighbour'"))

    def leftovers(self) -> list[str]:
        return [row[0] for row in self.server.sql("SELECT datname FROM pg_database WHERE datname LIKE %s", parameters=('sh"op%\\_\\_%',))]

    def destroy(self) -> None:
        self.server.destroy()


def _conninfo(database: str) -> str:
    escaped = database.replace("\\", "\\\\").replace("'", "\\'")
    return f"dbname='{escaped}'"


def _plain(line: bytes) -> bytes:
    """A line of a dump without the marks of this collection, and with the one expression that PostgreSQL rewords."""
    if b"lifeboat" in line:
        return b""
    if b"CHECK (((status)::text = ANY" in line:
        return re.sub(rb"::(?:text|character varying)(?:\[\])?|[()]", b"", line)
    return line


class ClusterKit(Kit):
    """A whole cluster with a tablespace, a log directory behind a link, unlogged rows and a prepared transaction."""

    type = "postgresql"
    physical = True
    database = "shop"

    def __init__(self) -> None:
        self.server = postgres.Postgres().init(copied=True)
        self.space, self.wal = os.path.join(self.server.home, "space"), os.path.join(self.server.home, "wal")
        os.mkdir(self.space, 0o700)
        os.rename(f"{self.server.data}/pg_wal", self.wal)
        os.symlink(self.wal, f"{self.server.data}/pg_wal")
        who = processes.account()
        if who is not None:
            os.chown(self.space, *who)
        with open(f"{self.server.data}/postgresql.conf", "a", encoding="utf-8") as handle:
            handle.write("wal_level = replica\nmax_prepared_transactions = 10\nautovacuum = off\n")
        self.server.start()

    @property
    def config(self) -> dict[str, Any]:
        return {
            "type": self.type, "port": self.server.port, "password_file": self.server.password_file, "data_directory": self.server.data,
            "server": {"start": self.server.start_argv(), "stop": self.server.stop_argv(), "status": self.server.status_argv()},
        }

    def fill(self) -> None:
        postgres_content.roles(self.server)
        postgres_content.fill(self.server, self.database, 60)
        self._run(
            f"CREATE TABLESPACE spare LOCATION '{self.space}'", "CREATE TABLE spread TABLESPACE spare AS SELECT generate_series(1, 2000) AS id",
            "CREATE TABLE promised (id int)",
        )
        self._run("BEGIN", "INSERT INTO promised VALUES (1)", "PREPARE TRANSACTION 'promise'")

    def _run(self, *statements: str) -> None:
        connection = self.server.connect(self.database)
        try:
            with connection.cursor() as cursor:
                for statement in ("SET default_transaction_read_only = off", *statements):
                    cursor.execute(statement)
        finally:
            connection.close()

    def change(self) -> None:
        self._run("SET search_path = public", "INSERT INTO no_key VALUES ('new', 2)", "SELECT nextval('untouched')")

    def damage(self) -> None:
        postgres_content.damage(self.server, self.database)
        self._run("DELETE FROM public.spread WHERE id % 2 = 0", "CREATE ROLE intruder")

    def lose(self) -> None:
        self.server.wipe()
        shutil.rmtree(self.space)
        shutil.rmtree(self.wal)

    def damage_staged(self, record: dict[str, Any]) -> None:
        base = os.path.join(record["staged"], "base")
        folder = os.path.join(base, max(os.listdir(base), key=int))
        path = next(os.path.join(folder, name) for name in sorted(os.listdir(folder)) if name.isdigit() and os.path.getsize(os.path.join(folder, name)))
        with open(path, "r+b") as handle:
            handle.seek(-1, os.SEEK_END)
            last = handle.read(1)
            handle.seek(-1, os.SEEK_END)
            handle.write(bytes([last[0] ^ 1]))

    def fingerprint(self) -> Any:
        if self.server.pid() is None:
            return None
        environment = {**os.environ, "PGPASSWORD": postgres.PASSWORD, "PGHOST": "127.0.0.1", "PGPORT": str(self.server.port), "PGUSER": postgres.SUPERUSER}
        argv = [f"{self.server.bin}/pg_dumpall", "--no-unlogged-table-data"]
        text = subprocess.run(argv, env=environment, capture_output=True, timeout=300, check=True).stdout
        prepared = self.server.sql("SELECT gid FROM pg_prepared_xacts")
        return [line for line in text.splitlines() if not line.startswith((b"--", b"\\restrict", b"\\unrestrict"))], prepared

    def leftovers(self) -> list[str]:
        found = []
        for folder in (self.server.home, self.space):
            if os.path.isdir(folder):
                found += [name for name in os.listdir(folder) if "lifeboat" in name]
        return found

    def destroy(self) -> None:
        self.server.destroy()


class RedisKit(Kit):
    """A server with keys of all types in several databases."""

    type = "redis"
    appendonly = False

    def __init__(self) -> None:
        self.server = RedisServer(appendonly=self.appendonly).init().start()

    @property
    def config(self) -> dict[str, Any]:
        return {
            "type": self.type, "port": self.server.port, "password_file": self.server.password_file, "provision": self.server.argv("provision"),
            "server": {verb: self.server.argv(verb) for verb in ("start", "stop", "status")},
        }

    def fill(self) -> None:
        client = self.server.client()
        pipe = client.pipeline(transaction=False)
        for number in range(400):
            pipe.set(f"string:{number}", os.urandom(number % 90))
            pipe.hset(f"hash:{number % 40}", f"field {number}", f"wört {number}".encode())
            pipe.zadd("zset", {f"member {number}": number / 7})
            pipe.rpush("list", f"item {number % 13}")
            pipe.sadd("set", number, f"text {number}")
            pipe.sadd("integers", number)
        pipe.set("empty", b"")
        pipe.set(b"\xff\x00 binary \n", b"\x00")
        pipe.set("large", "0123456789" * 100000)
        pipe.set("session:1", "volatile", ex=100000)
        pipe.hset("session:2", mapping={"user": "a"})
        pipe.expire("session:2", 200000)
        pipe.zadd("ends", {"a": float("inf"), "b": -0.0, "c": 1e-300})
        for number in range(30):
            pipe.xadd("stream", {"n": number, "text": "x"}, id=f"{number + 1}-1")
        pipe.xdel("stream", "30-1")
        pipe.xgroup_create("stream", "workers", id="0")
        pipe.xgroup_create("stream", "idle", id="$")
        pipe.execute()
        client.xreadgroup("workers", "worker 1", {"stream": ">"}, count=7)
        client.xack("stream", "workers", "2-1")
        client.function_load("#!lua name=shop\nredis.register_function('answer', function() return 42 end)")
        other = self.server.client(5)
        other.set("string:1", "in another database")
        other.close()
        client.close()

    def change(self) -> None:
        with self.server.client() as client:
            client.incr("counter")

    def damage(self) -> None:
        with self.server.client() as client:
            client.delete("set", "session:1", "stream")
            client.set("string:5", "damaged")
            client.swapdb(0, 5)

    def lose(self) -> None:
        self.server.wipe()

    def damage_staged(self, record: dict[str, Any]) -> None:
        path = os.path.join(record["staged"], "dump.rdb")
        if self.appendonly:
            folder = os.path.join(record["staged"], "appendonlydir")
            path = next(os.path.join(folder, name) for name in sorted(os.listdir(folder)) if name.endswith(".incr.aof"))
            with open(path, "ab") as handle:
                handle.write(b"*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n*3\r\n$3\r\nSET\r\n$5\r\nempty\r\n$1\r\nx\r\n")
            return
        # A server of its own changes the staged dump, so that it is whole and only wrong.
        folder = processes.private_dir("redis-staged")
        shutil.copy(path, os.path.join(folder, "dump.rdb"))
        port = processes.free_port()
        server = subprocess.Popen(
            ["redis-server", "--port", str(port), "--dir", folder, "--save", "", "--bind", "127.0.0.1"], stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
        )
        try:
            import redis

            client = redis.Redis(port=port)
            processes.wait_for(lambda: _answers(client), "redis")
            client.set("empty", "x")
            client.save()
            client.close()
        finally:
            server.kill()
            server.wait()
        shutil.copy(os.path.join(folder, "dump.rdb"), path)
        processes.remove(folder)

    def nothing(self) -> bool:
        found = self.fingerprint()
        return found is None or found == ({}, "[]")

    def fingerprint(self) -> Any:
        if self.server.pid() is None:
            return None
        found: dict[Any, Any] = {}
        for database in (0, 5):
            with self.server.client(database) as client:
                keys = sorted(set(client.scan_iter(count=1000)))
                for key, (kind, value, end) in zip(keys, _values(client, keys)):
                    found[(database, key)] = (kind, _group_state(client, key, value) if kind == "stream" else value, end)
        with self.server.client() as client:
            functions = str(client.function_list(withcode=True))
        return found, functions

    def leftovers(self) -> list[str]:
        return [name for name in os.listdir(self.server.data) if "lifeboat" in name]

    def destroy(self) -> None:
        self.server.destroy()


#: How all of a key's value is read, and put into an order where Redis has none.
_READ: dict[str, tuple[Callable[[Any, bytes], Any], Callable[[Any], Any]]] = {
    "string": (lambda pipe, key: pipe.get(key), lambda value: value),
    "list": (lambda pipe, key: pipe.lrange(key, 0, -1), lambda value: value),
    "hash": (lambda pipe, key: pipe.hgetall(key), lambda value: sorted(value.items())),
    "set": (lambda pipe, key: pipe.smembers(key), sorted),
    "zset": (lambda pipe, key: pipe.zrange(key, 0, -1, withscores=True), lambda value: value),
    "stream": (lambda pipe, key: pipe.xrange(key), lambda value: value),
}


def _values(client: Any, keys: list[bytes]) -> list[tuple[str, Any, Any]]:
    """(type, value, time of expiry) of each key, asked for in two round trips: fingerprints are taken hundreds of times."""
    pipe = client.pipeline(transaction=False)
    for key in keys:
        pipe.type(key)
    kinds = [kind.decode() for kind in pipe.execute()]
    for key, kind in zip(keys, kinds):
        _READ[kind][0](pipe, key)
        pipe.execute_command("PEXPIRETIME", key)
    answers = pipe.execute()
    return [(kind, _READ[kind][1](value), end) for kind, value, end in zip(kinds, answers[::2], answers[1::2])]


def _group_state(client: Any, key: bytes, items: Any) -> Any:
    """The items of a stream with what its consumer groups know."""
    groups = client.xinfo_groups(key)
    pending = [client.xpending_range(key, group["name"], "-", "+", 100) for group in groups]
    return (
        items, client.xinfo_stream(key)["last-generated-id"], sorted(map(str, groups)),
        [[(item["message_id"], item["consumer"], item["times_delivered"]) for item in items] for items in pending],
    )


def _answers(client: Any) -> bool:
    import redis

    try:
        return bool(client.ping())
    except redis.exceptions.RedisError:
        return False


class AppendOnlyRedisKit(RedisKit):
    """The same with append-only files, which such a server prefers to a dump."""

    appendonly = True


class FilesKit(Kit):
    """A tree with links, holes, attributes and names of all sorts."""

    type = "files"

    def __init__(self) -> None:
        self.home = processes.private_dir("files")
        self.path = os.path.join(self.home, "tree")
        os.mkdir(self.path, 0o750)

    @property
    def config(self) -> dict[str, Any]:
        return {"type": self.type, "path": self.path}

    def _write(self, name: str | bytes, data: bytes) -> None:
        with open(os.path.join(os.fsencode(self.path), os.fsencode(name)), "wb") as handle:
            handle.write(data)

    def fill(self) -> None:
        os.makedirs(f"{self.path}/a/b/empty")
        for number in range(20):
            self._write(f"a/file {number}", bytes([number]) * (number * 5000))
        self._write(b"odd \xff\n name", b"not UTF-8")
        os.link(f"{self.path}/a/file 1", f"{self.path}/a/b/hard link")
        os.symlink("../nowhere", f"{self.path}/a/dangling")
        with open(f"{self.path}/sparse", "wb") as handle:
            handle.seek(5_000_000)
            handle.write(b"end")
        os.chmod(f"{self.path}/a/file 2", 0o640)
        os.setxattr(f"{self.path}/a/file 3", "user.note", b"x\x00y")
        os.utime(f"{self.path}/a/file 4", ns=(1, 1_234_567_890_123_456_789))

    def change(self) -> None:
        self._write("a/new", b"new content")

    def damage(self) -> None:
        os.unlink(f"{self.path}/a/file 5")
        self._write("a/file 6", b"damaged")

    def lose(self) -> None:
        shutil.rmtree(self.path)

    def damage_staged(self, record: dict[str, Any]) -> None:
        with open(os.path.join(record["staged"], "a/file 7"), "r+b") as handle:
            handle.write(b"!")

    def fingerprint(self) -> Any:
        if not os.path.isdir(self.path):
            return None
        found = []
        for directory, names, files in os.walk(os.fsencode(self.path)):
            for path in [directory, *(os.path.join(directory, name) for name in names + files)]:
                status = os.lstat(path)
                content: Any = os.readlink(path) if os.path.islink(path) else None
                if os.path.isfile(path) and not os.path.islink(path):
                    with open(path, "rb") as handle:
                        content = handle.read()
                attributes = {} if os.path.islink(path) else {name: os.getxattr(path, name) for name in os.listxattr(path)}
                time = 0 if os.path.islink(path) else status.st_mtime_ns
                links = status.st_nlink if os.path.isfile(path) else 0
                found.append((os.path.relpath(path, os.fsencode(self.path)), status.st_mode, status.st_uid, status.st_gid, time, links, content, attributes))
        return sorted(set(map(repr, found))), "files"

    def leftovers(self) -> list[str]:
        return sorted(set(os.listdir(self.home)) - {"tree"})

    def destroy(self) -> None:
        processes.remove(self.home)


#: name -> kit; the conformance suite runs over all of them.
KITS: dict[str, Callable[[], Kit]] = {
    "files": FilesKit,
    "postgresql": ClusterKit,
    "postgresql_database": PostgresKit,
    "redis": RedisKit,
    "redis-aof": AppendOnlyRedisKit,
}
