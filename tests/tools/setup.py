# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Set up everything that `make demo`, `make test` and `make bench` need, and nothing twice.

usage: setup.py demo|test|bench

Debian packages are installed when root, and named when not. Python packages go into .venv, versions of PostgreSQL that
this system does not have into .dev. Downloads are
timed apart and written to .dev/setup.json: {"downloads_seconds": float, "seconds": float}.
Runs with the standard library only, on any Python 3.11+.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import places
import servers

#: purpose -> requirement file; each one contains those before it.
REQUIREMENTS = {"demo": "requirements-controller.txt", "bench": "requirements-dev.txt", "test": "requirements-dev.txt"}


def has_program(name: str) -> bool:
    return shutil.which(name, path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin") is not None


def has_postgresql() -> bool:
    """Debian keeps the server's programs out of PATH, one folder per version."""
    servers = [*Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    return (bool(servers) or has_program("initdb")) and (bool(servers) or has_program("pg_dump"))


def has_venv() -> bool:
    return importlib.util.find_spec("ensurepip") is not None


#: (Debian package, what it is for, present?, purposes)
PACKAGES: list[tuple[str, str, Callable[[], bool], set[str]]] = [
    (
        f"python{sys.version_info[0]}.{sys.version_info[1]}-venv" if sys.executable.startswith("/usr/bin") else "python3-venv",
        f"the venv module of {sys.executable}", has_venv, {"demo", "test", "bench"},
    ),
    ("postgresql", "PostgreSQL server and clients (initdb, pg_dump, pgbench)", has_postgresql, {"demo", "test", "bench"}),
    ("redis-server", "redis-server", lambda: has_program("redis-server"), {"demo", "test"}),
    ("openssh-server", "sshd, which the hosts of the lab are reached by", lambda: has_program("sshd"), {"test"}),
    ("sudo", "sudo, with which an ordinary user of these hosts becomes root", lambda: has_program("sudo"), {"test"}),
    ("iproute2", "ip, which makes their network", lambda: has_program("ip"), {"test"}),
    ("git", "git, which tells the checks which files are ours", lambda: has_program("git"), {"test"}),
    ("restic", "restic, the engine that is compared with", lambda: has_program("restic"), {"bench"}),
    ("pgbackrest", "pgBackRest, the other engine that is compared with", lambda: has_program("pgbackrest"), {"bench"}),
]


class Clock:
    """Adds up what was spent on downloads."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.downloads = 0.0

    @contextlib.contextmanager
    def downloading(self, what: str) -> Iterator[None]:
        begun = time.monotonic()
        yield
        spent = time.monotonic() - begun
        self.downloads += spent
        say(f"downloaded {what} in {spent:.1f} s")


def say(text: str) -> None:
    print(f"setup: {text}", flush=True)


def fail(text: str) -> None:
    print(f"setup: {text}", file=sys.stderr)
    raise SystemExit(1)


def run(argv: list[str], log: Path, env: dict[str, str] | None = None) -> None:
    """Run quietly; on failure show the end of the log and stop."""
    with log.open("a", encoding="utf-8") as handle:
        handle.write(f"$ {' '.join(argv)}\n")
        handle.flush()
        code = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=handle, stderr=subprocess.STDOUT, env=env, check=False, timeout=3600).returncode
    if code != 0:
        tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-25:]
        print("\n".join(tail), file=sys.stderr)
        fail(f"{argv[0]} ended with {code}; the whole output is in {log}")


@contextlib.contextmanager
def no_daemons() -> Iterator[None]:
    """Installing a server package must not leave a server running: Debian asks policy-rc.d before it starts one."""
    policy = Path("/usr/sbin/policy-rc.d")
    if policy.exists():
        yield
        return
    policy.write_text("#!/bin/sh\nexit 101\n", encoding="ascii")
    policy.chmod(0o755)
    try:
        yield
    finally:
        policy.unlink()


def install_packages(purpose: str, clock: Clock, log: Path) -> None:
    """Install missing Debian packages as root; otherwise name each of them and stop."""
    missing = [(package, why) for package, why, present, purposes in PACKAGES if purpose in purposes and not present()]
    if not missing:
        return
    names = [package for package, _why in missing]
    debian = has_program("apt-get") and Path("/etc/debian_version").exists()
    if os.geteuid() != 0 or not debian:
        for package, why in missing:
            print(f"setup: missing: {package}: {why}", file=sys.stderr)
        how = f"as root: apt-get install {' '.join(names)}" if debian else "install what this system calls them; the names are Debian's"
        fail(f"{len(missing)} of the needed packages missing: {' '.join(names)}; {how}")
    say(f"installing Debian packages: {' '.join(names)}")
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "PATH": os.environ.get("PATH", os.defpath) + ":/usr/local/sbin:/usr/sbin:/sbin"}
    apt = ["apt-get", "-y", "-q", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300"]
    with clock.downloading("Debian packages"):
        run([*apt, "update"], log, env)
        run([*apt, "install", "--download-only", *names], log, env)
    with no_daemons():
        run([*apt, "install", *names], log, env)


def requirement_text(name: str) -> str:
    """A requirement file with the files it includes."""
    text = (places.ROOT / name).read_text(encoding="utf-8")
    for line in text.splitlines():
        if line.startswith("-r "):
            text += requirement_text(line[3:].strip())
    return text


def stamp_of(purpose: str) -> str:
    text = f"{places.ROOT}\n{sys.version}\n{requirement_text(REQUIREMENTS[purpose])}"
    return hashlib.sha256(text.encode()).hexdigest()


def install_python(purpose: str, clock: Clock, log: Path) -> None:
    """Create or complete .venv. A stamp per purpose, over path, interpreter and requirements, tells when nothing is to do."""
    stamps = places.VENV / ".lifeboat-setup.json"
    python = places.VENV / "bin" / "python"
    done: list[str] = []
    if python.exists() and stamps.exists():
        done = json.loads(stamps.read_text(encoding="utf-8"))
    if stamp_of(purpose) in done or stamp_of("test") in done:
        return
    if not python.exists() or subprocess.run([str(python), "-c", "import pip"], check=False, stderr=subprocess.DEVNULL, timeout=120).returncode != 0:
        say(f"creating .venv with Python {sys.version.split()[0]} ({sys.executable})")
        run([sys.executable, "-m", "venv", "--clear", str(places.VENV)], log)
    requirements = str(places.ROOT / REQUIREMENTS[purpose])
    wheels = str(places.DEV / "wheels")
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "--no-input"]
    say(f"installing Python packages of {REQUIREMENTS[purpose]}")
    with clock.downloading("Python packages"):
        run([*pip, "wheel", "--prefer-binary", "--wheel-dir", wheels, "-r", requirements], log)
    offline = {**os.environ, "PIP_FIND_LINKS": "", "PIP_EXTRA_INDEX_URL": ""}
    run([*pip, "install", "--no-index", "--find-links", wheels, "-r", requirements], log, offline)
    shutil.rmtree(wheels)
    temporary = stamps.with_suffix(".tmp")
    still_true = [stamp_of(other) for other in REQUIREMENTS if stamp_of(other) in done]
    temporary.write_text(json.dumps([*still_true, stamp_of(purpose)]), encoding="utf-8")
    temporary.replace(stamps)


def main(argv: list[str]) -> int:
    if len(argv) != 2 or argv[1] not in REQUIREMENTS:
        print(__doc__, file=sys.stderr)
        return 64
    purpose = argv[1]
    clock = Clock()
    places.DEV.mkdir(exist_ok=True)
    log = places.DEV / "setup.log"
    with (places.DEV / "setup.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        log.write_text("", encoding="utf-8")
        install_packages(purpose, clock, log)
        install_python(purpose, clock, log)
        places.link_checkout()
        if purpose == "test":
            places.prepare_home()
            if servers.missing():
                with clock.downloading("other versions of PostgreSQL"):
                    servers.complete(log, say)
    seconds = time.monotonic() - clock.started
    report = {"downloads_seconds": round(clock.downloads, 1), "seconds": round(seconds, 1)}
    (places.DEV / "setup.json").write_text(json.dumps(report) + "\n", encoding="utf-8")
    say(f"ready in {seconds:.1f} s, of which downloads {clock.downloads:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
