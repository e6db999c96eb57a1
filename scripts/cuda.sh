#!/usr/bin/env bash
# Builds `steelyard` with CUDA, on a machine that needs neither a GPU nor NVIDIA's driver, and prints the binary's path.
#
#   scripts/cuda.sh                       candle with CUDA; llama.cpp stays on the CPU
#   CUDA_COMPUTE_CAP=80 scripts/cuda.sh   for another card than Hopper's (90): 80 is A100, 89 is Ada, 100 is Blackwell
#   STEELYARD_CUDA_FEATURE=cuda-llama     llama.cpp with CUDA, too: about an hour more of one core, and untried
#
# The toolkit comes from the Python registry, pinned by version and hash (scripts/cuda-requirements.txt): 0.7 GB to fetch, 2 GB
# unpacked. It, the build's folder and a copy of one crate lie in the cache; nothing is written into the repository, and the
# ordinary build neither knows nor needs any of it. The binary starts without a driver and says so.
set -euo pipefail

say() { printf 'cuda: %s\n' "$*" >&2; }

readonly CANDLE=0.11.1
repository="$(cd "$(dirname "$0")/.." && pwd)"
cache="${XDG_CACHE_HOME:-$HOME/.cache}/steelyard/cuda"
requirements="$repository/scripts/cuda-requirements.txt"
feature="${STEELYARD_CUDA_FEATURE:-cuda}"
export CUDA_COMPUTE_CAP="${CUDA_COMPUTE_CAP:-90}"

mkdir -p "$cache"
# One build at a time: they share all that lies there.
exec 9>"$cache/lock"
flock 9

# 1. The toolkit, with the names that build scripts look for.
toolkit="$cache/toolkit-$(sha256sum "$requirements" | cut -c1-16)"
root="$toolkit/nvidia/cu13"
if [ ! -e "$toolkit/.complete" ]; then
    say "fetching the toolkit into $toolkit"
    rm -rf "$toolkit"
    # pip's own unpacking needs an environment of its own to work in on systems that manage theirs.
    [ -x "$cache/pip/bin/pip" ] || python3 -m venv "$cache/pip" >&2
    "$cache/pip/bin/pip" --disable-pip-version-check --quiet install --no-deps --no-cache-dir --require-hashes \
        --only-binary :all: --target "$toolkit" -r "$requirements" >&2
    ln -s lib "$root/lib64"
    for library in "$root"/lib/*.so.*; do
        plain="${library%%.so.*}.so"
        [ -e "$plain" ] || ln -s "$(basename "$library")" "$plain"
    done
    # The runtime is linked in. A folder that holds nothing else, so that the linker finds no shared one first.
    mkdir "$toolkit/static"
    ln -s "$root/lib/libcudart_static.a" "$toolkit/static/libcudart.a"
    touch "$toolkit/.complete"
fi
export CUDA_HOME="$root" CUDA_PATH="$root" CUDA_ROOT="$root" CUDA_TOOLKIT_ROOT_DIR="$root"
export PATH="$root/bin:$PATH" LIBRARY_PATH="$toolkit/static${LIBRARY_PATH:+:$LIBRARY_PATH}"

# 2. candle-core asks for a binary that the loader refuses where there is no driver (its issue 3900). One word in its manifest.
candle="$cache/candle-core-$CANDLE"
if [ ! -e "$candle/.complete" ]; then
    (cd "$repository" && cargo fetch --locked >&2)
    crate=("${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/candle-core-"$CANDLE")
    if [ ! -d "${crate[0]}" ]; then
        say "candle-core $CANDLE is not where cargo keeps sources; does Cargo.lock name another version?"
        exit 1
    fi
    rm -rf "$candle"
    cp -r "${crate[0]}" "$candle"
    chmod -R u+w "$candle"
    if [ "$(grep -c '"dynamic-linking"' "$candle/Cargo.toml")" != 1 ]; then
        say "candle-core's manifest is not as expected: look at what it asks of cudarc, and at this script"
        exit 1
    fi
    sed -i 's/"dynamic-linking"/"fallback-dynamic-loading"/' "$candle/Cargo.toml"
    touch "$candle/.complete"
fi

# 3. The workspace as it is, but with a lock file of its own: naming the changed crate changes one entry.
tree="$cache/tree"
rm -rf "$tree"
mkdir "$tree"
for part in .cargo Cargo.toml registry node inference cli tests specs clippy.toml; do
    ln -s "$repository/$part" "$tree/$part"
done
cp "$repository/Cargo.lock" "$tree/Cargo.lock"
cd "$tree"
export CARGO_TARGET_DIR="$cache/target"
patch=(--config "patch.crates-io.candle-core.path='$candle'")
say "compiling for compute capability $CUDA_COMPUTE_CAP; the first time takes tens of minutes"
cargo build --release --workspace --features "steelyard/$feature" --bin steelyard "${patch[@]}" >&2
# Every other crate must be the one that the repository pins.
if ! diff <(grep -A1 '^name = ' "$repository/Cargo.lock") <(grep -A1 '^name = ' Cargo.lock) >&2; then
    say "the build took other crates than Cargo.lock names"
    exit 1
fi

binary="$cache/steelyard"
cp "$CARGO_TARGET_DIR/release/steelyard" "$binary.new"
strip "$binary.new"
mv "$binary.new" "$binary"
echo "$binary"
