#!/usr/bin/python
# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: service_discovery
short_description: See what runs on a host and who is connected to whom
version_added: 0.1.0
author:
  - Lifeboat contributors (@lifeboat-recovery)
description:
  - Reads listening and established TCP sockets with their processes, control groups and network namespaces, and asks declared PostgreSQL and Redis
    servers for their clients. A process is told as a service where the declaration of one fits it.
  - One call per host. M(lifeboat.recovery.discovery) makes the declarations of the catalog, and compares what hosts answered with it.
  - As another user than root it sees the processes of that user only, and says how many it may not look into.
options:
  services:
    description:
      - Service to what is declared to be on this host. C(units) are names of systemd units, C(paths) data directories, C(ports) pairs of host and port,
        C(databases) source to its entry in the catalog.
    type: dict
    required: true
  seconds:
    description:
      - For how long connections are watched; V(0) looks twice. Connections that are opened for a moment only are seen by looking longer.
    type: float
    default: 0
attributes:
  check_mode:
    description: This module changes nothing.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
  idempotent:
    description: It changes nothing.
    support: full
requirements:
  - Linux with /proc
  - psycopg2 and redis, where such sources are declared
"""

EXAMPLES = r"""
- name: What runs here
  lifeboat.recovery.service_discovery:
    services:
      orders: {units: [orders], paths: [/srv/orders], ports: [[127.0.0.1, 8080]]}
    seconds: 5
"""

RETURN = r"""
spaces:
  description: Network namespace to its addresses without loopback.
  type: dict
  returned: success
own_space:
  description: Which of them is that of the host itself.
  type: str
  returned: success
listening:
  description: >-
    Listeners, C(space), C(address), C(port), C(services), C(by) (which declaration fits), C(program), C(unit) and C(container), the labels of its container.
  type: list
  elements: dict
  returned: success
connections:
  description: Connections made from here, C(space), C(remote), C(remote_port), C(local) (pairs of address and port), and whose they are as for RV(listening).
  type: list
  elements: dict
  returned: success
local:
  description: Connections through sockets in the file system, C(path), C(to) (services that listen), and whose they are as for RV(listening).
  type: list
  elements: dict
  returned: success
clients:
  description: >-
    Clients of declared databases, C(service), C(source), C(kind), C(database), C(user), C(application), C(address), C(port), C(server_pid), and
    C(peer), whose a client through the server's own socket is.
  type: list
  elements: dict
  returned: success
running:
  description: The declared services of which something runs here.
  type: list
  elements: str
  returned: success
visible:
  description: Those of them whose processes were seen, and not only a listener at their port.
  type: list
  elements: str
  returned: success
hidden:
  description: How many processes this user may not look into.
  type: int
  returned: success
not_looked:
  description: >-
    Why C(systemd), C(labels) of containers or the kernel for C(local) sockets were not asked; absent where they were, or where there was nothing to ask for.
  type: dict
  returned: success
notes:
  description: Why a database was not asked.
  type: list
  elements: str
  returned: success
error:
  description: What went wrong, C(code), C(what), C(where) and C(remedy).
  type: dict
  returned: failure
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.lifeboat.recovery.plugins.module_utils import arguments
from ansible_collections.lifeboat.recovery.plugins.module_utils.errors import LifeboatError, StorageError


def main():
    module = arguments.quiet(AnsibleModule)(
        argument_spec={"services": {"type": "dict", "required": True}, "seconds": {"type": "float", "default": 0}}, supports_check_mode=True,
    )
    from ansible_collections.lifeboat.recovery.plugins.module_utils.discovery.look import look

    try:
        told = look(module.params["services"], module.params["seconds"])
    except LifeboatError as error:
        module.fail_json(msg=str(error), error=error.as_dict())
    except OSError as error:
        refused = StorageError(f"the operating system refused ({error.strerror or error})", str(error.filename or ""), "look as root")
        module.fail_json(msg=str(refused), error=refused.as_dict())
    module.exit_json(changed=False, **told)


if __name__ == "__main__":
    main()
