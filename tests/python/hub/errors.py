"""Each of the client's error classes, by what it is meant for."""

import logging

import huggingface_hub
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    DisabledRepoError,
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)


def raises(error, call, *args, says="", **kwargs):
    try:
        call(*args, **kwargs)
    except error as raised:
        assert says in str(raised), f"`{says}` is not in: {raised}"
        return raised
    raise AssertionError(f"{error.__name__} was not raised by {args} {kwargs}")


def classes(model, file):
    api = HfApi()
    nation = model.split("/")[0]
    for name in ("nobody/nothing", f"{nation}/nothing", "gpt2"):
        raised = raises(RepositoryNotFoundError, api.model_info, name)
        assert not isinstance(raised, GatedRepoError), raised
        raises(RepositoryNotFoundError, hf_hub_download, name, file)
    raises(RepositoryNotFoundError, api.dataset_info, model)
    raises(RevisionNotFoundError, api.model_info, model, revision="9.9", says="it has")
    raises(RevisionNotFoundError, hf_hub_download, model, file, revision="9.9")
    raises(RevisionNotFoundError, snapshot_download, model, revision="0" * 40)
    raises(EntryNotFoundError, hf_hub_download, model, "nothing.bin")
    raises(EntryNotFoundError, lambda: list(api.list_repo_tree(model, "no/folder")))
    raises(HfHubHTTPError, lambda: list(api.list_models(search="x" * 1000)), says="letters")
    api.auth_check(model)


class Heard(logging.Handler):
    """What the client tells its user."""

    def __init__(self):
        super().__init__()
        self.lines = []
        logging.getLogger("huggingface_hub").addHandler(self)

    def emit(self, record):
        self.lines.append(record.getMessage())


def recalled(model, file, old, new):
    """`old` is recalled; `new` is not, and whoever fetches it is told."""
    api, heard = HfApi(), Heard()
    hf_hub_download(model, file, revision=new)
    # 0.36 does not look at the warning header.
    if int(huggingface_hub.__version__.split(".")[0]) >= 1:
        said = " ".join(heard.lines)
        assert f"{model}@{old} was recalled" in said and "leaks" in said, heard.lines
    raises(DisabledRepoError, api.model_info, model, revision=old)
    # A download wraps it: the cache could have had the file.
    raised = raises(Exception, hf_hub_download, model, file, revision=old)
    assert isinstance(raised.__cause__, DisabledRepoError), repr(raised.__cause__)


def refused(model, file, why):
    """The node's policy does not give it: the client's class for what one may not have, and the reason."""
    raises(GatedRepoError, HfApi().model_info, model, says=why)
    raises(GatedRepoError, hf_hub_download, model, file, says=why)
    raises(GatedRepoError, HfApi().auth_check, model)


def tokens(model, file, token, nation, role):
    api = HfApi(token=token)
    who = api.whoami()
    assert who["name"] == nation and who["auth"]["accessToken"]["role"] == role, who
    hf_hub_download(model, file, token=token)
    raises(RepositoryNotFoundError, api.model_info, "nobody/nothing")
    anonymous = HfApi(token=False)
    raises(GatedRepoError, anonymous.model_info, model, says="token")


def wrong_token(model, token):
    api = HfApi(token=token)
    raised = raises(HfHubHTTPError, api.model_info, model, says="Invalid credentials")
    assert not isinstance(raised, (RepositoryNotFoundError, GatedRepoError)), raised
    assert raised.response.status_code == 401
    # 0.36 raises the error of its HTTP library here.
    raises(Exception, api.whoami)
