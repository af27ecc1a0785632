#!/bin/sh
# Make a virtual environment in $1 with the Python named by $PYTHON (3.11 or newer).
set -eu
venv=$1
python=${PYTHON:-python3}
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    for newer in python3.13 python3.12 python3.11; do
        if command -v "$newer" >/dev/null 2>&1; then python=$newer; break; fi
    done
fi
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "make: Python 3.11 or newer is needed (set PYTHON=/path/to/python3)" >&2
    exit 1
fi
# Debian ships Python without the part that venv needs.
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        apt-get update -qq && apt-get install -y -qq python3-venv >/dev/null
    else
        echo "make: the package python3-venv is needed: sudo apt-get install python3-venv" >&2
        exit 1
    fi
fi
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
