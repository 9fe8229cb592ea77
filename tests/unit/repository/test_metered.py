# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who reads through a wrapper sees what the place itself would say."""

from __future__ import annotations

import pytest

from ansible_collections.lifeboat.recovery.plugins.module_utils.repository.backend import Backend
from ansible_collections.lifeboat.recovery.plugins.module_utils.repository.fallback import FallbackBackend
from ansible_collections.lifeboat.recovery.plugins.module_utils.repository.metered import MeteredBackend

WRITING = {"prepare", "probe", "new", "replace", "keep", "hold", "create", "free_bytes"}


@pytest.mark.parametrize("wrapper", [MeteredBackend, FallbackBackend])
def test_a_wrapper_answers_no_question_by_itself(wrapper: type[Backend]) -> None:
    asked = {name for name, member in vars(Backend).items() if callable(member) and not name.startswith("_")} - WRITING
    # older versions are what a place of a fallback looks for by itself
    assert asked - set(vars(wrapper)) <= ({"older"} if wrapper is FallbackBackend else set())
