# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Internal to the collection: may change in any release.
"""Something outside that grants access, as it is and as it shall be; a plan is a list of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable


@dataclass(frozen=True)
class Thing:
    """kind, name: as an operator names it. before, after: its text, None where there is nothing. apply: makes ``before`` into ``after``."""

    kind: str
    name: str
    before: str | None
    after: str | None
    apply: Callable[[], None]

    @property
    def action(self) -> str:
        """``create``, ``update``, ``delete`` or ``none``."""
        if self.before == self.after:
            return "none"
        return "create" if self.before is None else "delete" if self.after is None else "update"

    def as_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "name": self.name, "action": self.action}

    def diff(self) -> dict[str, Any]:
        """As Ansible shows differences."""
        header = f"{self.kind} {self.name}"
        return {"before_header": header, "after_header": header, "before": self.before or "", "after": self.after or ""}
