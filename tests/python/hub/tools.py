"""Tools that read models by the hub's client."""

from pathlib import Path


def transformers(model, folder):
    """Settings and tokenizer, equal to those of the folder."""
    from transformers import AutoConfig, AutoTokenizer

    ours, theirs = (AutoConfig.from_pretrained(where).to_dict() for where in (model, folder))
    # Where it came from differs.
    for settings in (ours, theirs):
        settings.pop("_name_or_path", None)
    assert ours == theirs and ours["hidden_size"] == 384, (ours, theirs)
    text = "A steelyard is a balance for weighing goods."
    ours, theirs = (AutoTokenizer.from_pretrained(where)(text) for where in (model, folder))
    assert ours["input_ids"] == theirs["input_ids"] and len(ours["input_ids"]) > 8


def model(model, folder):
    """The weights themselves: the same numbers come out. Needs torch."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    inputs = AutoTokenizer.from_pretrained(folder)("Weigh this.", return_tensors="pt")
    with torch.no_grad():
        outputs = [AutoModel.from_pretrained(where)(**inputs).last_hidden_state for where in (model, folder)]
    assert torch.equal(*outputs) and outputs[0].shape[-1] == 384
    assert Path(folder).is_dir()
