# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The demo ecosystem "shop": set it up, run it, fill it, drive it, wreck it, fingerprint it.

Services: identity inventory orders payments sessions gateway. Stores: pg-shared pg-orders pg-payments redis.
Exit codes: 0 done (status: all named run; compare: equal), 1 an error or a difference, 2 wrong usage, 3 something named does not run.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from shop.layout import CLUSTERS, REQUIRES, STORES, Home, ShopError, create

NAMES = (*STORES, *REQUIRES)


def main(arguments: list[str]) -> int:
    """Run one command; returns the exit code."""
    options = _parser().parse_args(arguments)
    os.umask(0o022)
    try:
        return int(options.run(options) or 0)
    except ShopError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except ImportError as error:
        print(f"error: a Python package is missing: {error.name}; run this with the project's .venv/bin/python", file=sys.stderr)
        return 1
    except BrokenPipeError:
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ctl.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Any, text: str, home: bool = True) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(run=run)
        if home:
            default = os.environ.get("SHOP_HOME")
            sub.add_argument(
                "--home", type=Path, default=Path(default) if default else None, required=default is None, help="the shop's directory (or SHOP_HOME)"
            )
        return sub

    sub = command("setup", _setup, "make a new shop: ports, credentials, stores, tables, and start everything")
    sub.add_argument("--user", help="as root: who the stores and apps run as (default nobody)")
    for name, run, text in (
        ("start", _start, "start services and stores (all by default) and wait until they serve"),
        ("stop", _stop, "stop services and stores (all by default) and wait until they are gone"),
        ("status", _status, "exit 0 if all named services and stores run, 3 if not"),
    ):
        sub = command(name, run, text)
        sub.add_argument("names", nargs="*", metavar="NAME", type=_name, help=f"one of {', '.join(NAMES)}")
    sub = command("provision", _provision, "make an empty server where a store's data directory is gone, and start it")
    sub.add_argument("store", choices=STORES)
    sub = command("load", _load, "fill all stores with data shaped like production")
    sub.add_argument("--size", type=size, default=size("10MB"), help="how much, 10MB to 10GB (default 10MB)")
    sub.add_argument("--seed", type=int, default=1)
    sub = command("drive", _drive, "run business workflows through the gateway; prints counts, latencies and errors as JSON")
    sub.add_argument("--seconds", type=float, default=3.0)
    sub.add_argument("--seed", type=int, default=1)
    sub.add_argument("--threads", type=int, default=4)
    sub.add_argument("--allow-errors", action="store_true", help="exit 0 even if requests failed")
    sub = command("commit", _commit, "commit a transaction in orders: the right one, or the wrong one that nobody wants; prints the time after it as JSON")
    sub.add_argument("kind", choices=("right", "wrong"))
    sub = command("wreck", _wreck, "destroy: processes, a data directory, a database, invoices, sessions; prints what as JSON")
    sub.add_argument("--seed", type=int, default=1)
    sub = command("fingerprint", _fingerprint, "describe the content of every store as JSON, independently of any backup")
    sub.add_argument("--output", type=Path, help="write it there instead of printing it")
    sub = command("compare", _compare, "print the differences of two fingerprints; exit 1 if there are any", home=False)
    sub.add_argument("first", type=Path)
    sub.add_argument("second", type=Path)
    sub.add_argument("--limit", type=int, default=200, help="print at most so many differences")
    sub = command("down", _down, "stop everything by pid, leave nothing running")
    sub.add_argument("--purge", action="store_true", help="delete the home too")
    return parser


def size(text: str) -> int:
    """Bytes of a size such as 10MB or 1.5GB (powers of ten)."""
    units = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "B": 1}
    for unit, factor in units.items():
        if text.upper().endswith(unit):
            value = int(float(text[: -len(unit)]) * factor)
            if 1_000_000 <= value <= 20 * 10**9:
                return value
            break
    raise argparse.ArgumentTypeError(f"not a size from 1MB to 20GB: {text!r}")


def _name(text: str) -> str:
    if text not in NAMES:
        raise argparse.ArgumentTypeError(f"no service or store: {text!r}; known are {', '.join(NAMES)}")
    return text


def _split(names: list[str]) -> tuple[list[str], list[str]]:
    """The named stores and services, in start order; all of them if none is named."""
    return [name for name in STORES if not names or name in names], [name for name in REQUIRES if not names or name in names]


def _setup(options: argparse.Namespace) -> None:
    from shop import apps, stores, tables

    begun = time.monotonic()
    home = create(options.home, options.user)

    def make(store: str) -> None:
        stores.provision(home, store)
        if store in CLUSTERS:
            tables.create(home, store)
        else:
            tables.create_redis(home)

    try:
        tables.create_invoices(home)
        with ThreadPoolExecutor(len(STORES)) as pool:
            list(pool.map(make, STORES))
        with ThreadPoolExecutor(len(REQUIRES)) as pool:
            list(pool.map(lambda service: apps.start(home, service), REQUIRES))
        apps.await_healthy(home)
    except BaseException:
        # A half-made shop is of no use: nothing of it runs, nothing but its logs is left, and the next setup is not refused.
        _stop_named(home, [])
        for name in ("data", "srv", "conf", "run", "credentials.yml", "pgpass", "variables.yml"):
            stores.remove(home.path / name)
        raise
    _print({"home": str(home.path), "gateway": home.url("gateway"), "user": home["user"], "seconds": round(time.monotonic() - begun, 2)})


def _start(options: argparse.Namespace) -> None:
    from shop import apps, stores

    home = Home(options.home)
    named_stores, named_services = _split(options.names)
    with ThreadPoolExecutor(len(NAMES)) as pool:
        started = dict(zip(named_stores, pool.map(lambda store: stores.start(home, store), named_stores)))
        started.update(zip(named_services, pool.map(lambda service: apps.start(home, service), named_services)))
    for name, did in started.items():
        print(f"{name}: {'started' if did else 'running already'}")


def _stop(options: argparse.Namespace) -> None:
    home = Home(options.home)
    for name, did in _stop_named(home, options.names).items():
        print(f"{name}: {'stopped' if did else 'was not running'}")


def _stop_named(home: Home, names: list[str], keep: bool = True) -> dict[str, bool]:
    from shop import apps, stores

    named_stores, named_services = _split(names)
    with ThreadPoolExecutor(len(NAMES)) as pool:
        stopped = dict(zip(named_services, pool.map(lambda service: apps.stop(home, service), named_services)))
        stopped.update(zip(named_stores, pool.map(lambda store: stores.stop(home, store, keep), named_stores)))
    return stopped


def _status(options: argparse.Namespace) -> int:
    from shop import apps, stores

    home = Home(options.home)
    named_stores, named_services = _split(options.names)
    running = {store: stores.running(home, store) for store in named_stores}
    running.update({service: apps.running(home, service) for service in named_services})
    for name, runs in running.items():
        print(f"{name}: {'running' if runs else 'not running'}")
    return 0 if all(running.values()) else 3


def _provision(options: argparse.Namespace) -> None:
    from shop import stores

    stores.provision(Home(options.home), options.store)
    print(f"{options.store}: an empty server runs")


def _load(options: argparse.Namespace) -> None:
    from shop.generate import load

    _print(load.load(Home(options.home), options.size, options.seed))


def _drive(options: argparse.Namespace) -> int:
    from shop import drive

    result = drive.drive(Home(options.home), options.seconds, options.seed, options.threads)
    _print(result)
    return 0 if options.allow_errors or (result["errors"] == 0 and result["workflows"] > 0) else 1


def _commit(options: argparse.Namespace) -> None:
    from shop import mistake

    _print(mistake.commit(Home(options.home), options.kind))


def _wreck(options: argparse.Namespace) -> None:
    from shop import wreck

    _print(wreck.wreck(Home(options.home), options.seed))


def _fingerprint(options: argparse.Namespace) -> None:
    from shop.fingerprint import collect

    text = json.dumps(collect.fingerprint(Home(options.home)), indent=1, sort_keys=True)
    if options.output is None:
        print(text)
    else:
        options.output.write_text(text + "\n", encoding="utf-8")


def _compare(options: argparse.Namespace) -> int:
    from shop.fingerprint import compare

    differences = compare.compare(_json(options.first), _json(options.second))
    for difference in differences[: options.limit]:
        print(difference)
    if len(differences) > options.limit:
        print(f"... and {len(differences) - options.limit} more")
    print(f"{len(differences)} differences" if differences else "equal")
    return 1 if differences else 0


def _down(options: argparse.Namespace) -> None:
    if options.purge and not (options.home / "variables.yml").exists():
        if options.home.exists():
            raise ShopError(f"not the home of a shop, not deleted: {options.home}; delete it by hand")
        return
    home = Home(options.home)
    stopped = _stop_named(home, [], keep=not options.purge)
    if options.purge:
        shutil.rmtree(home.path)
    print(f"stopped {sum(stopped.values())}, nothing of {home.path} runs" + (", deleted" if options.purge else ""))


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ShopError(f"cannot read the fingerprint: {path} ({error}); make it with `ctl.py fingerprint`") from None


def _print(result: dict[str, Any]) -> None:
    print(json.dumps(result, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
