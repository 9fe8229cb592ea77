# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Several hosts on one machine, reached over ssh, with a network that has no way out. Needs root, iproute2, util-linux, openssh-server.

    with Lab() as lab:
        lab.up("db1", "db2", "app1")                       # they answer ssh when it returns
        lab.run(["ansible", "-i", "hosts.yml", …])          # a command in the controller's place; also: with lab.network.inside(): …
        lab.host("db1").sh("id", "-un").stdout              # a command as root on a host; .path("/etc/x") reads and writes its files
        lab.kill("db1"); lab.up("db1")                      # power loss: all processes die at once, the disk stays
        lab.stop("db1")                                     # a clean shutdown
        lab.kill("db1"); lab.wipe("db1"); lab.up("db1")     # lost with its disk: a new machine of that name, address and host key
        lab.cut("db1"); lab.block("db1", "app1"); lab.slow("db1", 10); lab.heal()   # network; heal() without a name heals all
        lab.hang("db1"); lab.resume("db1")                  # sshd stands still (SIGSTOP); hang("db1", "") stops every process of the host
        lab.disk("db1", "/srv", 40)                         # before up(): a disk of 40 MB there, which outlives kill()
        lab.fill("db1", "/srv"); lab.empty("db1", "/srv")   # that disk is full; has room again
        lab.inventory()                                     # {"all": {…}} for a hosts.yml: addresses, key, known_hosts, interpreter

A host is an overlay over this machine's own root in its own network, mount, pid, uts and ipc namespaces: it has PostgreSQL, Redis and the checkout's
.venv of the machine, and a private and empty /etc/lifeboat, /home, /root, /run, /srv, /tmp, /var/lib, /var/log, /var/tmp. What it writes stays in
HOME/hosts/NAME/upper. It has root and an ordinary user (`deploy`, who may sudo). Process 1 keeps sshd running; there is no
systemd.

Labs of several processes do not see each other. What a killed process left is removed by the next Lab(). Nothing outlives down().
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

from . import host_disk, network, processes

BOOT = Path(__file__).with_name("host_boot.py")
#: Where labs live: on a disk, and hidden from the hosts.
PLACE = "/var/tmp"
PREFIX = "lifeboat-lab-"
#: Seconds a host may take to answer ssh, and to end.
LIMIT = 60


class LabError(Exception):
    """Why there is no lab, and what to do."""


class Host:
    """One host. It is up or down; its files are there in both cases."""

    def __init__(self, lab: Lab, name: str, index: int) -> None:
        self.lab, self.name, self.index = lab, name, index
        self.home = lab.home / "hosts" / name
        self.address = network.address(index)

    @property
    def pid(self) -> int:
        """Its process 1 as this machine numbers it; 0 when it is down."""
        text = processes.kept(str(self.home / "pid"))
        return int(text) if text and processes.alive(int(text)) else 0

    def path(self, inside: str) -> Path:
        """One of its files: through the host while it is up, on its disk (what it wrote itself) while it is down."""
        pid = self.pid
        return (Path(f"/proc/{pid}/root") if pid else self.home / "upper") / inside.lstrip("/")

    def enter(self) -> list[str]:
        """The beginning of a command that runs as root on the host, without ssh and with nothing of this machine's environment."""
        if not self.pid:
            raise LabError(f"{self.name} is down")
        return ["nsenter", "-t", str(self.pid), "-m", "-u", "-i", "-n", "-p", "-r", "-w", "--", "env", "-i",
                f"PATH={host_disk.ROOT}/.venv/bin:{host_disk.PATH}", "HOME=/root", "LC_ALL=C.UTF-8", f"TERM={os.environ.get('TERM', 'dumb')}"]

    def sh(self, *argv: str, limit: float = 60, check: bool = True, text: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command as root on the host, without ssh; ``text`` is its standard input."""
        done = subprocess.run(
            [*self.enter(), *argv], input=text, capture_output=True, text=True, timeout=limit, check=False, start_new_session=True,
        )
        if check and done.returncode != 0:
            raise RuntimeError(f"{self.name}: {' '.join(argv)} ended with {done.returncode}: {(done.stderr or done.stdout).strip()[-2000:]}")
        return done

    def processes(self, word: str = "") -> list[int]:
        """Its processes by this machine's numbers, process 1 not among them; those with ``word`` in their command line."""
        own = self.pid
        return [pid for pid in _processes(word, os.readlink(f"/proc/{own}/ns/pid")) if pid != own] if own else []


class Lab:
    """A network and its hosts below one folder. ``home`` of an earlier lab goes on with that one; with it the lab outlives this process."""

    def __init__(self, home: Optional[Path] = None) -> None:
        if os.geteuid() != 0:
            raise LabError("hosts have namespaces and mounts, which only root can make: run this as root")
        missing = [name for name in ("ip", "tc", "nsenter", "unshare", "sshd", "ssh-keygen") if not shutil.which(name, path=host_disk.PATH)]
        if missing:
            raise LabError(f"missing programs: {', '.join(missing)}; apt-get install iproute2 util-linux openssh-server")
        if home is None:
            sweep()
        self.lasting = home is not None
        self.home = home or Path(tempfile.mkdtemp(prefix=PREFIX, dir=PLACE))
        self.home.mkdir(parents=True, exist_ok=True)
        self._file = self.home / "lab.json"
        self._known: dict[str, Any] = json.loads(self._file.read_text(encoding="utf-8")) if self._file.exists() else {}
        if not self._known:
            self._known = {"network": f"lb{os.urandom(4).hex()}", "hosts": {}, "disks": {}, "shares": {}}
            host_disk.write(self.home / "owner", "" if self.lasting else _identity(os.getpid()))
            self._save()
        self.network = network.Network(self._known["network"])
        self.key = self.home / "keys" / "controller"
        #: Where ssh keeps connections: the path of a socket is short, and two labs have the same addresses.
        self.sockets = Path("/tmp") / self.network.name
        #: Of the hosts that this process booted: what waits for their process 1.
        self._parents: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.down()

    def _save(self) -> None:
        host_disk.write(self._file, json.dumps(self._known, indent=1))

    # -- hosts -----------------------------------------------------------------------------------------------------

    @property
    def hosts(self) -> dict[str, Host]:
        """name -> host, of all that ever were up."""
        return {name: Host(self, name, index) for name, index in self._known["hosts"].items()}

    def host(self, name: str) -> Host:
        return Host(self, name, self._known["hosts"][name])

    def up(self, *names: str) -> None:
        """Boot hosts, new ones or those that are down, and wait until they answer ssh."""
        self.network.create()
        for name in names:
            if name not in self._known["hosts"]:
                self._known["hosts"][name] = len(self._known["hosts"]) + 1
        self._save()
        self._write_keys()
        for name in names:
            host = self.host(name)
            if not host.pid:
                self.network.join(name, host.index)
                host_disk.prepare(host.home / "upper", host.address, self.home / "keys", name)
                self._boot(host)
        for name in names:
            self._await_ssh(self.host(name))

    def _boot(self, host: Host) -> None:
        for folder in ("upper", "work", "root"):
            (host.home / folder).mkdir(exist_ok=True)
        (host.home / "pid").unlink(missing_ok=True)
        binds = [*host_disk.needed(), *([folder, where, True] for where, folder in self._known["shares"].items()),
                 *([str(host.home / "disks" / str(number)), where, True] for number, where in enumerate(self._known["disks"].get(host.name, {})))]
        spec = {
            "name": host.name, **{part: str(host.home / part) for part in ("upper", "work", "root")}, "binds": binds, "pid_file": str(host.home / "pid"),
            "init": [host_disk.python(), "-I", "-S", str(BOOT), "init"],
            "hosts": {other.name: other.address for other in self.hosts.values()},
        }
        host_disk.write(host.home / "spec.json", json.dumps(spec))
        with open(host.home / "console", "wb") as console:
            # of our own process group unless the lab is to last: whoever ends this process with its group ends the hosts too
            self._parents[host.name] = subprocess.Popen(
                ["nsenter", f"--net=/run/netns/{self.network.of(host.name)}", "unshare", "--mount", "--uts", "--ipc", "--pid", "--fork",
                 "--propagation", "private", "--", host_disk.python(), "-I", "-S", str(BOOT), "boot", str(host.home / "spec.json")],
                stdin=subprocess.DEVNULL, stdout=console, stderr=console, cwd="/", start_new_session=self.lasting,
            )

    def _await_ssh(self, host: Host) -> None:
        def answers() -> bool:
            if (host.home / "pid").exists() and not host.pid:
                said = processes.kept(str(host.home / "console"))[-1500:]
                self._parents.pop(host.name).wait(LIMIT)
                raise LabError(f"{host.name} did not boot: {said}\nIt needs a root that overlayfs takes as its lower layer, and {self.home} on a file "
                               "system that can be the upper one (ext4, xfs, btrfs, tmpfs; no overlay)")
            with self.network.inside(), contextlib.suppress(OSError):
                return _greeting(host.address).startswith(b"SSH-")
            return False

        processes.wait_for(answers, f"sshd of {host.name}; see {host.home}/console", LIMIT)

    def _write_keys(self) -> None:
        """The controller's key pair, one per host, and what the controller knows of the hosts: host key checking stays on."""
        folder = self.home / "keys"
        folder.mkdir(mode=0o700, exist_ok=True)
        for name in ("controller", *(f"host-{name}" for name in self._known["hosts"])):
            if not (folder / name).exists():
                network.command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(folder / name))
        lines = [f"{host.address},{host.name} {' '.join((folder / f'host-{host.name}.pub').read_text().split()[:2])}\n" for host in self.hosts.values()]
        host_disk.write(self.home / "known_hosts", "".join(lines))

    # -- faults ----------------------------------------------------------------------------------------------------

    def kill(self, name: str) -> None:
        """Power loss: process 1 is killed, and all others with it. What was written stays."""
        self._end(self.host(name), signal.SIGKILL)

    def stop(self, name: str) -> None:
        """A clean shutdown."""
        self._end(self.host(name), signal.SIGTERM)

    def _end(self, host: Host, how: int) -> None:
        pid = host.pid
        if pid:
            os.kill(pid, how)
            processes.wait_for(lambda: not processes.alive(pid), f"the end of {host.name}", LIMIT)
        if host.name in self._parents:
            self._parents.pop(host.name).wait(LIMIT)

    def wipe(self, name: str) -> None:
        """The disks of a host that is down are lost; up() makes a new machine of the same name."""
        host = self.host(name)
        if host.pid:
            raise LabError(f"{name} is up; kill it first")
        for folder in ("upper", "work"):
            shutil.rmtree(host.home / folder, ignore_errors=True)
        for number in range(len(self._known["disks"].get(name, {}))):
            for entry in [*(host.home / "disks" / str(number)).iterdir()]:
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()

    def cut(self, name: str) -> None:
        """Nothing reaches the host any more, and nothing comes from it; its processes go on."""
        self.network.cut(self.host(name).index)

    def block(self, one: str, other: str) -> None:
        """Two hosts do not reach each other any more."""
        self.network.block((one, self.host(one).index), (other, self.host(other).index))

    def slow(self, name: str, mbit: float) -> None:
        """The host's link, in both directions."""
        self.network.slow(self.host(name).index, mbit)
        self.network.slow_sending(name, mbit)

    def heal(self, *names: str) -> None:
        """Undo cut, block and slow, of all hosts unless some are named."""
        for name in names or tuple(self._known["hosts"]):
            if self.network.exists(self.network.of(name)):
                self.network.heal(name, self.host(name).index)

    def hang(self, name: str, word: str = "sshd") -> list[int]:
        """Processes with ``word`` in their command line stand still: sshd and its sessions, or with "" everything. Returns them."""
        found = self.host(name).processes(word)
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        return found

    def resume(self, name: str) -> None:
        """Whatever stands still goes on."""
        for pid in self.host(name).processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def disk(self, name: str, where: str, megabytes: int) -> None:
        """A disk of this size at a path of a host that is not up yet."""
        disks = self._known["disks"].setdefault(name, {})
        place = self.home / "hosts" / name / "disks" / str(len(disks))
        place.mkdir(parents=True)
        network.command("mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=755", "lifeboat-lab", str(place))
        disks[where] = megabytes
        self._save()

    def fill(self, name: str, where: str, leave: int = 0) -> None:
        """A disk made by disk() is full, up to ``leave`` bytes."""
        place = self._disk(name, where)
        room = os.statvfs(place)
        with open(place / ".filler", "wb") as handle:
            os.posix_fallocate(handle.fileno(), 0, max(1, room.f_bavail * room.f_frsize - leave))

    def empty(self, name: str, where: str) -> None:
        """What fill() wrote goes."""
        (self._disk(name, where) / ".filler").unlink(missing_ok=True)

    def _disk(self, name: str, where: str) -> Path:
        return self.home / "hosts" / name / "disks" / str(list(self._known["disks"][name]).index(where))

    def share(self, where: str) -> Path:
        """A folder that all hosts booted from now on see at ``where``, like one of a file server; returns it as the machine sees it."""
        folder = self.home / "shares" / str(len(self._known["shares"]))
        self._known["shares"].setdefault(where, str(folder))
        found = Path(self._known["shares"][where])
        found.mkdir(parents=True, exist_ok=True)
        self._save()
        return found

    # -- the controller --------------------------------------------------------------------------------------------

    def popen(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Start a command in the controller's place, in a process group of its own."""
        with self.network.inside():
            return subprocess.Popen([*argv], **{"stdin": subprocess.DEVNULL, "start_new_session": True, **options})

    def run(self, argv: Sequence[str], limit: float = 180, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command in the controller's place; output and errors together in stdout. It does not raise for its exit code."""
        with tempfile.TemporaryFile() as output:  # what it leaves running would keep a pipe open
            process = self.popen(argv, stdout=output, stderr=subprocess.STDOUT, **options)
            try:
                code = process.wait(limit)
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(10)
                raise
            output.seek(0)
            return subprocess.CompletedProcess([*argv], code, output.read().decode("utf-8", "replace"))

    def inventory(
        self, names: Iterable[str] = (), variables: Optional[Mapping[str, Mapping[str, Any]]] = None, outside: bool = False,
    ) -> dict[str, Any]:
        """An Ansible inventory of the hosts (all by default) as root; ``variables``: more for single hosts. outside: for controllers that are not
        started by run(), and so not on the bridge."""
        common = {
            "ansible_user": "root", "ansible_ssh_private_key_file": str(self.key), "ansible_python_interpreter": host_disk.python(),
            "ansible_ssh_common_args": f"-o UserKnownHostsFile={self.home}/known_hosts -o GlobalKnownHostsFile=/dev/null -o StrictHostKeyChecking=yes "
                                       "-o IdentitiesOnly=yes",
            "ansible_control_path_dir": str(self.sockets),
        }
        if outside:
            host_disk.write(self.home / "ssh", f'#!/bin/sh\nexec nsenter --net=/run/netns/{self.network.name} ssh "$@"\n', 0o755)
            common["ansible_ssh_executable"] = str(self.home / "ssh")
        chosen = {
            name: {"ansible_connection": "ssh", "ansible_host": self.host(name).address, **(variables or {}).get(name, {})}
            for name in names or self._known["hosts"]
        }
        return {"all": {"hosts": chosen, "vars": common}}

    def ssh(self, name: str) -> list[str]:
        """The beginning of an ssh command to a host; for run()."""
        return ["ssh", "-i", str(self.key), "-o", f"UserKnownHostsFile={self.home}/known_hosts", "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes",
                "-o", "ConnectTimeout=10", f"root@{self.host(name).address}"]

    # -- the end ---------------------------------------------------------------------------------------------------

    def down(self) -> None:
        """Stop every host, remove the network and every file. Can be repeated."""
        for pid in _processes(f"{self.sockets}/"):  # connections that ssh keeps open for the next task
            processes.end(pid)
        for host in self.hosts.values():
            self._end(host, signal.SIGKILL)
        self.network.remove()
        for name, disks in self._known["disks"].items():
            for number in range(len(disks)):
                place = self.home / "hosts" / name / "disks" / str(number)
                if place.is_mount():
                    network.command("umount", "--lazy", str(place))
        _remove(self.sockets)
        _remove(self.home)


def sweep() -> None:
    """Remove labs whose process was killed before it could."""
    for home in Path(PLACE).glob(f"{PREFIX}*"):
        owner = processes.kept(str(home / "owner"))
        if owner and owner != _identity(int(owner.split()[0])):
            with contextlib.suppress(FileNotFoundError):  # somebody else is at it
                os.rename(home / "owner", home / "removing")
                Lab(home).down()


def _identity(pid: int) -> str:
    """A process by number and time of start; "" when it is gone."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return f"{pid} {Path(f'/proc/{pid}/stat').read_text(errors='replace').rpartition(')')[2].split()[19]}"
    return ""


def _processes(word: str, namespace: str = "") -> list[int]:
    """Processes with the word in their command line, of one namespace of process numbers if it is given."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):  # it has ended, or is not to be looked at
                if namespace in ("", os.readlink(f"/proc/{name}/ns/pid")) and word.encode() in Path(f"/proc/{name}/cmdline").read_bytes():
                    found.append(int(name))
    return found


def _greeting(address: str) -> bytes:
    with socket.create_connection((address, 22), timeout=5) as connection:
        return connection.recv(64)


def _remove(home: Path) -> None:
    """A mount namespace that is just ending may still hold a folder for a moment."""
    def gone() -> bool:
        shutil.rmtree(home, ignore_errors=True)
        return not home.exists()

    processes.wait_for(gone, f"{home} to be removed", LIMIT)
