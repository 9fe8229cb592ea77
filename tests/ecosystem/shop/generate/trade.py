# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rows of the orders cluster and the payments cluster."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from decimal import Decimal
from typing import Any, Iterator

from ..layout import Home
from .copy import Loader, loading, record
from .files import InvoiceWriter
from .world import BEGIN, World, blob, heavy, maybe, text

Row = tuple[Any, ...]

#: Large objects are made one by one, so there are never very many.
_MOST_CONTRACTS = 2000


def fill_orders(home: Home, world: World) -> dict[str, int]:
    """Orders with lines, events, attachments, signed contracts, and the invoice files as their rows are written."""
    files = InvoiceWriter(home)
    with loading(home, "orders") as loader:
        loader.copy(
            "orders", "id, user_id, reservation, state, payment, total, currency, note, gift_message, coupon, meta, created_at, changed_at", _orders(world)
        )
        loader.copy("order_lines", "order_id, line, product, quantity, price", _lines(world))
        loader.copy("invoices", "order_id, path, size, sha256", _invoices(world, files))
        loader.copy("attachments", "order_id, name, content", _attachments(world))
        loader.copy("order_events", "order_id, at, event, data", _events(world))
        loader.copy("till_import", "batch, line, received, raw", _till(world))
        _contracts(loader, world)
        loader.execute("SELECT setval('order_number', (SELECT max(id) + 101 FROM orders))")
        loader.execute("SELECT setval('attachments_id_seq', (SELECT max(id) + 17 FROM attachments))")
    files.finish()
    return {"bytes": loader.bytes, "rows": loader.rows, "file_bytes": files.bytes, "files": files.files}


def _orders(world: World) -> Iterator[Row]:
    for index in range(world.orders):
        order = world.order(index)
        rng = world.rng("onot", index)
        yield (
            order.id, order.user, order.reservation, order.state, order.payment, order.total, rng.choice(["EUR"] * 9 + ["USD"]),
            maybe(rng, text(rng, heavy(rng, 5, 400)), 0.4), maybe(rng, text(rng, 12), 0.1), maybe(rng, f"SAVE{rng.randrange(100)}", 0.15),
            maybe(rng, {"channel": rng.choice(["web", "app", "till"]), "utm": text(rng, 2), "steps": [rng.randrange(9) for _n in range(5)]}, 0.9),
            order.at, maybe(rng, order.at + timedelta(hours=2)),
        )


def _lines(world: World) -> Iterator[Row]:
    for index in range(world.orders):
        order = world.order(index)
        for line, (product, quantity, price) in enumerate(order.lines, 1):
            yield order.id, line, product, quantity, price


def _invoices(world: World, files: InvoiceWriter) -> Iterator[Row]:
    for index in range(world.orders):
        order = world.order(index)
        data = world.invoice(order)
        files.write(order.invoice_path, data, order.at)
        yield order.id, order.invoice_path, len(data), hashlib.sha256(data).digest()


def _attachments(world: World) -> Iterator[Row]:
    for index in range(0, world.orders, 10):
        rng = world.rng("atta", index)
        yield world.order_id(index), text(rng, 2), None if index % 300 == 0 else blob(rng, world.heavy(rng, 2500, 3_000_000))


def _events(world: World) -> Iterator[Row]:
    for index in range(world.orders):
        order = world.order(index)
        yield order.id, order.at, "new", {"total": str(order.total)}
        if order.state != "new":
            yield order.id, order.at + timedelta(minutes=index % 90), "paid" if order.payment else "cancelled", None
        if order.state == "shipped":
            yield order.id, order.at + timedelta(hours=20), "shipped", {"parcel": f"P{order.id * 7919 % 10**9}"}


def _till(world: World) -> Iterator[Row]:
    rng = world.rng("till")
    for index in range(world.orders // 3):
        row = index // 100, maybe(rng, text(rng, 9), 0.9), BEGIN + timedelta(minutes=index), maybe(rng, rng.randbytes(rng.randrange(40)))
        yield row
        if index % 20 == 0:
            yield row


def _contracts(loader: Loader, world: World) -> None:
    """Signed contracts as large objects, with numbers that are the same each time."""
    loader.execute("SET ROLE orders_owner")
    step = max(40, world.orders // _MOST_CONTRACTS)
    for number, index in enumerate(range(0, world.orders, step)):
        rng = world.rng("cont", index)
        data = blob(rng, world.heavy(rng, 6000, 4_000_000)) if number else b""
        loader.execute("SELECT lo_from_bytea(%s, %s)", [700_000 + number, data])
        loader.execute("INSERT INTO contracts VALUES (%s, %s, %s)", [world.order_id(index), 700_000 + number, maybe(rng, BEGIN)])
        if number % 5 == 0:
            loader.execute(f"GRANT SELECT ON LARGE OBJECT {700_000 + number} TO shop_readonly")
        loader.bytes += len(data)
    loader.execute("COMMENT ON LARGE OBJECT 700000 IS 'the empty one'")
    loader.execute("RESET ROLE")


def fill_payments(home: Home, world: World) -> dict[str, int]:
    """One payment for each paid order, booked in balance; statements; the corners of the types."""
    with loading(home, "payments") as loader:
        loader.copy("payments", "id, order_id, state, charged, card, payer_ip, device, provider_answer, receipt, fee, took, authorised, at", _payments(world))
        loader.copy("ledger", "payment, account, amount, at", _ledger(world))
        days = [(f"day_{day:02d}", f"note_{day:02d}") for day in range(1, 32)]
        loader.copy("statements", ", ".join(["account", "month", *[column for pair in days for column in pair]]), _statements(world))
        _corners(loader)
        loader.execute("SELECT setval(pg_get_serial_sequence('ledger', 'id'), (SELECT max(id) + 1000 FROM ledger))")
    return {"bytes": loader.bytes, "rows": loader.rows}


def _payments(world: World) -> Iterator[Row]:
    for index in range(world.orders):
        order = world.order(index)
        if order.payment is None:
            continue
        rng = world.rng("paym", index)
        begin = order.at + timedelta(minutes=index % 90)
        yield (
            order.payment, order.id, "refunded" if index % 77 == 0 else "captured", record([order.total, "EUR"]), f"tok_{rng.getrandbits(64):016x}",
            maybe(rng, f"192.0.2.{rng.randrange(256)}"), maybe(rng, f"08:00:2b:01:02:{rng.randrange(256):02x}"),
            maybe(rng, {"approved": True, "trace": text(rng, heavy(rng, 4, 200)), "risk": rng.random()}, 0.95),
            blob(rng, world.heavy(rng, 300, 100_000)) if rng.random() < 0.4 else None,
            float(order.total) * 0.029, f"{rng.randrange(3000)} ms", f"[{begin.isoformat()},{(begin + timedelta(days=7)).isoformat()})", begin,
        )


def _ledger(world: World) -> Iterator[Row]:
    for index in range(world.orders):
        order = world.order(index)
        if order.payment is None:
            continue
        yield order.payment, "customers", -order.total, order.at
        yield order.payment, "sales", order.total, order.at
        if index % 77 == 0:
            yield order.payment, "customers", order.total, order.at
            yield order.payment, "refunds", -order.total, order.at


def _statements(world: World) -> Iterator[Row]:
    for index in range(max(5, world.orders // 50)):
        rng = world.rng("stat", index)
        values: list[Any] = []
        for _day in range(31):
            values += [maybe(rng, Decimal(rng.randrange(10**9)) / 100, 0.2), maybe(rng, text(rng, 2), 0.05)]
        yield (f"{index:06d}", "2025-01-01", *values)


def _corners(loader: Loader) -> None:
    """Values at the edges of their types; every one of them was once lost or changed by some tool."""
    names = "name, n, f, r, d, ts, i, t, b, j, jb, bits, a, nested, p, net, x, big, span, money, tz"
    loader.copy("corners", names, [
        ("nothing", *[None] * 20),
        ("empty", 0, 0.0, 0.0, "2000-01-01", "2000-01-01", "0", "", b"", "{}", "{}", "", "{}", "{}", "(0,0)", "0.0.0.0/0", "", 0, "{}", "0", "00:00:00+00"),
        (
            "large", "9" * 120 + "." + "9" * 60, "Infinity", "-Infinity", "infinity", "infinity", "178000000 years", "x" * 1_000_000,
            bytes(range(256)) * 64,
            '{"a" : 1, "a":2 ,  "b": [ ] }', {"deep": [[[[["\u0001"]]]]]}, "1" * 64, "[5:7]={1,2,3}", '{{"a",NULL},{"NULL","\\\\"}}', "(1e308,-1e-307)",
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128",
            "<a><![CDATA[ ]]>\n<!-- c --></a>", 4294967295, "{[1,3),[7,)}", "92233720368547758.07", "23:59:59.999999-15:59",
        ),
        (
            "small", "NaN", "NaN", "-0", "4713-01-01 BC", "-infinity", "-178000000 years", "\\N\t\\.\n\\", b"\\x00", "[1e400, -0.0]", "[1e400, -0.0]", "0",
            "{NULL,-2147483648}", "{}", "(NaN,Infinity)", "::1/128", " ", 1, "{(,)}", "-92233720368547758.08", "00:00:00+15:59",
        ),
        (
            "precise", "0." + "0" * 60 + "1", 0.1 + 0.2, 1.17549435e-38, "5874897-12-31", "294276-12-31 23:59:59.999999",
            "1 mon -1 day 00:00:00.000001", "e\u0301\u00e9", b"\x00", '"\\u00e9"', '"\u00e9"', "10", "{1}", '{{" "}}', "(0.1,0.2)", "10.0.0.0/8",
            None, None, None, None, None,
        ),
    ])
