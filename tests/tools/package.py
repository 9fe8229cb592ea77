# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Build the collection from what is committed or about to be, and look at what came out.

The tarball must hold every plugin, role, playbook and document, and nothing of the workshop; it is small;
it installs; and the installed copy answers to ansible-doc.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import places

#: Top-level names a user gets. A new one is added here on purpose or left out by build_ignore in galaxy.yml.
SHIPPED = {
    "CHANGELOG.md", "FILES.json", "LICENSE", "MANIFEST.json", "README.md", "ansible.cfg", "changelogs", "docs", "inventories", "meta", "playbooks",
    "plugins", "requirements-controller.txt", "requirements.txt", "roles",
}
NEEDED = {"LICENSE", "README.md", "MANIFEST.json", "meta", "playbooks", "plugins", "requirements.txt", "roles"}
LARGEST = 2 * 1024 * 1024


def run(argv: list[str], **more: str) -> str:
    env = {**places.environment(), **more}
    done = subprocess.run(argv, env=env, cwd=places.ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300, check=False)
    if done.returncode != 0:
        print(done.stdout)
        raise SystemExit(f"{' '.join(argv)} ended with {done.returncode}")
    return done.stdout


def main() -> int:
    problems: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        run(["ansible-galaxy", "collection", "build", "--output-path", folder, "."])
        (tarball,) = Path(folder).glob("*.tar.gz")
        size = tarball.stat().st_size
        with tarfile.open(tarball) as archive:
            names = archive.getnames()
        top = {name.split("/")[0] for name in names}
        problems += [f"does not belong in the tarball: {name}; see build_ignore in galaxy.yml" for name in sorted(top - SHIPPED)]
        problems += [f"missing in the tarball: {name}" for name in sorted(NEEDED - top)]
        problems += [f"cache in the tarball: {name}" for name in names if "__pycache__" in name or name.endswith(".pyc") or "_cache/" in name]
        if size > LARGEST:
            problems.append(f"the tarball has {size} bytes, more than {LARGEST}")
        # --force: this checkout counts as an installed copy already
        run(["ansible-galaxy", "collection", "install", "--force", "--no-deps", "-p", folder, str(tarball)])
        modules = [path.stem for path in (places.ROOT / "plugins" / "modules").glob("[a-z]*.py")]
        listed = run(["ansible-doc", "--list", "lifeboat.recovery"], ANSIBLE_COLLECTIONS_PATH=folder) if modules else ""
        problems += [f"ansible-doc does not list {name}" for name in modules if f"lifeboat.recovery.{name}" not in listed]
    for problem in problems:
        print(problem)
    print(f"{len(names)} files, {size} bytes, {len(modules)} modules installed from the tarball")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
