# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A lab of several hosts that lasts until `down`, for trying things by hand: make lab ARGS="COMMAND …", as root.

  up [NAME…]            boot hosts (db1 db2 app1 when none is named) and wait for ssh; writes the inventory
  down                  stop every host, remove everything
  status                who is up, with address, and where the inventory is
  kill NAME…            power loss; the disk stays, `up NAME` boots it again
  stop NAME…            a clean shutdown
  wipe NAME…            power loss, and the disk is lost too
  cut NAME…             pull the network cable
  block NAME NAME       these two do not reach each other
  slow NAME MBIT        limit the link in both directions
  heal [NAME…]          undo cut, block and slow
  hang NAME…            sshd stands still; resume NAME… lets it go on
  sh NAME [COMMAND…]    a shell or a command on the host
  run COMMAND…          a command in the controller's place, on the bridge

The inventory works from anywhere on this machine. LAB_HOME names a folder for a lab besides the one of the checkout.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from pathlib import Path

import yaml

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.lab import host_disk, hosts

NAMES = ("db1", "db2", "app1")
#: One lab per checkout, unless LAB_HOME names another folder.
HOME = Path(os.environ.get("LAB_HOME") or f"{hosts.PLACE}/{hosts.PREFIX}{hashlib.sha256(str(host_disk.ROOT).encode()).hexdigest()[:8]}")
INVENTORY = HOME / "hosts.yml"


def become(lab: hosts.Lab, argv: list[str], inside: bool) -> None:
    """Go on as that command; a terminal stays one."""
    if inside:
        program = shutil.which(argv[0], path=f"{host_disk.ROOT / '.venv' / 'bin'}:{os.environ.get('PATH', os.defpath)}") or argv[0]
        with lab.network.inside():
            os.execve(program, argv, {**os.environ, "ANSIBLE_CONFIG": str(host_disk.ROOT / "ansible.cfg")})
    os.execvp(argv[0], argv)


def status(lab: hosts.Lab) -> None:
    for host in lab.hosts.values():
        print(f"{host.name:<12} {host.address:<14} {'up' if host.pid else 'down'}")
    print(f"inventory: {INVENTORY}" if lab.hosts else 'no hosts; make lab ARGS="up"')


def main(arguments: list[str]) -> int:
    """Run one command."""
    words = arguments[1:]
    known = {"up", "down", "status", "kill", "stop", "wipe", "cut", "block", "slow", "heal", "hang", "resume", "sh", "run"}
    if not arguments or arguments[0] not in known:
        print(__doc__, file=sys.stderr)
        return 64
    verb = arguments[0]
    try:
        lab = hosts.Lab(HOME)
        if verb == "up":
            lab.up(*(words or NAMES))
            INVENTORY.write_text(yaml.safe_dump(lab.inventory(outside=True), sort_keys=False), encoding="utf-8")
        elif verb == "down":
            lab.down()
            return 0
        elif verb == "sh":
            become(lab, [*lab.host(words[0]).enter(), *(words[1:] or ["bash"])], inside=False)
        elif verb == "run":
            become(lab, words, inside=True)
        elif verb == "slow":
            lab.slow(words[0], float(words[1]))
        elif verb == "block":
            lab.block(*words)
        elif verb == "heal":
            lab.heal(*words)
        elif verb != "status":
            for name in words:
                if verb == "wipe":
                    lab.kill(name)
                getattr(lab, verb)(name)
        status(lab)
    except hosts.LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    except KeyError as error:
        print(f"lab: no host of that name: {error}; make lab ARGS=status", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
