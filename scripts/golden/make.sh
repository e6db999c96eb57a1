#!/usr/bin/env bash
# Makes the golden files in inference/tests/golden anew with torch and transformers, the reference.
#
#   scripts/golden/make.sh tiny               the small random models of every architecture, weights included
#   scripts/golden/make.sh lora               adapters for some of them, as PEFT writes them
#   scripts/golden/make.sh minilm             embeddings of all-MiniLM-L6-v2, the real weights
#   scripts/golden/make.sh smollm2 [FOLDER]   SmolLM2's answers; into FOLDER its weights, dequantised, as safetensors
#
# Nobody needs this to run the tests: their files are in the repository. The environment takes about 6 GB in the cache.
set -euo pipefail
cd "$(dirname "$0")/../.."

venv="${XDG_CACHE_HOME:-$HOME/.cache}/steelyard/venv-golden"
if [ ! -x "$venv/bin/python" ] || ! "$venv/bin/python" -c 'import torch, transformers, gguf, accelerate, peft' 2>/dev/null; then
    python3 -m venv "$venv"
    "$venv/bin/pip" --disable-pip-version-check install --quiet 'torch>=2.11' 'transformers>=5' accelerate peft gguf safetensors
fi
case "${1:-}" in
tiny) exec "$venv/bin/python" scripts/golden/tiny.py inference/tests/golden ;;
lora) exec "$venv/bin/python" scripts/golden/lora.py inference/tests/golden ;;
minilm) exec "$venv/bin/python" scripts/golden/minilm.py "$(dirname "$(scripts/fetch-weights.sh minilm)")" inference/tests/golden ;;
smollm2) exec "$venv/bin/python" scripts/golden/smollm2.py "$(scripts/fetch-weights.sh smollm2)" inference/tests/golden "${@:2}" ;;
*)
    sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
