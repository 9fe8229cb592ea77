# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rows of the shared cluster: customers, and the goods with their stock."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any, Iterator

from ..layout import Home
from .copy import Loader, hstore, loading, record
from .world import BEGIN, SPAN_SECONDS, World, blob, heavy, maybe, name, skewed, text

Row = tuple[Any, ...]


def fill_identity(home: Home, world: World) -> dict[str, int]:
    """Customers, log-ins, tokens, an audit log."""
    with loading(home, "identity") as loader:
        loader.copy(
            "users",
            "id, email, name, nickname, status, password_salt, password_hash, profile, tags, home, avatar, last_ip, born, referred_by, created_at, updated_at",
            _users(world),
        )
        loader.copy("login_events", "user_id, at, ip, agent, ok", _logins(world))
        loader.copy("audit_log", "at, actor, action, subject, detail", _audit(world))
        loader.copy("auth.api_tokens", "token, user_id, scopes, valid", _tokens(world))
        loader.execute("SELECT setval(pg_get_serial_sequence('users', 'id'), (SELECT max(id) + 41 FROM users))")
    return {"bytes": loader.bytes, "rows": loader.rows}


def _users(world: World) -> Iterator[Row]:
    for index in range(world.users):
        rng = world.rng("user", index)
        at = BEGIN + timedelta(seconds=SPAN_SECONDS * index / world.users)
        profile = {"language": rng.choice(["de", "en", "ar", "he", "zh"]), "about": text(rng, heavy(rng, 6, 300)), "n": rng.choice([None, 0, -1.5e-7, 10**20])}
        yield (
            world.user_id(index), f"User.{index}@Example-{index % 7}.org", name(rng), maybe(rng, text(rng, 1)),
            rng.choice(["active"] * 8 + ["locked", "closed"]), rng.randbytes(16), rng.randbytes(64), profile, [text(rng, 1) for _n in range(rng.randrange(4))],
            record([text(rng, 3), maybe(rng, "K\u00f6ln"), "50667", "DE"]) if rng.random() < 0.7 else None,
            blob(rng, world.heavy(rng, 1500, 200_000)) if rng.random() < 0.1 else None,
            maybe(rng, f"10.{rng.randrange(256)}.{rng.randrange(256)}.7/24"), maybe(rng, f"19{rng.randrange(40, 100)}-02-28"),
            world.user_id(rng.randrange(index)) if index and rng.random() < 0.3 else None, at, maybe(rng, at + timedelta(days=3), 0.2),
        )


def _logins(world: World) -> Iterator[Row]:
    rng = world.rng("logi")
    for index in range(world.users * 2):
        # Apart by more than a second, so that no two of one user fall together.
        at = BEGIN - timedelta(days=20) + timedelta(seconds=(SPAN_SECONDS + 40 * 86400) * index / (world.users * 2), microseconds=index % 1000)
        yield world.user_id(skewed(rng, world.users)), at, maybe(rng, "2001:db8::1"), text(rng, 3), rng.random() < 0.9


def _audit(world: World) -> Iterator[Row]:
    rng = world.rng("audi")
    for index in range(world.users):
        user = world.user_id(skewed(rng, world.users))
        row = BEGIN + timedelta(minutes=index), maybe(rng, "system"), rng.choice(["update", "merge"]), user, maybe(rng, {"old": text(rng, 4)})
        yield row
        if index % 10 == 0:
            yield row


def _tokens(world: World) -> Iterator[Row]:
    for index in range(world.users // 10):
        rng = world.rng("toke", index)
        begin = BEGIN + timedelta(days=rng.randrange(700))
        valid = f"[{begin.isoformat()},)" if index % 5 == 0 else f"[{begin.isoformat()},{(begin + timedelta(days=90)).isoformat()})"
        yield str(uuid.UUID(int=rng.getrandbits(128), version=4)), world.user_id(skewed(rng, world.users)), ["read", "write"][: 1 + index % 2], valid


def fill_inventory(home: Home, world: World) -> dict[str, int]:
    """Goods, prices, pictures, and a stock that agrees with the orders."""
    shipped, reserved = [0] * (world.products + 1), [0] * (world.products + 1)
    with loading(home, "inventory") as loader:
        loader.copy("categories", "id, parent, name", ((number, number // 3 or None, f"category {number}") for number in range(1, 41)))
        loader.copy("products", "id, sku, name, description, category, price, attributes, translations, dimensions, weight", _products(world))
        loader.copy("product_images", "product, position, image", _images(world))
        loader.copy("prices", "product, price, during", _prices(world))
        loader.copy("reservations", "id, state, order_id, at", _reservations(world))
        loader.copy("reservation_lines", "reservation, product, quantity", _reservation_lines(world, shipped, reserved))
        _stock(loader, world, shipped, reserved)
        loader.execute("SELECT setval(pg_get_serial_sequence('products', 'id'), %s)", [world.products + 13])
        loader.execute("SELECT setval(pg_get_serial_sequence('reservations', 'id'), %s)", [world.orders + 29])
        loader.execute("SELECT setval('sku_number', %s, false)", [100_000 + 10 * world.products])
        loader.execute("SET search_path = public, stock")
        loader.execute("REFRESH MATERIALIZED VIEW stock_by_category")
    return {"bytes": loader.bytes, "rows": loader.rows}


def _products(world: World) -> Iterator[Row]:
    for product in range(1, world.products + 1):
        rng = world.rng("prod", product)
        attributes = hstore({"colour": rng.choice(["red", "blue", "\u9752"]), "size": None, 'odd "key"': text(rng, 1)})
        yield (
            product, f"S-{product:07d}", text(rng, 3), maybe(rng, text(rng, heavy(rng, 40, 3000)), 0.9), 1 + skewed(rng, 40),
            world.price(product), attributes, maybe(rng, {"ar": text(rng, 2), "nested": {"list": [1, None, "\u20ac"]}}),
            [rng.randrange(500) for _n in range(3)],
            round(rng.random() * 50, 3),
        )


def _images(world: World) -> Iterator[Row]:
    for product in range(1, world.products + 1, 2):
        rng = world.rng("imag", product)
        for position in range(min(int(rng.paretovariate(1.5)), 6)):
            yield product, position, blob(rng, world.heavy(rng, 1800, 500_000))


def _prices(world: World) -> Iterator[Row]:
    for product in range(1, world.products + 1, 3):
        yield product, world.price(product) + 1, "[2023-01-01,2024-01-01)"
        yield product, world.price(product), "[2024-01-01,)"


def _reservations(world: World) -> Iterator[Row]:
    for index in range(world.orders):
        order = world.order(index)
        yield order.reservation, _state(order.state), order.id if order.state == "shipped" else None, order.at


def _state(order_state: str) -> str:
    return {"shipped": "shipped", "cancelled": "released"}.get(order_state, "open")


def _reservation_lines(world: World, shipped: list[int], reserved: list[int]) -> Iterator[Row]:
    """The lines; counts per product what left and what is promised."""
    for index in range(world.orders):
        order = world.order(index)
        state = _state(order.state)
        for product, quantity, _price in order.lines:
            if state == "shipped":
                shipped[product] += quantity
            elif state == "open":
                reserved[product] += quantity
            yield order.reservation, product, quantity


def _stock(loader: Loader, world: World, shipped: list[int], reserved: list[int]) -> None:
    """Levels that are the sum of their movements."""
    def spare(product: int) -> int:
        return 0 if product % 50 == 49 else 5_000 + product * 7919 % 50_000

    def levels() -> Iterator[Row]:
        for product in range(1, world.products + 1):
            yield product, reserved[product] + spare(product), reserved[product]

    def movements() -> Iterator[Row]:
        for product in range(1, world.products + 1):
            yield product, BEGIN, "receipt", shipped[product] + reserved[product] + spare(product), None
        for index in range(world.orders):
            order = world.order(index)
            if order.state == "shipped":
                for product, quantity, _price in order.lines:
                    yield product, order.at + timedelta(hours=20), "shipment", -quantity, f"reservation {order.reservation}"

    loader.copy("stock.levels", "product, on_hand, reserved", levels())
    loader.copy("stock.movements", "product, at, kind, delta, reference", movements())
