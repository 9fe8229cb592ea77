#!/bin/sh
# Copyright (c) Lifeboat contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Find a Python that can be the controller and let setup.py do the rest.
# PYTHON=/path/to/python overrides the search.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)

for candidate in "${PYTHON:-}" python3 python3.13 python3.12 python3.11 python3.14 /usr/bin/python3; do
    [ -n "$candidate" ] || continue
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
        exec "$candidate" "$here/setup.py" "$@"
    fi
done

echo "setup: no Python 3.11 or newer found on PATH; install it (Debian, Ubuntu: apt-get install python3 python3-venv) or set PYTHON=/path/to/python3.11" >&2
exit 1
