# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PostgreSQL versions of other Debian releases, beside the system's own and without installing anything.

Their programs come from the mirror that this machine's own apt sources name. apt checks signatures and checksums against the
Debian keyring, with lists, status and cache of its own in .dev; dpkg-deb unpacks, and patchelf makes the programs run with the
libraries (libc too) of their release. It needs no root. tests/lab/postgres.py finds what lies in .dev/postgresql.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import places

#: major version -> (Debian release that has it, is it needed). Where the mirror has an old release no more, the checks do without.
RELEASES = {17: ("trixie", True), 13: ("bullseye", False)}
SERVERS = places.DEV / "postgresql"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
#: Libraries of compiled queries and of other languages: large, loaded on demand only, and never demanded here.
NOT_NEEDED = ("libllvm", "libperl", "libpython")


class NotToBeHad(Exception):
    """Why a version cannot be fetched on this machine."""


def missing() -> list[int]:
    """Versions that neither the system nor an earlier set-up has. A checkout that was moved counts as new: the programs know their place."""
    found = []
    for major in RELEASES:
        place = SERVERS / str(major)
        known = place / "place"
        here = known.exists() and known.read_text(encoding="utf-8") == str(place)
        given_up = (SERVERS / f"{major}.not").exists() and not RELEASES[major][1]
        if not here and not given_up and not Path(f"/usr/lib/postgresql/{major}/bin/initdb").exists():
            found.append(major)
    return found


def complete(log: Path, told: Callable[[str], None]) -> None:
    """Fetch what is missing. What cannot be had is told: the checks then run on the versions at hand, and one of them fails for a needed one."""
    SERVERS.mkdir(exist_ok=True)
    for major in missing():
        try:
            told(fetch(major, log))
        except (NotToBeHad, OSError, subprocess.SubprocessError) as error:
            told(f"PostgreSQL {major} of Debian {RELEASES[major][0]} is not to be had: {error}")
            (SERVERS / f"{major}.not").write_text(f"{error}\n", encoding="utf-8")


def run(argv: list[str], log: Path, cwd: Path, configuration: Path | None = None) -> str:
    """Standard output; what went wrong is in the log, the first line of it in the error."""
    environment = {**os.environ, "LC_ALL": "C.UTF-8", **({"APT_CONFIG": str(configuration)} if configuration else {})}
    done = subprocess.run(argv, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600, check=False)
    with log.open("a", encoding="utf-8") as handle:
        handle.write(f"$ {' '.join(argv)}\n{done.stdout[-4000:]}{done.stderr}")
    if done.returncode != 0:
        raise NotToBeHad(f"{argv[0]} ended with {done.returncode}: {(done.stderr.strip().splitlines() or ['it said nothing'])[0]}")
    return done.stdout


def mirror(log: Path) -> str:
    """The Debian archive of this machine's apt sources."""
    for program in ("apt-get", "apt-cache", "dpkg-deb"):
        if shutil.which(program) is None:
            raise NotToBeHad(f"{program} not found, and it comes as a Debian package")
    system = platform.freedesktop_os_release()
    listing = run(["apt-get", "indextargets", "--format", "$(RELEASE) $(COMPONENT) $(REPO_URI)", "Created-By: Packages"], log, places.ROOT)
    for line in listing.splitlines():
        release, component, address = line.split(" ", 2)
        if (release, component) == (system.get("VERSION_CODENAME"), "main") and system.get("ID") == "debian":
            return address.rstrip("/")
    raise NotToBeHad("no apt source of this machine is a Debian archive")


def configure(folder: Path, address: str, release: str) -> Path:
    """An apt of its own: one source, no installed packages, nothing of the system's but proxies and transports."""
    for name in ("lists/partial", "cache/archives/partial", "debs", "parts"):
        (folder / name).mkdir(parents=True)
    (folder / "status").touch()
    (folder / "one.sources").write_text(
        f"Types: deb\nURIs: {address}\nSuites: {release}\nComponents: main\nSigned-By: {KEYRING}\n", encoding="utf-8")
    configuration = folder / "apt.conf"
    settings = {
        "Dir::State": folder, "Dir::State::Lists": folder / "lists", "Dir::State::Status": folder / "status", "Dir::Cache": folder / "cache",
        "Dir::Etc::SourceList": folder / "one.sources", "Dir::Etc::SourceParts": folder / "parts", "Dir::Etc::Preferences": folder / "none",
        "Dir::Etc::PreferencesParts": folder / "parts", "Acquire::Languages": "none", "APT::Sandbox::User": "root", "Acquire::Retries": "3",
        "APT::Update::Error-Mode": "any",  # an index that cannot be fetched is an error, not a warning
    }
    configuration.write_text("".join(f'{name} "{value}";\n' for name, value in settings.items()), encoding="utf-8")
    return configuration


def needed(roots: list[str], graph: str) -> list[str]:
    """The packages that hold the programs and their libraries, from what `apt-cache depends --recurse` printed."""
    follows: dict[str, list[str]] = {}
    package = ""
    for line in graph.splitlines():
        if line and not line[0].isspace():
            package = line.strip()
            follows.setdefault(package, [])
        elif match := re.match(r" [ |](?:Pre)?Depends: (\S+)", line):
            follows[package].append(match[1])
    found: list[str] = []
    waiting = list(roots)
    while waiting:
        package = waiting.pop()
        if package in found:
            continue
        found.append(package)
        waiting += [name for name in follows.get(package, []) if name.startswith(("lib", "zlib")) and not name.startswith(NOT_NEEDED) and name in follows]
    return sorted(found)


def make_runnable(root: Path, major: int) -> None:
    """Loader and libraries of their own release, by absolute paths; no attempt to compile queries."""
    loaders = [path for pattern in ("lib/*/ld-linux*.so.*", "usr/lib/*/ld-linux*.so.*") for path in sorted(root.glob(pattern))]
    if not loaders:
        raise NotToBeHad("the unpacked libc has no loader")
    libraries = sorted({str(path.parent) for folder in ("lib", "usr/lib") for path in root.glob(f"{folder}/*/lib*.so*")})
    home = root / "usr" / "lib" / "postgresql" / str(major)
    programs = [path for path in sorted((home / "bin").iterdir()) if path.is_file() and path.read_bytes()[:4] == b"\x7fELF"]
    patchelf = str(places.VENV / "bin" / "patchelf")
    # RPATH and not RUNPATH: it also holds for the libraries' libraries and for what the server loads later
    subprocess.run([patchelf, "--force-rpath", "--set-rpath", ":".join(libraries), *map(str, programs)], check=True, timeout=300)
    subprocess.run([patchelf, "--set-interpreter", str(loaders[0]), *map(str, programs)], check=True, timeout=300)
    (home / "lib" / "llvmjit.so").unlink(missing_ok=True)
    shutil.rmtree(home / "lib" / "bitcode", ignore_errors=True)


def fetch(major: int, log: Path) -> str:
    """Put the programs of one version into .dev/postgresql/MAJOR; its stamp comes last. Returns what came."""
    place, release = SERVERS / str(major), RELEASES[major][0]
    folder = SERVERS / f"fetching-{major}"
    for old in (folder, place):
        if old.exists():
            shutil.rmtree(old)
    try:
        configuration = configure(folder, mirror(log), release)
        run(["apt-get", "update"], log, folder, configuration)
        roots = [f"postgresql-{major}", f"postgresql-client-{major}"]
        packages = needed(roots, run(["apt-cache", "depends", "--recurse", "--important", *roots], log, folder, configuration))
        run(["apt-get", "download", *packages], log, folder / "debs", configuration)
        for package in sorted((folder / "debs").glob("*.deb")):
            run(["dpkg-deb", "-x", str(package), str(place)], log, folder)
        make_runnable(place, major)
        version = run([str(place / "usr" / "lib" / "postgresql" / str(major) / "bin" / "postgres"), "--version"], log, folder).strip()
        for part in ("usr/share/doc", "usr/share/locale", "usr/share/man"):
            shutil.rmtree(place / part, ignore_errors=True)
        (place / "place").write_text(str(place), encoding="utf-8")
        return f"{version}, {len(packages)} packages of {release}"
    finally:
        shutil.rmtree(folder, ignore_errors=True)
