# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The demo: an ecosystem of real processes captured, wrecked, restored in order and proven equal.

usage: run.py [--size 10MB] [--keep] [--home DIR] [--catalog DIR]

Exit 0 only when all six services end `verified` and every store is equal to what was captured.
Nothing keeps running, also after a failure or Ctrl-C; the run directories with their reports stay in DIR/runs.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Optional

ROOT = Path(__file__).resolve().parents[2]
CTL = ROOT / "tests" / "ecosystem" / "ctl.py"
CATALOG = ROOT / "inventories" / "demo"
SERVICES = 6
#: Seconds after which a step counts as hung; the slowest takes a tenth of it.
LIMIT = 600
#: Seconds in which the log must be where it should be; it takes one or two.
LOG_LIMIT = 60


class Failure(Exception):
    """A step that did not do what it must; the text is for the person at the prompt."""


class Demo:
    """One demo: its directory, its environment, the times of its steps."""

    def __init__(self, home: Path, size: str, catalog: Path = CATALOG) -> None:
        self.home = home
        self.catalog = catalog
        self.size = size
        self.shop = shop_home(home)
        self.times: list[tuple[str, float]] = []
        self.child: Optional[subprocess.Popen[bytes]] = None
        self.shipper: Optional[subprocess.Popen[bytes]] = None
        self.command = [str(home / "bin" / "lifeboat"), "--config", str(home / "etc")]
        self.environment = {
            "PATH": f"{Path(sys.executable).parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": os.environ.get("HOME") or str(home),
            "TERM": os.environ.get("TERM", "dumb"),
            "LC_ALL": "C.UTF-8",
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".dev"),
            "ANSIBLE_HOME": str(home / "ansible"),
            "SHOP_HOME": str(self.shop),
        }
        if sys.stdout.isatty():
            self.environment["ANSIBLE_FORCE_COLOR"] = "1"

    # -- running things ------------------------------------------------------------------------------------------------

    def run(self, argv: list[str], quiet: bool = False) -> str:
        """Run one command in a process group of its own; its output live, or returned when ``quiet``."""
        self.child = subprocess.Popen(
            argv, cwd=ROOT, env=self.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE if quiet else None,
            stderr=subprocess.STDOUT if quiet else None, start_new_session=True,
        )
        try:
            output = self.child.communicate(timeout=LIMIT)[0] or b""
        except subprocess.TimeoutExpired:
            raise Failure(f"took longer than {LIMIT} s: {' '.join(argv)}") from None
        finally:
            self.stop_child()
        text = output.decode("utf-8", "replace")
        if self.child.returncode:
            raise Failure(f"exit {self.child.returncode}: {' '.join(argv)}\n{text}".rstrip())
        return text

    def stop_child(self) -> None:
        """End what is still running of the last command: politely, then for good."""
        child = self.child
        if child is None or child.poll() is not None:
            return
        for number, patience in ((signal.SIGINT, 10), (signal.SIGTERM, 5), (signal.SIGKILL, 5)):
            try:
                os.killpg(child.pid, number)
                child.wait(patience)
                return
            except subprocess.TimeoutExpired:
                continue
            except ProcessLookupError:
                child.wait(patience)
                return

    def shop_do(self, command: str, *arguments: str, quiet: bool = True) -> str:
        """One command of the ecosystem's control program."""
        return self.run([sys.executable, str(CTL), command, *arguments], quiet)

    def playbook(self, verb: str, *arguments: str) -> None:
        """One verb of the collection, as an operator would call it."""
        self.run([
            str(Path(sys.executable).with_name("ansible-playbook")), f"lifeboat.recovery.{verb}", "-i", str(self.catalog),
            "-e", f"lifeboat_runs={self.home / 'runs'}", *arguments,
        ])

    # -- the log of `orders`, which systemd would keep shipped elsewhere ------------------------------------------------

    def start_shipper(self) -> None:
        """Ship the log of `orders` until the end of the demo."""
        with open(self.home / "shipper.log", "wb") as said:
            self.shipper = subprocess.Popen(
                [*self.command, "log", "run", "orders", "db"], cwd="/", env=self.environment, stdin=subprocess.DEVNULL, stdout=said, stderr=said,
                start_new_session=True,
            )

    def await_log(self, title: str, enough: Callable[[dict[str, Any]], bool]) -> None:
        """Wait until what `lifeboat log status` tells of `orders` is enough."""
        deadline = time.monotonic() + LOG_LIMIT
        while True:
            done = subprocess.run([*self.command, "log", "status", "orders", "--json"], cwd="/", env=self.environment, stdin=subprocess.DEVNULL,
                                  capture_output=True, text=True, timeout=LOG_LIMIT, check=False)
            try:
                told = json.loads(done.stdout)["orders.db"]
            except (ValueError, KeyError):
                told = {"proven": None, "alarms": [(done.stderr or done.stdout).strip()]}
            if enough(told):
                print(f"    proven in the repository: {told['proven']['position']} on timeline {told['proven']['timeline']}", flush=True)
                return
            if time.monotonic() > deadline or self.shipper is None or self.shipper.poll() is not None:
                raise Failure(f"{title}: it did not come to that in {LOG_LIMIT} s: {json.dumps(told)}; see {self.home / 'shipper.log'}")
            time.sleep(0.2)

    def stop_shipper(self) -> None:
        """Let the shipper finish what it has, or end it."""
        if self.shipper is None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                self.shipper.send_signal(number)
                self.shipper.wait(20)
                return
            except subprocess.TimeoutExpired:
                continue

    def step(self, title: str, action: Any, *arguments: Any) -> Any:
        """Do one step and remember how long it took."""
        print(f"\n--- {title}", flush=True)
        begun = time.monotonic()
        result = action(*arguments)
        self.times.append((title, time.monotonic() - begun))
        return result

    # -- the story -----------------------------------------------------------------------------------------------------

    def play(self) -> None:
        before, after = self.home / "before.json", self.home / "after.json"
        self.step("set up the ecosystem: 3 PostgreSQL clusters, Redis, 6 services", self.shop_do, "setup")
        self.step(f"load {self.size} shaped like production", self.shop_do, "load", "--size", self.size)
        self.step("bootstrap: repository, keys, host command", self.playbook, "bootstrap",
                  "-e", f"lifeboat_config_dir={self.home / 'etc'}", "-e", f"lifeboat_command_path={self.home / 'bin' / 'lifeboat'}",
                  "-e", "lifeboat_log_units=false")
        self.start_shipper()
        self.step("backup, full", self.playbook, "backup")
        driven = json.loads(self.step("drive business workflows through the gateway", self.shop_do, "drive", "--seconds", "2"))
        print(f"    {driven.get('workflows')} workflows, {driven.get('errors')} errors")
        self.step("backup, incremental", self.playbook, "backup")
        right = json.loads(self.step("orders: a transaction that must survive", self.shop_do, "commit", "right"))
        self.step("fingerprint of every store", self.shop_do, "fingerprint", "--output", str(before))
        wrong = json.loads(self.step("orders: a transaction by mistake, which deletes all lines of all orders", self.shop_do, "commit", "wrong"))
        print(f"    {wrong['rows']} rows lost")
        self.step("the log of orders is proven in the repository up to the mistake", self.await_log, "log",
                  lambda told: told["proven"] is not None and position(told["proven"]["position"]) >= wrong["position"])
        print(self.step("wreck it", self.shop_do, "wreck"))
        self.step(f"restore to {right['time']}, between the two transactions", self.playbook, "restore", "-e", f"lifeboat_target={right['time']}")
        self.step("fingerprint of every store again", self.shop_do, "fingerprint", "--output", str(after))
        self.step("the log of orders follows the restored cluster", self.await_log, "log after the restore",
                  lambda told: not told["alarms"] and told["proven"] is not None and told["proven"]["timeline"] == 2)
        difference = self.step("compare", self.shop_do, "compare", str(before), str(after)).strip()
        run, verdicts = self.last_restore()
        print(f"\nevery store against what was captured: {difference}")
        print("verdicts: " + ", ".join(f"{service} {verdict}" for service, verdict in sorted(verdicts.items())))
        print(f"report:   {run / 'report.html'}")
        if len(verdicts) != SERVICES or set(verdicts.values()) != {"verified"}:
            raise Failure(f"not all of {SERVICES} services are verified")

    def last_restore(self) -> tuple[Path, dict[str, str]]:
        """The directory of the restore and the verdict of each service in its run.json."""
        found = sorted((self.home / "runs").glob("*-restore-*"))
        if not found:
            raise Failure("the restore left no run directory")
        document = json.loads((found[-1] / "run.json").read_text(encoding="utf-8"))
        services = document["services"]
        rows = services.items() if isinstance(services, dict) else [(row["service"], row) for row in services]
        return found[-1], {name: str(row["verdict"]) for name, row in rows}

    def print_times(self, total: float) -> None:
        """The measured times of the steps; set-up and downloads apart."""
        print("\nmeasured:")
        for title, seconds in self.times:
            print(f"  {seconds:6.1f} s  {title}")
        print(f"  {total:6.1f} s  in all")
        setup = ROOT / ".dev" / "setup.json"
        if setup.exists():
            spent = json.loads(setup.read_text(encoding="utf-8"))
            own = spent["seconds"] - spent["downloads_seconds"]
            print(f"  before that: {own:.1f} s setting up tools, {spent['downloads_seconds']:.1f} s of downloads (not counted)")

    def clean_former(self) -> None:
        """Begin with nothing of an earlier demo that was kept or killed; its reports stay."""
        if (self.shop / "variables.yml").exists():
            self.shop_do("down", "--purge")
        self.remove()

    def remove(self) -> None:
        """Remove what the demo made besides the run directories."""
        for name in ("repository", "keys", "private", "state", "bin", "etc", "ansible"):
            shutil.rmtree(self.home / name, ignore_errors=True)

    def clean(self, keep: bool) -> None:
        """Stop everything by pid, remove the ecosystem's data unless it is to be kept."""
        self.stop_child()
        self.stop_shipper()
        self.environment.pop("ANSIBLE_FORCE_COLOR", None)
        try:
            print(self.shop_do("down", *([] if keep else ["--purge"])).strip())
        except Failure as error:
            print(f"clean-up: {error}", file=sys.stderr)
        if not keep:
            self.remove()
            if self.shop.parent != self.home:
                shutil.rmtree(self.shop.parent, ignore_errors=True)


def position(text: str) -> int:
    """Bytes of log up to a position such as 0/3000028."""
    high, low = text.split("/")
    return (int(high, 16) << 32) + int(low, 16)


def shop_home(home: Path) -> Path:
    """Where the ecosystem lives: below the demo's directory, or beside it when its stores' own user could not get in there.

    As root the stores run as an unprivileged user, and a checkout below /root is closed to it.
    """
    if os.geteuid() == 0 and any(not parent.stat().st_mode & 0o001 for parent in (home, *home.parents)):
        outside = Path(tempfile.mkdtemp(prefix="lifeboat-demo-", dir="/var/tmp"))
        outside.chmod(0o711)
        return outside / "shop"
    return home / "shop"


def interrupt(_number: int, _frame: Any) -> None:
    raise KeyboardInterrupt


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="run.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="10MB", help="how much data the stores hold (default 10MB)")
    parser.add_argument("--home", type=Path, default=ROOT / ".demo", help="where the demo keeps its files (default .demo)")
    parser.add_argument("--keep", action="store_true", help="stop the ecosystem but keep its data, repository and keys")
    parser.add_argument("--catalog", type=Path, default=CATALOG, help="a changed copy of inventories/demo, with another repository for example")
    options = parser.parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    home = Path(os.path.abspath(options.home))
    home.mkdir(mode=0o755, parents=True, exist_ok=True)
    demo = Demo(home, options.size, options.catalog.resolve())
    begun = time.monotonic()
    code = 1
    try:
        demo.clean_former()
        demo.play()
        code = 0
    except Failure as error:
        print(f"\ndemo failed: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        code = 130
    finally:
        total = time.monotonic() - begun
        # the clean-up must not be interrupted half-way by a second Ctrl-C
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        demo.clean(options.keep)
        demo.print_times(total)
    print("\nsix services verified, all data equal" if code == 0 else "\nNOT proven")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
