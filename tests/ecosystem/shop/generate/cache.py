# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Redis as production has it: sessions that expire, every type, binary keys, streams with groups, a second database."""

from __future__ import annotations

import time
from typing import Any

from .. import stores
from ..layout import Home
from .world import World, blob, heavy, skewed, text

_BATCH = 2000


def fill_redis(home: Home, world: World) -> dict[str, int]:
    """Sessions by user (few users have most), and the rest. Nothing expires within the first two hours."""
    client = stores.redis_client(home)
    now = int(time.time())
    keys = _sessions(client, world, now) + _types(client, world, now)
    keys += _second(stores.redis_client(home, database=1), world, now)
    return {"keys": keys, "bytes": int(client.info("memory")["used_memory_dataset"])}


def _sessions(client: Any, world: World, now: int) -> int:
    for first in range(0, world.sessions, _BATCH):
        pipe = client.pipeline(transaction=True)
        count = min(_BATCH, world.sessions - first)
        for index in range(first, first + count):
            rng = world.rng("sess", index)
            token = f"{rng.getrandbits(128):032x}"
            expires = now + 7200 + rng.randrange(7 * 86400)
            user = world.user_id(skewed(rng, world.users))
            pipe.hset(f"session:{token}", mapping={"user": user, "created": now - rng.randrange(86400), "pages": int(rng.paretovariate(1))})
            pipe.expireat(f"session:{token}", expires)
            pipe.zadd("sessions:by_expiry", {token: expires})
        pipe.incrby("sessions:created", count)
        pipe.execute()
    client.incrby("sessions:created", 1234)
    client.incrby("sessions:ended", 1234)
    return world.sessions


def _types(client: Any, world: World, now: int) -> int:
    rng = world.rng("redi")
    pipe = client.pipeline(transaction=False)
    scale = max(1, world.sessions // 200)
    for index in range(scale * 10):
        cart = {f"p{skewed(rng, world.products)}": rng.randrange(1, 9) for _n in range(min(int(rng.paretovariate(1)), 400))}
        pipe.hset(f"cart:{index}", mapping=cart)
        pipe.rpush(f"recent:{index}", *[text(rng, 2) for _n in range(min(int(rng.paretovariate(0.9)), 600))])
        pipe.set(f"page:{index}", blob(rng, heavy(rng, 200, 60_000)))
        if index % 3 == 0:
            pipe.pexpireat(f"page:{index}", now * 1000 + 10_800_000 + rng.randrange(10**9))
    pipe.zadd("popular", {f"p{product}": 1e6 / (product + 1) for product in range(min(world.products, 5000))})
    pipe.zadd("corners:z", {"inf": "inf", "-inf": "-inf", "tiny": 5e-324, "third": 1 / 3, b"\x00\xff": -0.0, "": 1})
    pipe.sadd("tags", *[text(rng, 1) for _n in range(400)])
    pipe.sadd("numbers", *range(-50, 50))
    pipe.sadd("numbers:large", *range(2**40, 2**40 + 600))
    pipe.set(b"\x00binary\xff\nkey", bytes(range(256)))
    pipe.set("empty", "")
    pipe.set("int", -(2**63))
    pipe.set("text", "\u0645\u0631\u062d\u0628\u0627 \U0001f600 e\u0301")
    pipe.set("k" * 3000, "long key")
    pipe.setbit("bitmap", 100_000, 1)
    pipe.pfadd("visitors", *range(3000))
    pipe.geoadd("shops", (13.4, 52.5, "Berlin", -0.1, 51.5, "London"))
    pipe.rpush("long:list", *[str(number) * 20 for number in range(3000)])
    pipe.hset("wide:hash", mapping={f"field {number}": text(rng, 3) for number in range(1000)})
    pipe.set("expires:late", "in 2100", exat=4_102_444_800)
    pipe.execute()
    _stream(client, rng)
    return scale * 30 + 20


def _stream(client: Any, rng: Any) -> None:
    """A stream with a hole, two groups, entries delivered and not acknowledged, and an empty one that remembers its last id."""
    pipe = client.pipeline(transaction=False)
    for number in range(1, 501):
        pipe.xadd("shop:events", {"event": rng.choice(["view", "buy"]), "detail": text(rng, 3)}, id=f"{1_700_000_000_000 + number * 10}-{number % 3}")
    pipe.xdel("shop:events", "1700000005000-2", "1700000002000-2")
    pipe.xgroup_create("shop:events", "billing", id="0")
    pipe.xgroup_create("shop:events", "mail", id="$")
    pipe.xgroup_createconsumer("shop:events", "mail", "idle-consumer")
    pipe.xadd("drained", {"a": 1}, id="5-5")
    pipe.xdel("drained", "5-5")
    pipe.execute()
    taken = client.xreadgroup("billing", "worker-1", {"shop:events": ">"}, count=40)[0][1]
    client.xreadgroup("billing", "worker-\u00fc", {"shop:events": ">"}, count=10)
    client.xack("shop:events", "billing", *[entry for entry, _fields in taken[:25]])


def _second(client: Any, world: World, now: int) -> int:
    rng = world.rng("rdb1")
    pipe = client.pipeline(transaction=False)
    for index in range(max(20, world.sessions // 20)):
        pipe.set(f"limit:{index}", rng.randrange(1000), exat=now + 86_400 + rng.randrange(86_400))
    pipe.set("only in 1", "yes")
    pipe.execute()
    return max(20, world.sessions // 20) + 1
