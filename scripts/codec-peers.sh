#!/usr/bin/env bash
# Runs scripts/codec_peers.py with its Python packages, which lie in the cache. A package that can't be had is left out of the table.
set -euo pipefail

say() { printf 'peers: %s\n' "$*" >&2; }

venv="${XDG_CACHE_HOME:-$HOME/.cache}/steelyard/venv-codec"
[ -x "$venv/bin/pip" ] || python3 -m venv "$venv" >&2
# ZipNN's front asks for torch (5 GB); its compiled core, which is what is measured, does not.
for package in numpy==2.4.6 zstandard==0.25.0 lz4==4.4.5 zipnn==0.5.4; do
    marker="$venv/.has-$package"
    [ -e "$marker" ] && continue
    if "$venv/bin/pip" --disable-pip-version-check --quiet install --no-deps "$package" >&2; then
        touch "$marker"
    else
        say "could not install $package; going on without"
    fi
done
exec "$venv/bin/python" "$(dirname "$0")/codec_peers.py" "$@"
