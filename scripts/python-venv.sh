#!/usr/bin/env bash
# Makes a Python environment of the tests, once, and prints its interpreter's path. It lies in the cache, named by the pinned
# versions that it holds; nothing is written into the repository.
#
#   scripts/python-venv.sh                           what most tests need: tests/python/requirements.txt
#   scripts/python-venv.sh requirements-hub.txt      another list of tests/python
set -euo pipefail

say() { printf 'python: %s\n' "$*" >&2; }

requirements="$(cd "$(dirname "$0")/.." && pwd)/tests/python/${1:-requirements.txt}"
venv="${XDG_CACHE_HOME:-$HOME/.cache}/steelyard/venv-$(sha256sum "$requirements" | cut -c1-16)"
if [ ! -e "$venv/.complete" ]; then
    # One at a time: tests ask for it in parallel.
    mkdir -p "$(dirname "$venv")"
    exec 9>"$venv.lock"
    flock 9
fi
if [ ! -e "$venv/.complete" ]; then
    say "making $venv"
    rm -rf "$venv"
    if ! python3 -m venv "$venv" >&2; then
        say "python3 can't make environments: on Debian, apt-get install python3-venv"
        exit 1
    fi
    "$venv/bin/pip" --disable-pip-version-check --quiet install --no-deps -r "$requirements" >&2
    touch "$venv/.complete"
fi
echo "$venv/bin/python"
