# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is generated is the same for the same seed, skewed, and true across services."""

from __future__ import annotations

import collections
import random

import pytest

from ansible_collections.lifeboat.recovery.tests.ecosystem.shop.generate import copy, files, world
from ansible_collections.lifeboat.recovery.tests.ecosystem.shop.generate.shared import _reservations
from ansible_collections.lifeboat.recovery.tests.ecosystem.shop.generate.trade import _ledger, _orders, _payments

SMALL = world.World(5_000_000, 3)


def test_the_same_seed_gives_the_same_world_and_another_another() -> None:
    orders = [SMALL.order(index) for index in range(SMALL.orders)]
    assert orders == [world.World(5_000_000, 3).order(index) for index in range(SMALL.orders)]
    assert orders != [world.World(5_000_000, 4).order(index) for index in range(SMALL.orders)]
    assert SMALL.invoice(orders[5]) == world.World(5_000_000, 3).invoice(orders[5])


def test_few_customers_have_most_orders() -> None:
    counts = sorted(collections.Counter(SMALL.order(index).user for index in range(SMALL.orders)).values(), reverse=True)
    assert sum(counts[: len(counts) // 10]) > SMALL.orders * 0.3
    rng = random.Random(1)
    assert {world.skewed(rng, count) for count in (1, 2, 3) for _n in range(200)} == {0, 1, 2}


def test_every_payment_has_its_order_and_the_ledger_is_in_balance() -> None:
    orders = {row[0]: row for row in _orders(SMALL)}
    payments = list(_payments(SMALL))
    assert payments and all(orders[row[1]][4] == row[0] and orders[row[1]][3] in ("paid", "shipped") for row in payments)
    assert len({row[1] for row in payments}) == len(payments)
    assert sum(row[2] for row in _ledger(SMALL)) == 0
    assert {row[0] for row in _reservations(SMALL)} == {row[2] for row in orders.values()}
    assert len({row[0] for row in orders.values()}) == SMALL.orders
    assert max(orders) - min(orders) > SMALL.orders, "order numbers have gaps"


@pytest.mark.parametrize(("value", "text"), [
    (None, "\\N"), ("\\N", "\\\\N"), ("a\tb\nc\rd\\.", "a\\tb\\nc\\rd\\\\."), (b"\x00\xff", "\\\\x00ff"), (True, "t"), (1.5, "1.5"),
    ({"a": "\n"}, '{"a": "\\\\n"}'), (['a"b', None, "c\\d"], '{"a\\\\"b",NULL,"c\\\\\\\\d"}'),
])
def test_values_as_copy_wants_them(value: object, text: str) -> None:
    assert copy._field(value) == text


def test_a_copy_stream_gives_all_bytes_in_pieces_of_any_size() -> None:
    class Counter:
        def __init__(self) -> None:
            self.rows = self.bytes = 0

    rows = [(number, "x" * (number % 7), None) for number in range(100)]
    whole = b"".join(f"{number}\t{text}\t\\N\n".encode() for number, text, _null in rows)
    for size in (1, 7, 64, 10_000):
        counter = Counter()
        stream = copy._Stream(counter, rows)
        pieces = []
        while piece := stream.read(size):
            assert len(piece) <= size
            pieces.append(piece)
        assert b"".join(pieces) == whole and counter.rows == 100 and counter.bytes == len(whole)


def test_odd_names_are_odd_and_possible() -> None:
    assert len(set(files.ODD_NAMES)) == len(files.ODD_NAMES)
    assert all(0 < len(name) <= 255 and b"/" not in name and b"\0" not in name for name in files.ODD_NAMES)
    assert any(b"\n" in name for name in files.ODD_NAMES)
    with pytest.raises(UnicodeDecodeError):
        b" ".join(files.ODD_NAMES).decode()
