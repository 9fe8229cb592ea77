# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A version that the set-up could not fetch is not left out unseen."""

from __future__ import annotations

from ansible_collections.lifeboat.recovery.tests.lab.postgres import QUICK, bin_dirs


def test_every_version_that_is_promised_is_tested() -> None:
    found = bin_dirs()
    assert min(found) <= min(QUICK), found
    assert {17, 18} <= set(found), f"{found}; .dev/setup.log says why one is missing; `make setup` tries again"
