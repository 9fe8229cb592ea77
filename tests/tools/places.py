# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the development tools keep their things, and the environment they run in."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / ".venv"
#: Git-ignored folder of tools: the checkout seen as a collection, a home for ansible-test, downloads, stamps.
DEV = ROOT / ".dev"
HOME = DEV / "home"
COLLECTION = DEV / "ansible_collections" / "lifeboat" / "recovery"
OUTPUT = ROOT / "tests" / "output"


def link_checkout() -> None:
    """Show the checkout under the path that Ansible expects of a collection."""
    COLLECTION.parent.mkdir(parents=True, exist_ok=True)
    wanted = os.path.relpath(ROOT, COLLECTION.parent)
    if COLLECTION.is_symlink() and os.readlink(COLLECTION) == wanted:
        return
    temporary = COLLECTION.with_name(f".link-{os.getpid()}")
    temporary.symlink_to(wanted)
    os.replace(temporary, COLLECTION)


def search_path() -> str:
    """PATH with the virtual environment first and real interpreters instead of version managers' shims.

    A shim is on PATH for every version, works only for the chosen one, and so breaks whoever looks for pythonX.Y.
    """
    first = [str(VENV / "bin")]
    last: list[str] = []
    kept: list[str] = []
    for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
        path = Path(folder)
        if path.name != "shims":
            kept.append(folder)
            continue
        last += sorted(str(found) for found in path.parent.glob("versions/*/bin"))
    interpreter = VENV / "bin" / "python"
    if interpreter.exists():
        first.append(str(interpreter.resolve().parent))
    ordered = dict.fromkeys(item for item in [*first, *kept, "/usr/sbin", "/sbin", *last] if item)
    return os.pathsep.join(ordered)


def environment() -> dict[str, str]:
    """The environment of every check: this checkout's collection, its virtual environment, a UTF-8 locale."""
    result = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "PYTEST_", "MOLECULE_", "LIFEBOAT_"))}
    result.update(
        PATH=search_path(),
        VIRTUAL_ENV=str(VENV),
        LC_ALL="C.UTF-8",
        ANSIBLE_COLLECTIONS_PATH=str(DEV),
        ANSIBLE_HOME=str(HOME / ".ansible"),
        ANSIBLE_NOCOLOR="1",
    )
    return result


def ansible_test_environment() -> dict[str, str]:
    """As environment(), with the private HOME that ansible-test's own virtual environments see."""
    return {**environment(), "HOME": str(HOME), "ANSIBLE_TEST_CONTENT_ROOT": str(COLLECTION)}


def pip_settings(listing: str, variables: dict[str, str]) -> str:
    """pip.conf text that stands for what `pip config list` printed and for the proxy and certificate variables.

    Only HOME, PATH and LC_* reach the virtual environments of ansible-test; a pip.conf in HOME is the one way in.
    Settings from the environment win over those from files, as in pip itself.
    """
    sections: dict[str, dict[str, str]] = {"global": {}}
    for origin in ("file", "environment"):
        for line in listing.splitlines():
            match = re.match(r"(:env:|[\w-]+)\.([\w-]+)=(.*)$", line)
            if match is None or (match[1] == ":env:") != (origin == "environment"):
                continue
            section = "global" if match[1] == ":env:" else match[1]
            if match[2] != "config-file":
                sections.setdefault(section, {})[match[2]] = str(ast.literal_eval(match[3]))
    for option, names in (("proxy", ("HTTPS_PROXY", "https_proxy")), ("cert", ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"))):
        for name in names:
            if variables.get(name) and option not in sections["global"]:
                sections["global"][option] = variables[name]
    text = ""
    for section, options in sections.items():
        text += f"[{section}]\n"
        for option, value in options.items():
            text += f"{option} = " + value.strip().replace("\n", "\n    ") + "\n"
    return text


def prepare_home() -> None:
    """Fill the private HOME: pip settings, pip bootstrap from the standard library, git that accepts this checkout."""
    cache = HOME / ".ansible" / "test" / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(Path(__file__).with_name("get_pip_24_2.py"), cache / "get_pip_24_2.py")
    # `stdout=PIPE` and not a file: the settings may hold an index address with a password
    listing = subprocess.run(
        [str(VENV / "bin" / "python"), "-m", "pip", "config", "list"], check=True, stdout=subprocess.PIPE, text=True, timeout=120
    ).stdout
    config = HOME / ".config" / "pip" / "pip.conf"
    config.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(config, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as handle:
        handle.write(pip_settings(listing, dict(os.environ)))
    (HOME / ".gitconfig").write_text(f"[safe]\n    directory = {ROOT}\n    directory = {COLLECTION}\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit("places.py is a library of tests/tools")
