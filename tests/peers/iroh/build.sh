#!/usr/bin/env bash
# Builds the iroh-blobs peer of the benchmarks into the cache, outside the repository, and prints the program's path.
# Several hundred crates: some minutes on two cores, once.
set -euo pipefail
cd "$(dirname "$0")"
target="${XDG_CACHE_HOME:-$HOME/.cache}/steelyard/iroh-peer"
CARGO_TARGET_DIR="$target" cargo build --release --locked >&2
echo "$target/release/iroh-peer"
