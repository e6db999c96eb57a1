"""What the stock clients of the Hugging Face Hub see at a node: one scenario a run, in a fresh cache.

    python -m hub SCENARIO ARGUMENT...        with HF_ENDPOINT and HF_HOME set

Runs with huggingface_hub 2.x and 0.36 alike. Ends with 0 when everything was as it should be.
"""

import sys

from . import errors, pushing, reading, tools

SCENARIOS = {
    "read": reading.everything,
    "names": reading.names,
    "filesystem": reading.filesystem,
    "snapshot": reading.snapshot,
    "errors": errors.classes,
    "recalled": errors.recalled,
    "refused": errors.refused,
    "tokens": errors.tokens,
    "wrong-token": errors.wrong_token,
    "push-folder": pushing.folder,
    "push-large-folder": pushing.large_folder,
    "push-commits": pushing.commits,
    "push-onto-release": pushing.onto_release,
    "push-refused": pushing.refused,
    "push-full": pushing.full,
    "push-file": pushing.push_file,
    "transformers": tools.transformers,
    "model": tools.model,
}

SCENARIOS[sys.argv[1]](*sys.argv[2:])
