# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is done to the members of a fleet on their host: ``inside.py make|prepare|serve|start|stop|content|alter|damage``, members as a JSON list on
standard input.

make: stores with data, and the service's folder. prepare: as make, but without data, as a new machine is set up. start, stop: processes of
services, whatever they require. serve: the database servers that have data, as a machine starts them when it boots. content: prints
{service: digest}, which is the same if and only if the data is. alter: the data becomes another one, named by ``"mark"``, and the service is well
with it. damage: the data is lost and the service killed; a database server that ``"lost"`` is said of is gone too.
Uses nothing of the collection.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
from tests.lab import harbour, postgres, processes, small_service
from tests.lab.redis_server import RedisServer

Told = dict[str, Any]
DATABASE = "shop"


def has_files(member: Told) -> bool:
    return member["kind"] in ("files", "private")


def database(member: Told) -> str:
    """Which database is the member's; "" for none."""
    return {"database": member["name"].replace("-", "_"), "cluster": DATABASE, "private": DATABASE}.get(member["kind"], "")


def server(member: Told) -> postgres.Postgres:
    return postgres.Postgres(member["server_folder"], member["server"])


def redis(member: Told) -> RedisServer:
    return RedisServer(member["server_folder"], member["server"])


def folder(path: str, ours: bool = False) -> None:
    os.makedirs(path, exist_ok=True)
    who = processes.account()
    if ours and who is not None:
        os.chown(path, *who)


def prepare(member: Told) -> None:
    """The folders, and what belongs to the host and not to the data: passwords, a server's configuration, a stateless service whole."""
    folder(member["folder"])
    if not has_files(member):
        fill_files(member, 0)
    if database(member) and not os.path.exists(server(member).password_file):
        folder(server(member).home, True)
        keep(server(member).password_file, postgres.PASSWORD)
    elif member["kind"] == "redis":
        folder(redis(member).home, True)
        redis(member).init()


def keep(path: str, password: str) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="utf-8") as handle:
        handle.write(password + "\n")
    who = processes.account()
    if who is not None:
        os.chown(path, *who)


def fill_files(member: Told, items: int) -> None:
    data = Path(member["folder"]) / "data"
    folder(str(data / "items"))
    for number in range(items):
        (data / "items" / f"item{number}").write_text(f"{member['name']} {number}\n" * 50, encoding="utf-8")
    (data / "count").write_text(str(items), encoding="utf-8")
    (data / "state").write_text("good", encoding="utf-8")


def make(member: Told) -> None:
    prepare(member)
    if has_files(member):
        fill_files(member, member["items"])
    if database(member):
        cluster = server(member)
        if not os.path.exists(cluster.data):
            cluster.init().start()
        cluster.sql(f"CREATE DATABASE {database(member)}")
        cluster.sql("CREATE TABLE items (id int PRIMARY KEY, note text NOT NULL)", database(member))
        cluster.sql("INSERT INTO items SELECT n, repeat(md5(n::text), 10) FROM generate_series(1, %s) n", database(member), (member["items"],))
    elif member["kind"] == "redis":
        with redis(member).start().client() as client:
            client.mset({f"item:{number}": f"{member['name']} {number}" * 9 for number in range(member["items"])})
            client.set("count", member["items"])


def start(member: Told) -> None:
    small_service.start(member["folder"], f"{member['address']}:{member['port']}", [])


def stop(member: Told) -> None:
    small_service.stop(member["folder"])


def content(member: Told) -> str:
    found: list[Any] = []
    if has_files(member):
        tree = harbour.tree(Path(member["folder"]) / "data")
        if not tree:
            return "absent"
        found.append(sorted(tree.items()))
    if database(member):
        cluster = server(member)
        if cluster.pid() is None or not cluster.sql("SELECT 1 FROM pg_database WHERE datname = %s", parameters=(database(member),)):
            return "absent"
        found.append(cluster.sql("SELECT * FROM items ORDER BY id", database(member)))
    elif member["kind"] == "redis":
        if redis(member).pid() is None:
            return "absent"
        with redis(member).client() as client:
            found.append(sorted((name, client.get(name)) for name in client.scan_iter()))
    return hashlib.sha256(repr(found).encode()).hexdigest()


def serve(member: Told) -> None:
    if database(member) and os.path.exists(server(member).data) and server(member).pid() is None:
        server(member).start()
    elif member["kind"] == "redis" and redis(member).pid() is None:
        redis(member).start()


def alter(member: Told) -> None:
    """Once more of what there is: a former state can be told from the captured one, and from every other former one."""
    if has_files(member):
        (Path(member["folder"]) / "data" / "mark").write_text(str(member["mark"]), encoding="utf-8")
    if database(member):
        server(member).sql("UPDATE items SET note = %s WHERE id = 1", database(member), (str(member["mark"]),))
    elif member["kind"] == "redis":
        with redis(member).client() as client:
            client.set("item:0", str(member["mark"]))
            client.save()  # it keeps nothing by itself that a machine which loses its power would still have


def damage(member: Told) -> None:
    stop(member)
    if has_files(member):
        shutil.rmtree(Path(member["folder"]) / "data")
    if member["kind"] in ("cluster", "private"):
        server(member).wipe()
    elif member["kind"] == "database":
        if member.get("lost"):
            if os.path.exists(server(member).data):
                server(member).wipe()
        else:
            server(member).sql(f"DROP DATABASE {database(member)} WITH (FORCE)")
    elif member["kind"] == "redis":
        redis(member).wipe()


def main(verb: str) -> None:
    answers = {}
    for member in json.load(sys.stdin):
        verbs = {"make": make, "prepare": prepare, "serve": serve, "start": start, "stop": stop, "content": content, "alter": alter, "damage": damage}
        answers[member["name"]] = verbs[verb](member)
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1])
