# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Loaded by Python itself when this folder is in PYTHONPATH: notes what each task of ansible-playbook costs. For measurements only.

One line per task and host in the file that LIFEBOAT_PROBE names: {"action", "task", "worker": CPU seconds of the worker, "children": of what it
ran}.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import json
import os
import sys
from typing import Any

_WORKER = "ansible.executor.process.worker"


class _Finder(importlib.abc.MetaPathFinder):
    """Wraps the worker's work as soon as Ansible has loaded it."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        if fullname != _WORKER:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is None or spec.loader is None:
            return spec
        load = spec.loader.exec_module

        def exec_module(module: Any) -> None:
            load(module)
            work = module.WorkerProcess._run

            def noted(worker: Any) -> Any:
                try:
                    return work(worker)
                finally:
                    used = os.times()
                    line = json.dumps({
                        "action": worker._task.action, "task": worker._task.name, "worker": used.user + used.system,
                        "children": used.children_user + used.children_system,
                    })
                    with open(os.environ["LIFEBOAT_PROBE"], "a", encoding="utf-8") as handle:
                        handle.write(line + "\n")

            module.WorkerProcess._run = noted

        spec.loader.exec_module = exec_module
        return spec


if os.environ.get("LIFEBOAT_PROBE") and any(word.endswith("ansible-playbook") for word in sys.orig_argv[:3]):
    sys.meta_path.insert(0, _Finder())
