#!/usr/bin/env bash
# Licences, sources and bans of the dependencies, as deny.toml says.
#
#   scripts/check-dependencies.sh            with cargo-deny where it is installed, else with the script beside this one
#   scripts/check-dependencies.sh --install  puts cargo-deny into the cache first (several minutes, once)
set -euo pipefail
cd "$(dirname "$0")/.."

tools="${XDG_CACHE_HOME:-$HOME/.cache}/steelyard/tools"
export PATH="$PATH:$tools/bin"

if [ "${1:-}" = --install ] && ! command -v cargo-deny >/dev/null; then
    cargo install cargo-deny --locked --root "$tools"
fi
if command -v cargo-deny >/dev/null; then
    cargo deny --locked --offline check bans licenses sources
    # Advisories come from a database that is fetched; where it can't be, the rest still counts.
    if ! cargo deny fetch db >/dev/null 2>&1; then
        echo "deny: the advisory database can't be reached; advisories were not checked" >&2
    else
        cargo deny --locked check advisories
    fi
else
    python3 scripts/check_dependencies.py
fi
