# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every fault of a catalog is one exact line: what, file and line, remedy."""

from __future__ import annotations

from typing import Any, Callable

import pytest

from ansible_collections.lifeboat.recovery.plugins.plugin_utils.catalog.problems import CatalogError

#: Lines 1 to 3 of every catalog below; what follows begins at line 4.
HEAD = """plugin: lifeboat.recovery.catalog
repositories: {local: {url: file:///srv/backup}}
keys: {provider: file, path: /etc/lifeboat/keys}
"""

BAD: list[tuple[str, str, str]] = [
    ("unknown key of a service", "services:\n  orders: {host: db1, requirs: [x]}",
     'unknown key "requirs" in services.orders: shop.catalog.yml:5; did you mean "requires"?'),
    ("unknown key at the top", "tires: {}\nservices: {orders: {host: db1}}",
     'unknown key "tires": shop.catalog.yml:4; did you mean "tiers"?'),
    ("a migration without data", "services:\n  a: {host: h, runtime: {migrate: [up]}}",
     "a has a migration and no source: shop.catalog.yml:5; declare it on the service that owns the data, which this one requires"),
    ("no way back", "services:\n  a: {host: h, policy: {health: {on_error: rollback}}}",
     "a cannot go back when health fails: it has no source: shop.catalog.yml:5; say on_error: fail"),
    ("an unknown way out", "services:\n  a: {host: h, policy: {start: {on_error: ignore}}}",
     'services.a.policy.start.on_error is unknown ("ignore"): shop.catalog.yml:5; known are fail, rollback'),
    ("nothing to try again", "services:\n  a: {host: h, policy: {health: {retries: 2}}}",
     'unknown key "retries" in services.a.policy.health: shop.catalog.yml:5; known are on_error, timeout'),
    ("an unknown step", "services:\n  a: {host: h, policy: {stag: {retries: 2}}}",
     'unknown key "stag" in services.a.policy: shop.catalog.yml:5; did you mean "stage"?'),
    ("a schema without a database", "services:\n  a: {host: h, schema: {query: select 1, expect: 1}}",
     "services.a.schema[0] asks sql, but the service has no such source: shop.catalog.yml:5; declare the source, or use another kind of check"),
    ("unknown key with nothing near", "services:\n  orders:\n    host: db1\n    runtime: {xyzzy: 1}",
     'unknown key "xyzzy" in services.orders.runtime: shop.catalog.yml:7; known are hosts, migrate, quorum, start, status, stop'),
    ("unknown option of a source", "services:\n  orders:\n    host: db1\n    sources:\n      db: {type: files, path: /srv/a, pathh: /srv/b}",
     'unknown key "pathh" in services.orders.sources.db: shop.catalog.yml:8; did you mean "path"?'),
    ("missing option of a source", "services:\n  orders:\n    host: db1\n    sources:\n      db: {type: files}",
     "missing key path in services.orders.sources.db: shop.catalog.yml:8; add path:"),
    ("missing type of a source", "services:\n  orders:\n    host: db1\n    sources:\n      db: {path: /srv/a}",
     "missing key type in services.orders.sources.db: shop.catalog.yml:8; add type: (known are files, postgresql, postgresql_database, redis)"),
    ("unknown source type", "services:\n  orders:\n    host: db1\n    sources: {db: {type: fils, path: /srv/a}}",
     'services.orders.sources.db.type is unknown ("fils"): shop.catalog.yml:7; did you mean "files"?'),
    ("wrong choice of a source option", "services: {orders: {host: h, sources: {db: {type: postgresql_database, database: o, tls: maybe}}}}",
     'services.orders.sources.db.tls is unknown ("maybe"): shop.catalog.yml:4; known are off, on, verify'),
    ("a password in a conninfo", "services: {o: {host: h, sources: {db: {type: postgresql, data_directory: /srv/a, conninfo: user=a password=b}}}}",
     "conninfo of o.db cannot be used: a conninfo holds a password, and catalogs are stored with every snapshot: shop.catalog.yml:4; "
     "write it to a file, and passfile=/that/file"),
    ("a member twice", "services: {o: {host: h, sources: {db: {type: postgresql, data_directory: /srv/a, members: [h]}}}}",
     "o.db names member h twice: shop.catalog.yml:4; the source's own host is a member already; name the others once each"),
    ("members beside other sources", "services: {o: {host: h, sources: {f: {type: files, path: /srv/f}, "
     "db: {type: postgresql, data_directory: /srv/a, members: [i]}}}}",
     "o has other sources beside the replicated cluster db: shop.catalog.yml:4; make services of their own of them, in the same consistency_group: "
     "the cluster's primary may move to another host"),
    ("sources on several hosts", "services: {o: {host: h, sources: {f: {type: files, path: /srv/f}, g: {type: files, path: /srv/g, host: i}}}}",
     "o has sources on several hosts (h, i): shop.catalog.yml:4; make a service of its own of what is elsewhere, in the same consistency_group"),
    ("a quorum of too few", "services: {o: {host: h, runtime: {hosts: [a, b], quorum: 3}}}",
     "o wants 3 healthy hosts of 2: shop.catalog.yml:4; lower quorum, or name more hosts"),
    ("missing host", "services:\n  orders: {tier: null}",
     "missing key host in services.orders: shop.catalog.yml:5; add host:"),
    ("missing requirement", "services:\n  orders:\n    host: db1\n    requires: [identiy]\n  identity: {host: db1}",
     'orders requires unknown service "identiy": shop.catalog.yml:7; did you mean "identity"?'),
    ("requirement twice", "services:\n  orders:\n    host: db1\n    requires:\n      - mail\n      - {service: mail, kind: soft}\n  mail: {host: db1}",
     "orders requires mail twice: shop.catalog.yml:9; remove one of them"),
    ("unknown kind of requirement", "services: {orders: {host: h, requires: [{service: mail, kind: sofd}]}, mail: {host: h}}",
     'services.orders.requires[0].kind is unknown ("sofd"): shop.catalog.yml:4; did you mean "soft"?'),
    ("cycle", "services:\n  a: {host: h, requires: [b]}\n  b: {host: h, requires: [c]}\n  c: {host: h, requires: [a]}",
     "requirements form a cycle a -> b -> c -> a: shop.catalog.yml:5; remove one of these requirements"),
    ("cycle over a soft requirement", "services:\n  a: {host: h, requires: [{service: b, kind: soft}]}\n  b: {host: h, requires: [a]}",
     "requirements form a cycle a -> b -> a: shop.catalog.yml:5; remove one of these requirements"),
    ("cycle of one", "services:\n  a: {host: h, requires: [a]}",
     "requirements form a cycle a -> a: shop.catalog.yml:5; remove one of these requirements"),
    ("duplicate service", "services:\n  orders: {host: db1}\n  mail: {host: db1}\n  orders: {host: db2}",
     'service "orders" is declared twice: shop.catalog.yml:7; the first is at line 5; rename or remove one'),
    ("duplicate key", "services:\n  orders:\n    host: db1\n    owner: a\n    host: db2",
     'key "host" is given twice: shop.catalog.yml:8; the first is at line 6; rename or remove one'),
    ("priority against an edge", "services:\n  a: {host: h, priority: 1, requires: [b]}\n  b: {host: h, priority: 2}",
     "priority 1 of a contradicts priority 2 of b, which it requires (a -> b): shop.catalog.yml:5; "
     "lower numbers start first: give b 1 or less, or a 2 or more"),
    ("priority against a chain", "services:\n  a: {host: h, priority: 1, requires: [b]}\n  b: {host: h, requires: [c]}\n  c: {host: h, priority: 9}",
     "priority 1 of a contradicts priority 9 of c, which it requires (a -> b -> c): shop.catalog.yml:5; "
     "lower numbers start first: give c 1 or less, or a 9 or more"),
    ("unknown tier", "tiers: {gold: {rto: 5m}}\nservices:\n  a: {host: h, tier: golt}",
     'a has unknown tier "golt": shop.catalog.yml:6; did you mean "gold"?'),
    ("tier without tiers", "services:\n  a: {host: h, tier: gold}",
     'a has unknown tier "gold": shop.catalog.yml:5; none is declared; declare it first'),
    ("unknown repository", "services:\n  a: {host: h, repository: lokal}",
     'a has unknown repository "lokal": shop.catalog.yml:5; did you mean "local"?'),
    ("unknown repository of a tier", "tiers: {gold: {repository: s3}}\nservices: {a: {host: h}}",
     'tier gold has unknown repository "s3": shop.catalog.yml:4; repositories are local'),
    ("unknown group", "consistency_groups: {checkout: {}}\nservices:\n  a: {host: h, consistency_group: chekout}",
     'a has unknown consistency group "chekout": shop.catalog.yml:6; did you mean "checkout"?'),
    ("group of one", "services:\n  a: {host: h, consistency_group: checkout}\n  b: {host: h, consistency_group: checkout}\n"
     "  c: {host: h, consistency_group: checkuot}",
     'consistency group "checkuot" has one member, c: shop.catalog.yml:7; did you mean "checkout"?'),
    ("rpo that the schedule cannot meet", "tiers:\n  gold: {rpo: 10s, schedule: {full: weekly, incremental: hourly}}\nservices: {a: {host: h}}",
     "rpo 10s of tier gold cannot be met: its shortest interval is incremental every 1h: shop.catalog.yml:5; "
     "capture more often (schedule), capture logs continuously, or promise less"),
    ("rpo without schedule", "tiers:\n  gold: {rpo: 10s}\nservices: {a: {host: h}}",
     "rpo of tier gold is met by nothing: shop.catalog.yml:5; give the tier a schedule"),
    ("path outside its root", "services:\n  a: {host: h, sources: {f: {type: files, path: /srv/a/../../etc}}}",
     'services.a.sources.f.path leaves its root ("/srv/a/../../etc"): shop.catalog.yml:5; write the path without ..'),
    ("relative path", "services:\n  a: {host: h, sources: {f: {type: files, path: srv/a}}}",
     'services.a.sources.f.path is not an absolute path ("srv/a"): shop.catalog.yml:5; begin it with /'),
    ("path that is not normal", "services:\n  a: {host: h, sources: {f: {type: files, path: /srv//a/.}}}",
     'services.a.sources.f.path is not in its shortest form ("/srv//a/."): shop.catalog.yml:5; write /srv/a'),
    ("root as a source", "services:\n  a: {host: h, sources: {f: {type: files, path: /}}}",
     "services.a.sources.f.path is the root directory: shop.catalog.yml:5; name a directory below it"),
    ("control character in a path", 'services:\n  a: {host: h, sources: {f: {type: files, path: "/srv/a\\nb"}}}',
     "services.a.sources.f.path holds a control character: shop.catalog.yml:5; remove it"),
    ("tasks file outside the catalog's directory", "services:\n  a: {host: h, runtime: {start: {tasks: ../start.yml}}}",
     'services.a.runtime.start.tasks leaves the directory of the catalog ("../start.yml"): shop.catalog.yml:5; '
     "give a path below that directory, without .."),
    ("tasks file that is not there", "services:\n  a: {host: h, runtime: {start: {tasks: start.yml}}}",
     "tasks file start.yml does not exist: shop.catalog.yml:5; create it beside the catalog"),
    ("two sources that overlap", "services:\n  a: {host: h, sources: {f: {type: files, path: /srv/a}}}\n"
     "  b: {host: h, sources: {f: {type: files, path: /srv/a/b}}}",
     "b.f (/srv/a/b) and a.f (/srv/a) overlap on h: shop.catalog.yml:6; let one source own the data; a restore swaps the whole of it"),
    ("files in a data directory", "services:\n  a: {host: h, sources: {d: {type: postgresql_database, database: x, data_directory: /pg}}}\n"
     "  b: {host: h, sources: {d: {type: postgresql_database, database: y, data_directory: /pg}, f: {type: files, path: /pg/base}}}",
     "b.f (/pg/base) and a.d (/pg) overlap on h: shop.catalog.yml:6; let one source own the data; a restore swaps the whole of it\n"
     "b.f (/pg/base) and b.d (/pg) overlap on h: shop.catalog.yml:6; let one source own the data; a restore swaps the whole of it"),
    ("repository inside a source", "services:\n  a: {host: h, sources: {f: {type: files, path: /srv}}}",
     "a.f (/srv) overlaps with repository local (/srv/backup): shop.catalog.yml:5; move repository local out of the data that it protects"),
    ("two owners of a database", "services:\n  a: {host: h, sources: {d: {type: postgresql_database, database: x}}}\n"
     "  b: {host: g, sources: {d: {type: postgresql_database, database: x, host: h}}}",
     "b.d and a.d own database x on the server at port 5432 of h: shop.catalog.yml:6; let one service own it; the other one requires that service"),
    ("two owners of a redis", "services:\n  a: {host: h, sources: {d: {type: redis}}}\n  b: {host: h, sources: {d: {type: redis}}}",
     "b.d and a.d own the same server (port 6379 of h): shop.catalog.yml:6; let one service own it; the other one requires that service"),
    ("an own cluster that is shared", "services:\n  a: {host: h, sources: {d: {type: postgresql_database, database: x, cluster: own}}}\n"
     "  b: {host: h, sources: {d: {type: postgresql_database, database: y, address: localhost}}}",
     "b.d and a.d share the server at port 5432 of h, but a.d says cluster: own: shop.catalog.yml:6; "
     "say cluster: shared, or give the other one its own server"),
    ("a database in a cluster that is captured whole", "services:\n  a: {host: h, sources: {d: {type: postgresql, data_directory: /pg}}}\n"
     "  b: {host: h, sources: {d: {type: postgresql_database, database: y}}}",
     "b.d and a.d own the same cluster on the server at port 5432 of h: a.d captures and restores all of it: shop.catalog.yml:6; "
     "make the cluster a service of its own that the others require, or let each own its postgresql_database"),
    *((f"log: {wrong}", "services:\n  a:\n    host: h\n    sources:\n      d:\n        type: postgresql\n        data_directory: /pg\n        log:\n"
       f"          {wrong}", said) for wrong, said in (
        ("spoool: /x", 'unknown key "spoool" in services.a.sources.d.log: shop.catalog.yml:12; did you mean "spool"?'),
        ("spool: x", 'services.a.sources.d.log.spool is not an absolute path ("x"): shop.catalog.yml:12; begin it with /'),
        ("spool_limit: 1M", "services.a.sources.d.log.spool_limit is out of range (1M): shop.catalog.yml:12; choose 67108864 or more"),
        ("spool_limit: much", 'services.a.sources.d.log.spool_limit must be a size, is the text "much": shop.catalog.yml:12; '
                              'write bytes, or a number with K, M, G or T, as "4G"'),
        ("interval: often", 'services.a.sources.d.log.interval must be a number, is the text "often": shop.catalog.yml:12; write it without quotes'),
        ("interval: 0", "services.a.sources.d.log.interval is out of range (0): shop.catalog.yml:12; choose 0.1 to 60"),
    )),
    ("a log that is no mapping", "services:\n  a: {host: h, sources: {d: {type: postgresql, data_directory: /pg, log: true}}}",
     "services.a.sources.d.log must be a mapping, is the boolean true: shop.catalog.yml:5; known keys are spool, spool_limit, interval"),
    ("a log that is looked at too rarely", "tiers: {gold: {rpo: 10s, schedule: {full: daily, logs: continuous}}}\n"
     "services:\n  a:\n    host: h\n    tier: gold\n    sources:\n      d:\n        type: postgresql\n        data_directory: /pg\n"
     "        log:\n          interval: 10",
     "rpo 10s of tier gold cannot be met: the log of a.d is looked at every 10s: shop.catalog.yml:14; "
     "set log.interval well below the rpo, or promise less"),
    ("unsafe service name", "services:\n  Orders: {host: h}",
     'services.Orders is not a safe name ("Orders"): shop.catalog.yml:5; use small letters, digits, - and _, at most 63, '
     "not beginning with - or _"),
    ("service name with a path", "services:\n  ../etc: {host: h}",
     'services.../etc is not a safe name ("../etc"): shop.catalog.yml:5; use small letters, digits, - and _, at most 63, '
     "not beginning with - or _"),
    ("reserved service name", "services:\n  all: {host: h}",
     'service name "all" is reserved: shop.catalog.yml:5; choose another name'),
    ("host that is a template", "services:\n  a: {host: \"{{ lookup('pipe', 'id') }}\"}",
     "services.a.host is not a host name (\"{{ lookup('pipe', 'id') }}\"): shop.catalog.yml:5; give the name of one inventory host"),
    ("host that breaks out of a template", "services:\n  a: {host: \"x'] | foo\"}",
     "services.a.host is not a host name (\"x'] | foo\"): shop.catalog.yml:5; give the name of one inventory host"),
    ("text for a number", "services:\n  a:\n    host: h\n    priority: high",
     'services.a.priority must be a whole number, is the text "high": shop.catalog.yml:7; write digits without quotes'),
    ("quoted number", "services:\n  a: {host: h, sources: {c: {type: redis, port: '6379'}}}",
     'services.a.sources.c.port must be a whole number, is the text "6379": shop.catalog.yml:5; write digits without quotes'),
    ("boolean for a number", "services:\n  a: {host: h, priority: true}",
     "services.a.priority must be a whole number, is the boolean true: shop.catalog.yml:5; write digits without quotes"),
    ("number for text", "services:\n  a: {host: h, owner: 7}",
     "services.a.owner must be text, is the number 7: shop.catalog.yml:5; put it in quotes"),
    ("list for a mapping", "services: [a, b]",
     "services must be a mapping, is a list: shop.catalog.yml:4; write name: value pairs"),
    ("mapping for a list", "services:\n  a: {host: h, invariants: {name: x}}",
     "services.a.invariants must be a list, is a mapping: shop.catalog.yml:5; write a list: [..] or lines that begin with -"),
    ("text for a service", "services:\n  a: yes please",
     "services.a must be a mapping, is the text \"yes please\": shop.catalog.yml:5; known keys are owner, domain, tier, host, runtime, requires, "
     "consistency_group, priority, sources, health, invariants, schema, prewarm, policy, repository, copies"),
    ("not a boolean", "production: perhaps\nservices: {a: {host: h}}",
     'production must be true or false, is the text "perhaps": shop.catalog.yml:4; write true or false'),
    ("not a duration", "tiers: {gold: {rto: 5 minutes}}\nservices: {a: {host: h}}",
     'tiers.gold.rto must be a duration, is the text "5 minutes": shop.catalog.yml:4; write seconds, or a number with ms, s, m, h, d or w, as "5m"'),
    ("not an interval", "tiers: {gold: {schedule: {full: fortnightly}}}\nservices: {a: {host: h}}",
     "tiers.gold.schedule.full is not an interval (fortnightly): shop.catalog.yml:4; write hourly, daily, weekly, monthly or a duration"),
    ("negative retention", "tiers: {gold: {retention: {daily: -1}}}\nservices: {a: {host: h}}",
     "tiers.gold.retention.daily is out of range (-1): shop.catalog.yml:4; choose from 0 to 100000"),
    ("command as text", "services:\n  a: {host: h, runtime: {start: systemctl start a}}",
     "services.a.runtime.start must be a command list or a mapping: shop.catalog.yml:5; "
     'write ["program", "word"], {unit: name.service} or {tasks: file.yml}'),
    ("empty command", "services:\n  a: {host: h, runtime: {start: []}}",
     "services.a.runtime.start is an empty command: shop.catalog.yml:5; name the program to run"),
    ("command with a list in it", "services:\n  a: {host: h, runtime: {start: [sh, [x]]}}",
     "services.a.runtime.start[1] must be a word, is a list: shop.catalog.yml:5; put it in quotes"),
    ("neither unit nor tasks", "services:\n  a: {host: h, runtime: {start: {}}}",
     "services.a.runtime.start does nothing: shop.catalog.yml:5; give exactly one of unit, tasks"),
    ("probe of two kinds", "services:\n  a: {host: h, health: [{tcp: 'h:1', http: 'http://h/'}]}",
     "services.a.health[0] has http and tcp together: shop.catalog.yml:5; give exactly one of http, tcp, sql, command"),
    ("probe of no kind", "services:\n  a: {host: h, health: [{timeout: 5}]}",
     "services.a.health[0] does nothing: shop.catalog.yml:5; give exactly one of http, tcp, sql, command"),
    ("probe with a stranger's key", "services:\n  a: {host: h, health: [{tcp: 'h:1', expect_status: 200}]}",
     "services.a.health[0] has expect_status, which does not belong to tcp: shop.catalog.yml:5; remove expect_status; it goes with http"),
    ("sql probe without comparison", "services:\n  a: {host: h, sources: {d: {type: postgresql_database, database: a}}, health: [{sql: select 1}]}",
     "services.a.health[0] compares with nothing: shop.catalog.yml:5; add equals:"),
    ("probe with a bad address", "services:\n  a: {host: h, health: [{tcp: 'localhost'}]}",
     'services.a.health[0].tcp is not host:port ("localhost"): shop.catalog.yml:5; write for example "127.0.0.1:8081"'),
    ("probe with a bad URL", "services:\n  a: {host: h, health: [{http: 'ftp://x/'}]}",
     'services.a.health[0].http has an unknown scheme ("ftp://x/"): shop.catalog.yml:5; begin it with http:// or https://'),
    ("probe with a password", "services:\n  a: {host: h, health: [{http: 'http://u:p@x/'}]}",
     "services.a.health[0].http holds a user or password: shop.catalog.yml:5; remove it; catalogs hold no secrets"),
    ("status that does not exist", "services:\n  a: {host: h, health: [{http: 'http://x/', expect_status: 42}]}",
     "services.a.health[0].expect_status is out of range (42): shop.catalog.yml:5; choose from 100 to 599"),
    ("invariant without name", "services:\n  a: {host: h, invariants: [{command: [id]}]}",
     "missing key name in services.a.invariants[0]: shop.catalog.yml:5; add name:"),
    ("invariant without comparison", "services:\n  a: {host: h, sources: {d: {type: redis}}, invariants: [{name: x, redis: [GET, a]}]}",
     "services.a.invariants[0] compares with nothing: shop.catalog.yml:5; give exactly one of equals, at_least, at_most"),
    ("invariant with two comparisons", "services:\n  a: {host: h, invariants: [{name: x, command: [id], at_least: 1, at_most: 2}]}",
     "services.a.invariants[0] has at_least and at_most together: shop.catalog.yml:5; give exactly one of equals, at_least, at_most"),
    ("http invariant without json", "services:\n  a: {host: h, invariants: [{name: x, http: 'http://x/', equals: 1}]}",
     "services.a.invariants[0] does not say what to compare: shop.catalog.yml:5; add json: with a JMESPath expression"),
    ("invariants of one name", "services:\n  a:\n    host: h\n    invariants:\n      - {name: x, command: [id]}\n      - {name: x, command: [id]}",
     'a has two invariants named "x": shop.catalog.yml:9; the first is at line 8; rename one'),
    ("sql without a database", "services:\n  a: {host: h, invariants: [{name: x, sql: select 1, equals: 1}]}",
     "services.a.invariants[0] asks sql, but the service has no such source: shop.catalog.yml:5; declare the source, or use another kind of check"),
    ("sql with two databases", "services:\n  a:\n    host: h\n    sources: {d: {type: postgresql_database, database: d}, "
     "e: {type: postgresql_database, database: e}}\n"
     "    invariants: [{name: x, sql: select 1, equals: 1}]",
     "services.a.invariants[0] does not say which source to ask (d, e): shop.catalog.yml:8; add source:"),
    ("sql of an unknown source", "services:\n  a:\n    host: h\n    sources: {db: {type: postgresql_database, database: d}}\n"
     "    invariants: [{name: x, sql: select 1, source: bd, equals: 1}]",
     'services.a.invariants[0].source is unknown ("bd"): shop.catalog.yml:8; sources are db'),
    ("sql of a redis", "services:\n  a:\n    host: h\n    sources: {db: {type: postgresql_database, database: d}, c: {type: redis}}\n"
     "    invariants: [{name: x, sql: select 1, source: c, equals: 1}]",
     "services.a.invariants[0].source is of type redis and cannot be asked sql: shop.catalog.yml:8; sources that can are db"),
    ("reconcile with an unknown service", "services: {a: {host: h}}\nreconcile:\n  - name: x\n    left: {service: a, command: [id]}\n"
     "    right: {service: b, command: [id]}\n    relation: subset",
     'reconcile[0].right names unknown service "b": shop.catalog.yml:8; services are a'),
    ("reconcile with an unknown relation", "services: {a: {host: h}}\nreconcile:\n  - {name: x, left: {service: a, command: [id]}, "
     "right: {service: a, command: [id]}, relation: subsets}",
     'reconcile[0].relation is unknown ("subsets"): shop.catalog.yml:6; did you mean "subset"?'),
    ("unknown variable", "variables: {data_root: /srv}\nservices:\n  a: {host: h, sources: {f: {type: files, path: '${dataroot}/a'}}}",
     'unknown variable "dataroot": shop.catalog.yml:6; did you mean "data_root"?'),
    ("variables in a circle", "variables: {a: '${b}', b: '${a}'}\nservices: {a: {host: h}}",
     "variables refer to each other in a circle (a -> b -> a): shop.catalog.yml:4; give one of them a value"),
    ("variable that is a list", "variables: {a: [1]}\nservices: {a: {host: h}}",
     "variable a is not a scalar: shop.catalog.yml:4; variables hold text, numbers and booleans only"),
    ("unset environment variable", "services:\n  a: {host: '${env:SHOP_HOST}'}",
     "environment variable SHOP_HOST is not set: shop.catalog.yml:5; export SHOP_HOST before the run"),
    ("secret from the environment", "services:\n  a: {host: '${env:VAULT_TOKEN}'}",
     "environment variable VAULT_TOKEN looks like a secret: shop.catalog.yml:5; "
     "catalogs are stored with every snapshot; refer to a file that holds it instead"),
    ("unfinished reference", "services:\n  a: {host: h, owner: 'a ${b'}",
     "unfinished ${ reference: shop.catalog.yml:5; write ${name}, or $${ for the two characters themselves"),
    ("missing variables file", "variables: {file: values.yml}\nservices: {a: {host: h}}",
     "variables file: cannot read the file (No such file or directory): shop.catalog.yml:4; see values.yml:1; check the path and its permissions"),
    ("variables file from an unset environment variable",
     "variables: {file: '${env:NOWHERE}/v.yml'}\nservices: {a: {host: '${name}'}}",
     "environment variable NOWHERE is not set: shop.catalog.yml:4; export NOWHERE before the run"),
    ("alias", "variables: {a: &x 1}\nservices: {a: {host: *x}}",
     "anchor &x: shop.catalog.yml:4; anchors are not read; use variables for shared values"),
    ("alias of nothing", "services: {a: {host: *x}}",
     "alias *x: shop.catalog.yml:4; aliases are not read; write the value, or use variables"),
    ("merge key", "services:\n  a:\n    <<: {host: h}",
     "merge key <<: shop.catalog.yml:6; merge keys are not read; write the keys out, or use variables"),
    ("tag", "services: {a: {host: !!python/object/apply:os.system [id]}}",
     "tag tag:yaml.org,2002:python/object/apply:os.system: shop.catalog.yml:4; tags are not read; remove it"),
    ("mapping as a key", "services: {[a]: {host: h}}",
     "a mapping key that is not a word: shop.catalog.yml:4; write keys as plain words"),
    ("broken YAML", "services:\n  a: {host: h",
     "not valid YAML (expected ',' or '}', but got '<stream end>'): shop.catalog.yml:5; check indentation, colons and quotes there"),
    ("tab", "services:\n\ta: {host: h}",
     "not valid YAML (found character '\\t' that cannot start any token): shop.catalog.yml:5; check indentation, colons and quotes there"),
    ("two documents", "services: {a: {host: h}}\n---\nx: 1",
     "more than one YAML document: shop.catalog.yml:6; keep one catalog per file"),
    ("a control character", "services: {a: {host: \"h\x01\"}}",
     "a character that YAML does not allow: shop.catalog.yml:4; save the file as plain UTF-8 text"),
    ("no services", "services: {}",
     "services is empty: shop.catalog.yml:4; declare at least one"),
    ("services left out", "production: true",
     "missing key services: shop.catalog.yml:1; add services:"),
]

#: Lines 1 and 2 of most catalogs below.
FILE_HEAD = "plugin: lifeboat.recovery.catalog\nrepositories: {l: {url: 'file:///srv/b'}}\n"
TAIL = "keys: {provider: file, path: /k}\nservices: {a: {host: h}}"

#: Catalogs that are wrong in their head.
BAD_HEADS: list[tuple[str, str, str]] = [
    ("another plugin", "plugin: lifeboat.recovery.katalog\nrepositories: {local: {url: file:///srv/b}}\n" + TAIL,
     'plugin is unknown ("lifeboat.recovery.katalog"): shop.catalog.yml:1; did you mean "lifeboat.recovery.catalog"?'),
    ("relative repository", "plugin: lifeboat.recovery.catalog\nrepositories: {local: {url: file://srv/b}}\n" + TAIL,
     'repositories.local.url is not a local path ("file://srv/b"): shop.catalog.yml:2; write file:///absolute/path'),
    ("repository with a password", "plugin: lifeboat.recovery.catalog\nrepositories: {g: {url: 's3://a:b@bucket'}}\n" + TAIL,
     "repositories.g.url holds a user or password: shop.catalog.yml:2; remove it; catalogs hold no secrets"),
    ("s3 key of a directory", FILE_HEAD.replace("}}", ", region: x}}") + TAIL,
     "repositories.l.region does not belong to a directory repository: shop.catalog.yml:2; remove it, or use an s3:// url"),
    ("unknown key provider", FILE_HEAD + "keys: {provider: valt, path: /k}\nservices: {a: {host: h}}",
     'keys.provider is unknown ("valt"): shop.catalog.yml:3; did you mean "vault"?'),
    ("keys of the other provider", FILE_HEAD + "keys: {provider: file, path: /k, url: 'https://v'}\nservices: {a: {host: h}}",
     "keys.url does not belong to provider file: shop.catalog.yml:3; remove it; it goes with provider vault"),
    ("keys without a path", FILE_HEAD + "keys: {provider: file}\nservices: {a: {host: h}}",
     "keys has no path: shop.catalog.yml:3; add path: for provider file"),
    ("a secret in the login", FILE_HEAD + "keys: {provider: vault, url: 'https://v', auth: {method: approle, secret_id: s}}\nservices: {a: {host: h}}",
     "keys.auth.secret_id is a secret, and catalogs are stored with every snapshot: shop.catalog.yml:3; write it to a file and name that file"),
    ("an option of another login", FILE_HEAD + "keys: {provider: vault, url: 'https://v', auth: {method: approle, token_file: x}}\nservices: {a: {host: h}}",
     'unknown key "token_file" in keys.auth: shop.catalog.yml:3; did you mean "role_id_file"?'),
    ("an unknown login", FILE_HEAD + "keys: {provider: vault, url: 'https://v', auth: {method: approl}}\nservices: {a: {host: h}}",
     'keys.auth.method is unknown ("approl"): shop.catalog.yml:3; did you mean "approle"?'),
    ("a token in the login", FILE_HEAD + "keys: {provider: vault, url: 'https://v', auth: {method: jwt, role_id: r, jwt: s}}\nservices: {a: {host: h}}",
     "keys.auth.jwt is a secret, and catalogs are stored with every snapshot: shop.catalog.yml:3; write it to a file and name that file"),
    ("a relative key of a certificate",
     FILE_HEAD + "keys: {provider: vault, url: 'https://v', auth: {method: cert, cert_auth_private_key: host.key}}\nservices: {a: {host: h}}",
     'keys.auth.cert_auth_private_key is not an absolute path ("host.key"): shop.catalog.yml:3; begin it with /'),
    ("a proxy with a password", FILE_HEAD + "keys: {provider: vault, url: 'https://v', proxies: {https: 'http://u:p@proxy'}}\nservices: {a: {host: h}}",
     "keys.proxies.https holds a user or password: shop.catalog.yml:3; remove it; catalogs hold no secrets"),
    ("vault without url", FILE_HEAD + "keys: {provider: vault}\nservices: {a: {host: h}}",
     "keys has no url: shop.catalog.yml:3; add url: for provider vault"),
    ("an unknown scheme", FILE_HEAD.replace("file:///srv/b", "ftp://x") + TAIL,
     'repositories.l.url has an unknown scheme ("ftp://x"): shop.catalog.yml:2; begin it with file:// or s3://'),
    ("a list", "- a", "a catalog that is not a mapping: shop.catalog.yml:1; begin with plugin: lifeboat.recovery.catalog"),
    ("empty", "# nothing\n", "the file is empty: shop.catalog.yml:1; declare services; docs/catalog.md lists every key"),
]


@pytest.mark.parametrize("body, line", [pytest.param(body, line, id=name) for name, body, line in BAD])
def test_one_fault_is_one_exact_line(load: Callable[..., Any], body: str, line: str) -> None:
    with pytest.raises(CatalogError) as caught:
        load(HEAD + body)
    assert str(caught.value) == line


@pytest.mark.parametrize("text, line", [pytest.param(text, line, id=name) for name, text, line in BAD_HEADS])
def test_one_fault_of_the_head(load: Callable[..., Any], text: str, line: str) -> None:
    with pytest.raises(CatalogError) as caught:
        load(text)
    assert str(caught.value).splitlines() == [line]


def test_all_faults_come_at_once_in_the_order_of_the_file(load: Callable[..., Any]) -> None:
    with pytest.raises(CatalogError) as caught:
        load(HEAD + "tires: {}\nservices:\n  a: {host: h, requires: [b, zz]}\n  b: {host: h, requires: [a], ownr: x}\n  c: {host: 7}\n")
    assert str(caught.value).splitlines() == [
        'unknown key "tires": shop.catalog.yml:4; did you mean "tiers"?',
        'a requires unknown service "zz": shop.catalog.yml:6; services are a, b, c',
        "requirements form a cycle a -> b -> a: shop.catalog.yml:6; remove one of these requirements",
        'unknown key "ownr" in services.b: shop.catalog.yml:7; did you mean "owner"?',
        "services.c.host must be text, is the number 7: shop.catalog.yml:8; put it in quotes",
    ]
    assert caught.value.code == "config"
    assert caught.value.as_dict()["where"] == "shop.catalog.yml:4"


def test_a_fault_in_a_variables_file_names_that_file(load: Callable[..., Any], tmp_path: Any) -> None:
    (tmp_path / "values.yml").write_text("port: 1\nport: 2\n")
    with pytest.raises(CatalogError) as caught:
        load(HEAD + "variables: {file: values.yml}\nservices: {a: {host: h}}")
    assert str(caught.value) == 'key "port" is given twice: values.yml:2; the first is at line 1; rename or remove one'


def test_a_link_does_not_lead_a_tasks_file_out(load: Callable[..., Any], tmp_path: Any) -> None:
    (tmp_path / "start.yml").symlink_to("/etc/hostname")
    with pytest.raises(CatalogError, match="tasks file start.yml leads out of the directory of the catalog: shop.catalog.yml:5"):
        load(HEAD + "services:\n  a: {host: h, runtime: {start: {tasks: start.yml}}}")


#: Behind two lines: what is wrong with copies of repositories.
COPIES: list[tuple[str, str, str]] = [
    ("copy of nothing", "repositories:\n  local: {url: file:///srv/b}\n  far: {url: file:///srv/c, copy_of: locl}\nservices: {a: {host: h}}",
     'repository far is a copy of "locl", which is unknown: shop.catalog.yml:5; did you mean "local"?'),
    ("copy of itself", "repositories:\n  local: {url: file:///srv/b}\n  far: {url: file:///srv/c, copy_of: far}\nservices: {a: {host: h}}",
     "repository far is a copy of itself: shop.catalog.yml:5; name the repository that services write to"),
    ("copy of a copy", "repositories:\n  local: {url: file:///srv/b}\n  far: {url: file:///srv/c, copy_of: local}\n"
     "  tape: {url: file:///srv/d, copy_of: far}\nservices: {a: {host: h}}",
     "repository tape is a copy of far, which is a copy itself: shop.catalog.yml:6; name its original: local"),
    ("copy at the same place", "repositories:\n  local: {url: file:///srv/b}\n  far: {url: file:///srv/b, copy_of: local}\nservices: {a: {host: h}}",
     "repositories local and far are one place (file:///srv/b): shop.catalog.yml:5; give each a url of its own"),
    ("interval of no copy", "repositories:\n  local: {url: file:///srv/b, every: 1h}\nservices: {a: {host: h}}",
     "repository local is copied every 3600s and is no copy: shop.catalog.yml:4; add copy_of: NAME, or remove every"),
    ("service that writes to a copy", "repositories:\n  local: {url: file:///srv/b}\n  far: {url: file:///srv/c, copy_of: local}\n"
     "services:\n  a: {host: h, repository: far}",
     'a has the repository "far", which is a copy of local: shop.catalog.yml:7; name local; its copies follow'),
    ("copies that are none", "repositories:\n  local: {url: file:///srv/b}\n  other: {url: file:///srv/c}\n"
     "tiers:\n  gold: {copies: other}\nservices: {a: {host: h}}",
     'tier gold has the copy "other", which is no copy of local: shop.catalog.yml:7; add copy_of: local to it'),
    ("unknown copies", "repositories:\n  local: {url: file:///srv/b}\n  far: {url: file:///srv/c, copy_of: local}\n"
     "services:\n  a:\n    host: h\n    copies: [fra]",
     'a has the copy "fra", which is unknown: shop.catalog.yml:9; did you mean "far"?'),
]


@pytest.mark.parametrize("body, line", [pytest.param(body, line, id=name) for name, body, line in COPIES])
def test_one_fault_of_copies_is_one_exact_line(load: Callable[..., Any], body: str, line: str) -> None:
    with pytest.raises(CatalogError) as caught:
        load("plugin: lifeboat.recovery.catalog\nkeys: {provider: file, path: /etc/lifeboat/keys}\n" + body)
    assert str(caught.value) == line
