# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The map of the shop: its services and stores, where everything lives, and the variables and secrets of one home."""

from __future__ import annotations

import base64
import grp
import hashlib
import hmac
import json
import os
import pwd
import random
import secrets
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HOST = "127.0.0.1"
SUPERUSER = "postgres"

#: Service -> the services it cannot work without. The order is a valid start order.
REQUIRES: dict[str, tuple[str, ...]] = {
    "identity": (),
    "inventory": (),
    "orders": ("identity", "inventory"),
    "payments": ("orders",),
    "sessions": ("identity",),
    "gateway": ("orders", "payments", "sessions"),
}

#: PostgreSQL cluster -> its databases (each named as the service that owns it).
CLUSTERS: dict[str, tuple[str, ...]] = {
    "pg-shared": ("identity", "inventory"),
    "pg-orders": ("orders",),
    "pg-payments": ("payments",),
}
STORES = (*CLUSTERS, "redis")
CLUSTER_OF = {database: cluster for cluster, databases in CLUSTERS.items() for database in databases}

#: Roles that log in; every one has a password in credentials.yml.
LOGINS = (SUPERUSER, "identity_app", "inventory_app", "orders_app", "payments_app", "shop_reporting")


class ShopError(Exception):
    """One line for whoever runs the shop: ``what: where; remedy``."""


@dataclass(frozen=True)
class Account:
    """Who the stores and apps run as. change: True when this process is root and has to become that user."""

    name: str
    uid: int
    gid: int
    change: bool

    def popen(self) -> dict[str, Any]:
        """The arguments of subprocess.Popen that make the child run as this user."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []} if self.change else {}

    def own(self, *paths: Path) -> None:
        """Give paths to this user."""
        if self.change:
            for path in paths:
                os.chown(path, self.uid, self.gid, follow_symlinks=False)


def account(name: str | None = None) -> Account:
    """The user to run as: ``name`` (default nobody) as root, always the own user otherwise."""
    if os.geteuid() != 0:
        own = pwd.getpwuid(os.geteuid())
        if name not in (None, own.pw_name):
            raise ShopError(f"only root can run the shop as another user: {name}; leave out --user")
        return Account(own.pw_name, own.pw_uid, own.pw_gid, False)
    try:
        entry = pwd.getpwnam(name or "nobody")
        grp.getgrgid(entry.pw_gid)
    except KeyError:
        raise ShopError(f"no such user or group: {name or 'nobody'}; name an unprivileged one with --user") from None
    if entry.pw_uid == 0:
        raise ShopError("PostgreSQL refuses to run as root: --user root; name an unprivileged user")
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, True)


class Home:
    """One shop on disk: DIR/variables.yml (flat, no secret), DIR/credentials.yml and DIR/pgpass (0600), data below."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.variables = _read_flat(path / "variables.yml", "run `ctl.py setup` first")
        self._credentials: dict[str, Any] | None = None

    def __getitem__(self, name: str) -> Any:
        return self.variables[name]

    @property
    def credentials(self) -> dict[str, Any]:
        """Login role or "redis" -> password."""
        if self._credentials is None:
            self._credentials = _read_flat(self.path / "credentials.yml", "run as the user who set the shop up")
        return self._credentials

    @property
    def account(self) -> Account:
        return account(str(self["user"]) if os.geteuid() == 0 else None)

    def port(self, name: str) -> int:
        """The loopback port of a service or store."""
        return int(self[f"{name.replace('-', '_')}_port"])

    def data(self, store: str) -> Path:
        """The data directory of a store."""
        return Path(str(self[f"{store.replace('-', '_')}_data"]))

    def log(self, name: str) -> Path:
        return self.path / "log" / f"{name}.log"

    def url(self, service: str) -> str:
        return f"http://{HOST}:{self.port(service)}"

    @property
    def invoices(self) -> Path:
        return Path(str(self["invoices"]))

    def dsn(self, database: str, role: str = SUPERUSER) -> dict[str, Any]:
        """Arguments of psycopg2.connect for a database of the shop (or "postgres:<cluster>" for a cluster's own)."""
        name, _separator, cluster = database.partition(":")
        cluster = cluster or CLUSTER_OF[name]
        return {
            "host": HOST, "port": self.port(cluster), "dbname": name, "user": role,
            "password": self.credentials[role], "connect_timeout": 5, "application_name": "shop-ctl",
        }

    def environment(self) -> dict[str, str]:
        """A clean environment for stores and their tools: nothing of the caller's, passwords by file only."""
        return {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(self.path), "LC_ALL": "C.UTF-8", "TZ": "UTC", "PGPASSFILE": str(self["pgpass"])}

    def program(self, name: str) -> str:
        """Path of a PostgreSQL program."""
        return os.path.join(str(self["pg_bin"]), name)


def create(path: Path, user: str | None) -> Home:
    """Make the directories, variables and credentials of a new home. Refuses one that is set up already."""
    who = account(user)
    path = Path(os.path.abspath(path))
    if (path / "variables.yml").exists():
        raise ShopError(f"there is a shop already: {path}; use it, or `ctl.py down --purge --home {path}` first")
    pg_bin, redis_server = find_postgresql(), find_redis()
    _check_reachable(path, who)
    make_reachable(path)
    # The home itself, its logs and pid files stay with whoever runs this; what the stores keep is theirs.
    for name in ("log", "run", "data", "conf", "srv"):
        (path / name).mkdir(exist_ok=True)
        (path / name).chmod(0o755)
        if name in ("data", "conf", "srv"):
            who.own(path / name)
    srv = path / "srv"
    names = [*STORES, *REQUIRES]
    variables: dict[str, Any] = {
        "home": str(path), "python": sys.executable, "ctl": str(Path(__file__).resolve().parent.parent / "ctl.py"),
        "user": who.name, "host": HOST, "pg_bin": pg_bin, "pg_superuser": SUPERUSER, "pgpass": str(path / "pgpass"),
        "redis_server": redis_server,
        "pg_password_file": str(path / "conf" / "postgres.password"), "redis_password_file": str(path / "conf" / "redis.password"),
        "invoices": str(srv / "invoices"),
    }
    variables.update({f"{name.replace('-', '_')}_port": port for name, port in zip(names, free_ports(len(names)))})
    variables.update({f"{store.replace('-', '_')}_data": str(path / "data" / store) for store in STORES})
    credentials = {name: secrets.token_urlsafe(18) for name in (*LOGINS, "redis")}
    passfile = "".join(
        f"{HOST}:{variables[cluster.replace('-', '_') + '_port']}:*:{role}:{credentials[role]}\n" for cluster in CLUSTERS for role in LOGINS
    )
    private = {
        path / "credentials.yml": _flat(credentials), path / "pgpass": passfile, path / "conf" / "redis.password": credentials["redis"],
        path / "conf" / "postgres.password": credentials[SUPERUSER], path / "conf" / "postgres.verifier": scram_verifier(credentials[SUPERUSER]),
    }
    for file, text in private.items():
        _write(file, text, 0o600, who if file.parent.name == "conf" else None)
    # Written last: its presence says that the rest is there.
    _write(path / "variables.yml", _flat(variables), 0o644, None)
    return Home(path)


def make_reachable(path: Path) -> None:
    """mkdir -p whose new directories others may pass, whatever the umask."""
    missing = [parent for parent in (path, *path.parents) if not parent.exists()]
    for directory in reversed(missing):
        directory.mkdir()
        directory.chmod(0o755)
    if os.access(path, os.W_OK) and path.stat().st_uid == os.geteuid():
        path.chmod(path.stat().st_mode | 0o711)


def _check_reachable(path: Path, who: Account) -> None:
    """Say which directory keeps the stores' user out. Only root changes user, so only then there is something to check."""
    if not who.change:
        return
    there = next(parent for parent in (path, *path.parents) if parent.exists())
    probe = subprocess.run(["/bin/ls", "-d", f"{there}/."], **who.popen(), cwd="/", capture_output=True, timeout=10, check=False)
    # The home itself is opened by make_reachable.
    if probe.returncode != 0 and there != path:
        closed = next((str(parent) for parent in (*reversed(there.parents), there) if not parent.stat().st_mode & 0o001), str(there))
        raise ShopError(f"user {who.name} cannot reach the home: {closed} is closed to others; use a --home below a directory with mode o+x, such as /var/tmp")


def free_ports(count: int) -> list[int]:
    """Ports on loopback that nobody listens on, below the range from which the kernel picks ports for clients."""
    held: list[socket.socket] = []
    try:
        with open("/proc/sys/net/ipv4/ip_local_port_range", encoding="ascii") as file:
            top = int(file.read().split()[0])
    except OSError:
        top = 32768
    candidates = random.SystemRandom().sample(range(min(15000, top - 5000), top), 2000)
    try:
        for port in candidates:
            server = socket.socket()
            try:
                server.bind((HOST, port))
            except OSError:
                server.close()
                continue
            held.append(server)
            if len(held) == count:
                return [int(server.getsockname()[1]) for server in held]
        raise ShopError("no free ports on loopback: 127.0.0.1; stop what is listening there")
    finally:
        for server in held:
            server.close()


def scram_verifier(password: str) -> str:
    """What PostgreSQL stores for a password. Kept, so that a server made anew has the same, salt included."""
    salt, rounds = secrets.token_bytes(16), 4096
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, rounds)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    salt_text, stored_text, server_text = (base64.b64encode(part).decode() for part in (salt, stored, server))
    return f"SCRAM-SHA-256${rounds}:{salt_text}${stored_text}:{server_text}"


def find_postgresql() -> str:
    """The directory of the newest installed PostgreSQL server's programs."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda item: int(item.parts[-3]) if item.parts[-3].isdigit() else 0)
    initdb = str(found[-1]) if found else shutil.which("initdb")
    if not initdb:
        raise ShopError("PostgreSQL's server programs are missing: initdb; install the package postgresql (Debian, Ubuntu)")
    return os.path.dirname(os.path.realpath(initdb))


def find_redis() -> str:
    program = shutil.which("redis-server", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin")
    if not program:
        raise ShopError("Redis is missing: redis-server; install the package redis-server (Debian, Ubuntu)")
    return program


def _write(path: Path, text: str, mode: int, owner: Account | None) -> None:
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        os.fchmod(file.fileno(), mode)
    if owner is not None:
        owner.own(temporary)
    os.replace(temporary, path)


def _flat(values: dict[str, Any]) -> str:
    # A JSON scalar is a YAML scalar too, so no YAML library is needed here.
    return "".join(f"{name}: {json.dumps(value)}\n" for name, value in values.items())


def _read_flat(path: Path, remedy: str) -> dict[str, Any]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ShopError(f"cannot read the shop's settings: {path} ({error.strerror}); {remedy}") from None
    pairs = (line.split(": ", 1) for line in lines if ": " in line and not line.startswith("#"))
    return {name: json.loads(value) for name, value in pairs}
