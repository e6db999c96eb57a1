"""minilm.py WEIGHTS-FOLDER GOLDEN-FOLDER: embeddings of all-MiniLM-L6-v2 as its own pipeline makes them."""

import pathlib
import sys

import torch
from common import rounded, versions, write
from transformers import AutoTokenizer, BertModel

SENTENCES = [
    "The cat sits outside.",
    "A man is playing guitar, naïvely & loudly — at 3 a.m.!",
    "Die Würde des Menschen ist unantastbar.",
    "漢字と🦀 unaffable [SEP] text",
    "weights " * 100,
]
# So many values of each embedding are kept, evenly spread, and the whole vector of the first.
KEPT = 48


@torch.no_grad()
def main():
    folder, target = map(pathlib.Path, sys.argv[1:3])
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = BertModel.from_pretrained(folder, add_pooling_layer=False, dtype=torch.float32).eval()
    cases = []
    for number, text in enumerate(SENTENCES):
        tokens = tokenizer(text, split_special_tokens=True).input_ids
        hidden = model(torch.tensor([tokens])).last_hidden_state[0]
        embedding = torch.nn.functional.normalize(hidden.mean(0), dim=0)
        step = 1 if number == 0 else len(embedding) // KEPT
        cases.append({"text": text, "tokens": tokens, "step": step, "embedding": rounded(embedding[::step].tolist())})
    write(target / "minilm.json", {"made_by": versions(), "model": "all-MiniLM-L6-v2", "cases": cases})


main()
