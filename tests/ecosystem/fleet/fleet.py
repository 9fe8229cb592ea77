# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A fleet of services on the hosts of a lab, with its catalog, repository and keys, and the playbooks that an operator would run over ssh.

    with Lab() as lab, Fleet(lab, hosts=("db1", "db2", "app1"), services=24, depth=6) as fleet:
        fleet.bootstrap(); fleet.backup()                     # both raise AssertionError with the output when they fail
        before = fleet.content()                              # {service: digest}; {"x": "absent"} when it has none
        fleet.damage("store-00", "core-04"); fleet.destroy()  # data lost and service killed; all of it, database servers too
        outcome = fleet.restore("-e", "lifeboat_services=core-04")     # Outcome of tests/lab/harbour.py: code, text, verdicts(), changed(), …
        going = fleet.begin("restore"); going.await_phase("edge-16", "cutover"); lab.cut("app1"); outcome = going.wait()
        going.kill()                                          # the controller is lost: kill -9 of the playbook and its workers
        fleet.member("core-04").host, fleet.on("db1"), fleet.usable("core-04"), fleet.ledger("core-04"), fleet.cutovers("core-04")
        lab.kill("db1"); lab.wipe("db1"); lab.up("db1"); fleet.equip("db1")   # a new machine gets the keys and the empty folders again

repository: ``directory`` is a folder that every host sees, as of a file server; ``s3`` is a real store in the controller's place (or give a
catalog entry of your own). ``waits``: {service: path}: its database server is not provisioned before that file exists on its host.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Optional

import yaml

from ...lab import harbour, host_disk, network, postgres, processes, seaweed
from ...lab.harbour import Outcome
from ...lab.hosts import Lab
from .shape import Member, shape

HERE = Path(__file__).parent
LAB = host_disk.ROOT / "tests" / "lab"
SHARE = "/srv/backups"
KEYS, PRIVATE_KEYS = "/etc/lifeboat/keys", "/etc/lifeboat/private"
BUCKET = "fleet"
#: Seconds after which a playbook counts as hung.
LIMIT = 900


class Playing:
    """A playbook that runs in the controller's place."""

    def __init__(self, process: subprocess.Popen[bytes], output: IO[bytes], runs: Path, before: set[str]) -> None:
        self.process, self._output, self._runs, self._before = process, output, runs, before

    @property
    def directory(self) -> Optional[Path]:
        """Its run directory as soon as there is one."""
        new = sorted({path.name for path in self._runs.iterdir()} - self._before) if self._runs.is_dir() else []
        return self._runs / new[-1] if new else None

    def marks(self) -> list[dict[str, Any]]:
        """What the run has noted so far of phases and waits: {service, phase, event, …}."""
        path = self.directory and self.directory / "timings.jsonl"
        if not path or not path.exists():
            return []
        # the last line may just be being written
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]

    def await_phase(self, service: str, phase: str, event: str = "start", limit: float = LIMIT) -> None:
        """Return as soon as a service begins (``event="end"``: has ended) a phase; an error when the playbook ends before."""
        def there() -> bool:
            found = any((mark["service"], mark["phase"], mark["event"]) == (service, phase, event) for mark in self.marks())
            if not found and self.process.poll() is not None:
                raise AssertionError(f"it ended before {service} came to {phase} {event}:\n{self.text()}")
            return found

        processes.wait_for(there, f"{service} {phase} {event}", limit)

    def text(self) -> str:
        self._output.seek(0)
        return self._output.read().decode("utf-8", "replace")

    def kill(self) -> None:
        """The controller is gone, without a word."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(30)
        self._output.close()

    def wait(self, limit: float = LIMIT) -> Outcome:
        """How it went."""
        try:
            code = self.process.wait(limit)
        except BaseException:
            self.kill()
            raise
        found = Outcome(code, self.text()).with_run(self._runs, self._before)
        self._output.close()
        return found


class Fleet:
    """Use it as a context manager: entering boots the hosts that are down, makes the stores, starts the services."""

    def __init__(
        self, lab: Lab, hosts: Sequence[str] = ("db1", "db2", "app1"), services: int = 24, depth: int = 6, islands: int = 2,
        repository: str | Mapping[str, Any] = "directory", waits: Optional[Mapping[str, str]] = None, ordinary: Iterable[str] = (),
        members: Optional[list[Member]] = None, forks: int = 0,
    ) -> None:
        """ordinary: hosts that are reached as an ordinary user who becomes root. forks: as many as services unless given."""
        self.lab, self.hosts, self.waits, self.ordinary = lab, tuple(hosts), dict(waits or {}), tuple(ordinary)
        self.members = {member.name: member for member in members or shape(hosts, services, depth, islands)}
        self.forks = forks or len(self.members)
        self.home = lab.home / "fleet"
        self.inventory, self.runs = self.home / "inventory", self.home / "runs"
        self._kind = repository
        self._store: Optional[seaweed.Seaweed] = None
        self._programs = postgres.bin_dir()
        self.catalog: dict[str, Any] = {}

    def __enter__(self) -> Fleet:
        try:
            shared = self.lab.share(SHARE)
            shared.chmod(0o755)
            self.lab.up(*self.hosts)
            for member in self.members.values():
                member.address = self.lab.host(member.host).address
            self.inventory.mkdir(parents=True, exist_ok=True)
            repository = self._repository()
            self.catalog = {
                "plugin": "lifeboat.recovery.catalog", "ecosystem": "fleet", "repositories": {"main": repository},
                "keys": {"provider": "file", "path": KEYS, "private_path": PRIVATE_KEYS},
                "services": {name: self.entry(member) for name, member in self.members.items()},
            }
            self.write()
            self._inside("make", self.members)
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_exception: object) -> None:
        if self._store is not None:
            self._store.__exit__()
            self._store = None
        shutil.rmtree(self.home, ignore_errors=True)

    # -- the catalog ---------------------------------------------------------------------------------------------------

    def write(self) -> None:
        """The inventory an operator has: machines, and the catalog as it is now."""
        more = {name: {"ansible_user": host_disk.USER, "ansible_become": True} for name in self.ordinary}
        for name, document in (("hosts.yml", self.lab.inventory(self.hosts, more)), ("fleet.catalog.yml", self.catalog)):
            (self.inventory / name).write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")

    def _repository(self) -> dict[str, Any]:
        if not isinstance(self._kind, str):
            return dict(self._kind)
        if self._kind == "directory":
            return {"url": f"file://{SHARE}/repository"}
        with self.lab.network.inside():
            self._store = seaweed.Seaweed(address=network.ADDRESS)
            self._store.start()
            config = self._store.config(BUCKET)
            _client(self._store).create_bucket(Bucket=BUCKET)
        del config["name"]
        for option in ("ca_file", "credentials_file"):
            config[option] = self._distribute(Path(config[option]))
        return config

    def _distribute(self, path: Path) -> str:
        """The same file on every host."""
        for name in self.hosts:
            there = self.lab.host(name).path(f"/etc/lifeboat/{path.name}")
            there.write_bytes(path.read_bytes())
            there.chmod(0o600)
        return f"/etc/lifeboat/{path.name}"

    def entry(self, member: Member) -> dict[str, Any]:
        """The catalog entry of one service."""
        url = self.url(member.name)
        program = [host_disk.python(), "-I", "-S", str(LAB / "small_service.py")]
        place = [member.folder, f"{member.address}:{member.port}"]
        invariants: list[dict[str, Any]] = [{"name": "every item is there", "http": f"{url}/audit", "json": "missing", "equals": 0}]
        if member.kind in ("database", "cluster", "private"):
            invariants.append({"name": "every row is there", "sql": "select count(*) from items", "equals": member.items,
                               **({} if member.kind == "database" else {"database": "shop"})})
        elif member.kind == "redis":
            invariants.append({"name": "every key is there", "redis": ["GET", "count"], "equals": str(member.items)})
        return {
            "owner": "team-fleet", "host": member.host, "requires": list(member.requires), "sources": self._sources(member),
            "runtime": {
                "start": [*program, "start", *place, *(f"{self.url(name)}/health" for name in member.requires)],
                "stop": [*program, "stop", *place], "status": [*program, "status", *place],
            },
            "health": [{"http": f"{url}/health"}], "invariants": invariants, "policy": {"start": {"timeout": "60s"}, "health": {"timeout": "60s"}},
        }

    def _sources(self, member: Member) -> dict[str, Any]:
        sources: dict[str, Any] = {}
        if member.kind in ("files", "private"):
            sources["files"] = {"type": "files", "path": f"{member.folder}/data"}
        if member.kind in ("cluster", "private", "database"):
            argv = {verb: [host_disk.python(), str(LAB / "postgres.py"), verb, member.server_folder, str(member.server), self._programs]
                    for verb in ("start", "stop", "status", "provision")}
            provision = argv.pop("provision")
            if member.name in self.waits:
                provision = [host_disk.python(), str(HERE / "after.py"), self.waits[member.name], *provision]
            common = {"port": member.server, "password_file": f"{member.server_folder}/password", "data_directory": f"{member.server_folder}/data",
                      "server": argv, "bin_dir": self._programs}
            if member.kind == "database":
                sources["db"] = {"type": "postgresql_database", "database": member.name.replace("-", "_"), "provision": provision, **common}
            else:
                sources["db"] = {"type": "postgresql", **common}
        elif member.kind == "redis":
            argv = {verb: [host_disk.python(), str(LAB / "redis_server.py"), verb, member.server_folder, str(member.server)]
                    for verb in ("start", "stop", "status", "provision")}
            sources["cache"] = {"type": "redis", "port": member.server, "password_file": f"{member.server_folder}/password",
                                "provision": argv.pop("provision"), "server": argv}
        return sources

    # -- services ------------------------------------------------------------------------------------------------------

    def member(self, service: str) -> Member:
        return self.members[service]

    def on(self, host: str) -> list[str]:
        """The services of a host."""
        return [name for name, member in self.members.items() if member.host == host]

    def url(self, service: str) -> str:
        return f"http://{self.members[service].address}:{self.members[service].port}"

    def usable(self, service: str) -> bool:
        """Whether it answers that it is well, asked over the network from the controller's place."""
        with self.lab.network.inside():
            return harbour.answers_well(f"{self.url(service)}/health")

    def _inside(self, verb: str, services: Iterable[str], **more: Any) -> dict[str, Any]:
        """Do something to services on their hosts, with one process per host; what it answered."""
        told: dict[str, list[dict[str, Any]]] = {}
        for name in services:
            told.setdefault(self.members[name].host, []).append({**self.members[name].told(), **more})
        answers: dict[str, Any] = {}
        for host, members in told.items():
            done = self.lab.host(host).sh(host_disk.python(), str(HERE / "inside.py"), verb, text=json.dumps(members), limit=300)
            answers.update(json.loads(done.stdout))
        return answers

    def start(self, *services: str) -> None:
        self._inside("start", services or self.members)

    def content(self, *services: str) -> dict[str, str]:
        """service -> digest of all its data, read without the collection; "absent" when a store is gone."""
        return {name: str(digest) for name, digest in self._inside("content", services or self.members).items()}

    def serve(self, *hosts: str) -> None:
        """Database servers that have data and do not run are started, as a machine does when it boots; of all hosts by default."""
        self._inside("serve", [name for host in hosts or self.hosts for name in self.on(host)])

    def alter(self, mark: str, *services: str) -> None:
        """Their data becomes another one, with which they are well; another one for each mark."""
        self._inside("alter", services or self.members, mark=mark)

    def damage(self, *services: str) -> None:
        """Their data is lost, and they are killed; a database server shared with others goes on."""
        self._inside("damage", services)

    def destroy(self, *services: str) -> None:
        """As damage(), of all by default, and the servers of their databases are lost as well."""
        self._inside("damage", services or self.members, lost=True)

    def release(self, *services: str) -> None:
        """What ``waits`` for services is there from now on; hold() takes it away again."""
        for name in services:
            self.lab.host(self.members[name].host).path(self.waits[name]).touch()

    def hold(self, *services: str) -> None:
        for name in services:
            self.lab.host(self.members[name].host).path(self.waits[name]).unlink(missing_ok=True)

    # -- what hosts know -----------------------------------------------------------------------------------------------

    def ledger(self, service: str) -> list[dict[str, Any]]:
        """The entries of a service's ledger on its host."""
        path = self.lab.host(self.members[service].host).path(f"/var/lib/lifeboat/services/{service}/ledger.jsonl")
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []

    def cutovers(self, service: str, event: str = "cutover.done") -> list[str]:
        """The sources that were cut over (or whatever the event says of them), in order, once per time."""
        return [str((entry.get("data") or {}).get("source")) for entry in self.ledger(service) if entry["event"] == event]

    def keep_keys(self) -> None:
        """Copies of what the hosts hold, as an administrator keeps them elsewhere."""
        for name in self.hosts:
            for folder in (KEYS, PRIVATE_KEYS):
                shutil.copytree(self.lab.host(name).path(folder), self.home / "kept" / name / folder.lstrip("/"), dirs_exist_ok=True)

    def equip(self, *hosts: str) -> None:
        """A new machine gets keys, credentials and folders of database servers, with no data in them."""
        for name in hosts:
            host = self.lab.host(name)
            shutil.copytree(self.home / "kept" / name / "etc", host.path("/etc"), dirs_exist_ok=True)
            if self._store is not None:
                self._distribute(Path(self._store.ca_file))
                self._distribute(Path(self._store.home) / "owner.credentials")
            self._inside("prepare", self.on(name))

    # -- the playbooks -------------------------------------------------------------------------------------------------

    def begin(self, verb: str, *arguments: str, forks: int = 0, controller: str = "") -> Playing:
        """Start one verb of the collection, as an operator would. controller: name of another machine from which it is done, with runs of its own."""
        return self.command(
            [f"lifeboat.recovery.{verb}", "-i", str(self.inventory), "--forks", str(forks or self.forks),
             "-e", f"lifeboat_runs={self.home / controller / 'runs'}", *arguments], controller)

    def command(self, words: Sequence[str], controller: str = "") -> Playing:
        """Start ansible-playbook with these arguments; those of a command that a run has told will do."""
        place = self.home / controller
        runs = place / "runs"
        runs.mkdir(parents=True, exist_ok=True)
        before = {path.name for path in runs.iterdir()}
        output = tempfile.TemporaryFile(dir=place)
        argv = [str(Path(sys.executable).with_name("ansible-playbook")), *words]
        if controller:
            argv = ["unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', controller, *argv]
        process = self.lab.popen(argv, stdout=output, stderr=subprocess.STDOUT, cwd=place, env=harbour.environment(self.home))
        return Playing(process, output, runs, before)

    def play(self, verb: str, *arguments: str, forks: int = 0) -> Outcome:
        return self.begin(verb, *arguments, forks=forks).wait()

    def succeed(self, verb: str, *arguments: str, forks: int = 0) -> Outcome:
        """As play(), but it must end in success."""
        found = self.play(verb, *arguments, forks=forks)
        assert found.code == 0, f"{verb} ended with {found.code}:\n{found.text}"
        return found

    def bootstrap(self) -> Outcome:
        """Repository, keys, host command on every host."""
        found = self.succeed("bootstrap", "-e", "lifeboat_log_units=false")
        self.keep_keys()
        return found

    def backup(self, *arguments: str) -> Outcome:
        return self.succeed("backup", *arguments)

    def restore(self, *arguments: str, forks: int = 0) -> Outcome:
        """It may fail: look at code and verdicts()."""
        return self.play("restore", *arguments, forks=forks)


def _client(store: seaweed.Seaweed) -> Any:
    import boto3

    return boto3.client("s3", endpoint_url=store.endpoint, verify=store.ca_file, aws_access_key_id=seaweed.OWNER[0],
                        aws_secret_access_key=seaweed.OWNER[1], region_name="us-east-1")
