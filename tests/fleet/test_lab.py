# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab itself: hosts that do not see each other's disks, and every fault does what it says and can be undone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from ansible_collections.lifeboat.recovery.tests.lab import hosts, network, processes
from ansible_collections.lifeboat.recovery.tests.lab.hosts import Lab


def answers(lab: Lab, name: str) -> bool:
    """Whether the host does what it is told over ssh, from the controller's place."""
    words = lab.ssh(name)
    return lab.run([*words[:-1], "-o", "ConnectTimeout=3", "-o", "ConnectionAttempts=1", words[-1], "true"]).returncode == 0


def reaches(lab: Lab, name: str, other: str) -> bool:
    script = f"import socket; socket.create_connection(('{lab.host(other).address}', 22), timeout=3)"
    return lab.host(name).sh("python", "-c", script, check=False).returncode == 0


def test_hosts_share_nothing_and_every_fault_can_be_undone() -> None:
    with Lab() as lab:
        lab.disk("b", "/srv", 8)
        lab.up("a", "b")
        one, two = lab.host("a"), lab.host("b")
        assert one.sh("hostname").stdout.strip() == "a" and "b" in one.sh("cat", "/etc/hosts").stdout.split()
        one.sh("touch", "/var/lib/mine", "/etc/mine")
        with tempfile.NamedTemporaryFile(dir="/tmp") as marker:  # not in the checkout, which hosts see
            assert two.sh("ls", "/var/lib/mine", "/etc/mine", marker.name, check=False).stdout == ""
        assert not Path("/var/lib/mine").exists() and not Path("/etc/mine").exists()
        assert one.sh("sudo", "-u", "deploy", "sudo", "id", "-u").stdout.strip() == "0"
        routes = one.sh("ip", "route").stdout + lab.run(["ip", "route"]).stdout
        assert routes and "default" not in routes and lab.run([*lab.ssh("a"), "hostname"]).stdout.strip() == "a"

        lab.cut("a")
        assert not answers(lab, "a") and answers(lab, "b") and one.pid
        lab.heal("a")
        lab.block("a", "b")
        assert answers(lab, "a") and answers(lab, "b") and not reaches(lab, "a", "b") and not reaches(lab, "b", "a")
        lab.heal()
        assert answers(lab, "a") and reaches(lab, "a", "b") and reaches(lab, "b", "a")
        lab.slow("a", 5)
        assert "rate 5Mbit" in lab.run(["tc", "qdisc", "show", "dev", f"v{one.index}"]).stdout and "rate 5Mbit" in one.sh("tc", "qdisc", "show").stdout
        lab.heal("a")
        assert "tbf" not in one.sh("tc", "qdisc", "show").stdout
        assert lab.hang("a") and not answers(lab, "a")
        lab.resume("a")
        assert answers(lab, "a")

        lab.fill("b", "/srv")
        write = ["python", "-c", "open('/srv/more', 'wb').write(b'x' * 100000)"]
        assert "No space left" in two.sh(*write, check=False).stderr
        lab.empty("b", "/srv")
        two.sh(*write)

        beside = subprocess.Popen([*two.enter(), "sh", "-c", "echo there; exec sleep 600"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        assert beside.stdout is not None and beside.stdout.readline() == b"there\n"
        lab.kill("b")
        beside.stdout.close()
        assert beside.wait(30) == -signal.SIGKILL and two.pid == 0 and not answers(lab, "b")
        with pytest.raises(hosts.LabError, match="b is down"):
            two.sh("true")
        lab.up("b")
        assert answers(lab, "b") and two.path("/srv/more").stat().st_size == 100000
        lab.stop("a")
        assert one.pid == 0 and (one.home / "upper" / "etc" / "mine").exists()
        lab.wipe("a")
        lab.kill("b")
        lab.wipe("b")
        lab.up("a", "b")
        assert answers(lab, "a") and not one.path("/etc/mine").exists() and not two.path("/srv/more").exists()
        home, names = lab.home, [lab.network.name, lab.network.of("a"), lab.network.of("b")]
        known = [one.pid, two.pid]
    assert not home.exists() and not any(network.Network(name).exists(name) for name in names) and not any(map(processes.alive, known))


LEFT = """
import os, signal, sys
sys.path.insert(0, {root!r})
from tests.lab.hosts import Lab
lab = Lab()
lab.disk("a", "/srv", 2)
lab.up("a")
print(lab.home, lab.network.name, lab.host("a").pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_is_removed_by_the_next_lab() -> None:
    done = subprocess.run([sys.executable, "-c", LEFT.format(root=str(hosts.host_disk.ROOT))], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    home, name, pid = done.stdout.split()
    assert processes.alive(int(pid)) and os.path.exists(f"/run/netns/{name}")
    Lab().down()
    assert not os.path.exists(home) and not os.path.exists(f"/run/netns/{name}") and not processes.alive(int(pid))
    assert home not in Path("/proc/mounts").read_text(encoding="utf-8")


def test_the_command() -> None:
    """`make lab` goes on with what an earlier call left, whatever process that was."""
    def call(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(Path(hosts.__file__).with_name("hosts_command.py")), *words]
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False)

    assert call().returncode == 64
    call("down")
    try:
        assert call("up", "one").returncode == 0
        assert call("cut", "two").stderr == "lab: no host of that name: 'two'; make lab ARGS=status\n"
        assert call("sh", "one", "hostname").stdout == "one\n"
        assert call("kill", "one").stdout.split()[:3] == ["one", f"{network.NET}.11", "down"]
        assert "one is down" in call("sh", "one", "hostname").stderr
    finally:
        assert call("down").returncode == 0
