"""Pushing with the stock clients, by both routes: HF_HUB_DISABLE_XET=1 in the environment leaves that of Git LFS."""

import io
import os
import pathlib
import warnings

import huggingface_hub
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    HfApi,
    hf_hub_download,
)
from huggingface_hub.errors import (
    BadRequestError,
    EntryNotFoundError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from .errors import raises

NEWEST = int(huggingface_hub.__version__.split(".")[0]) >= 1


def files_of(folder):
    folder = pathlib.Path(folder)
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def same(api, model, revision, wanted):
    """What is at a revision is what was pushed, each byte of it."""
    listed = set(api.list_repo_files(model, revision=revision))
    assert listed == set(wanted), f"{sorted(listed)} and not {sorted(wanted)}"
    for path, content in wanted.items():
        got = hf_hub_download(model, path, revision=revision, token=api.token)
        assert pathlib.Path(got).read_bytes() == content, path


def folder(model, folder):
    """upload_folder, twice; what was pushed is read again; others see nothing of it."""
    api = HfApi(token=os.environ["HF_TOKEN"])
    url = api.create_repo(model)
    assert url.repo_id == model, url
    assert api.create_repo(model, exist_ok=True).repo_id == model
    raises(HfHubHTTPError, api.create_repo, model, says="there already")
    wanted = files_of(folder)
    pushed = api.upload_folder(repo_id=model, folder_path=folder, commit_message="the first")
    same(api, model, "main", wanted)
    same(api, model, pushed.oid, wanted)
    same(api, model, "staged/main", wanted)
    again = api.upload_folder(repo_id=model, folder_path=folder)
    assert again.oid == pushed.oid, "nothing changed, so there is no commit"
    commits = api.list_repo_commits(model)
    assert [commit.title for commit in commits] == ["the first", "initial commit"], commits
    raises(RepositoryNotFoundError, HfApi(token=False).model_info, model)


def large_folder(model, folder):
    """upload_large_folder, which prepares, uploads and commits by itself."""
    api = HfApi(token=os.environ["HF_TOKEN"])
    api.create_repo(model, exist_ok=True)
    if not hasattr(api, "upload_large_folder"):
        return
    wanted = {path: content for path, content in files_of(folder).items() if not path.startswith(".cache")}
    api.upload_large_folder(repo_id=model, repo_type="model", folder_path=folder)
    same(api, model, "main", wanted)


def commits(model, other):
    """create_commit: adding, taking away, copying; a stale parent is refused; branches and tags."""
    api = HfApi(token=os.environ["HF_TOKEN"])
    api.create_repo(model)
    weights = pathlib.Path(other).read_bytes()
    first = api.create_commit(
        model,
        [
            CommitOperationAdd("a.txt", b"one"),
            CommitOperationAdd("deep/b.txt", b"two"),
            CommitOperationAdd("deep/c.txt", b"three"),
            CommitOperationAdd("model.safetensors", other),
            CommitOperationAdd("empty.txt", b""),
        ],
        commit_message="add",
    )
    second = api.create_commit(
        model,
        [
            CommitOperationDelete("deep/"),
            CommitOperationDelete("a.txt"),
            CommitOperationCopy("model.safetensors", "copy/model.safetensors"),
            CommitOperationAdd("new.txt", io.BytesIO(b"four")),
        ],
        commit_message="change",
        parent_commit=first.oid,
    )
    wanted = {"model.safetensors": weights, "copy/model.safetensors": weights, "new.txt": b"four", "empty.txt": b""}
    same(api, model, "main", wanted)
    add = [CommitOperationAdd("late.txt", b"late")]
    stale = raises(HfHubHTTPError, api.create_commit, model, add, commit_message="late", parent_commit=first.oid)
    assert stale.response.status_code == 412 and "look at what changed" in str(stale), stale
    same(api, model, "main", wanted)
    gone = [CommitOperationDelete("nothing.txt")]
    raises(EntryNotFoundError, api.create_commit, model, gone, commit_message="none", says="doesn't exist")
    # The first commit is still there, and can be copied from and branched at.
    back = [CommitOperationCopy("deep/b.txt", "b.txt", src_revision=first.oid)]
    api.create_commit(model, back, commit_message="back")
    assert api.file_exists(model, "b.txt")
    api.create_branch(model, branch="old", revision=first.oid)
    raises(HfHubHTTPError, api.create_branch, model, branch="old", says="there already")
    api.create_branch(model, branch="old", exist_ok=True)
    api.create_tag(model, tag="v0", revision="old")
    raises(HfHubHTTPError, api.create_tag, model, tag="v0", revision="old", says="there already")
    api.upload_file(path_or_fileobj=b"{}", path_in_repo="config.json", repo_id=model, revision="old")
    refs = api.list_repo_refs(model)
    assert {branch.name for branch in refs.branches} == {"main", "old"}, refs
    assert {tag.name: tag.target_commit for tag in refs.tags} == {"v0": first.oid}, refs
    assert api.file_exists(model, "config.json", revision="old") and not api.file_exists(model, "config.json")
    assert api.file_exists(model, "a.txt", revision="v0")
    api.delete_tag(model, tag="v0")
    raises(RevisionNotFoundError, api.model_info, model, revision="v0")
    api.delete_branch(model, branch="old")
    raises(RevisionNotFoundError, api.delete_branch, model, branch="old")
    raises(RevisionNotFoundError, api.upload_file, path_or_fileobj=b"x", path_in_repo="x.txt", repo_id=model, revision="old")
    assert second.oid == api.list_repo_commits(model)[1].commit_id


def onto_release(model, path):
    """A branch begins with what is released, and is what the one who pushes sees from then on."""
    api = HfApi(token=os.environ["HF_TOKEN"])
    before = set(api.list_repo_files(model))
    parent = api.model_info(model).sha
    pushed = api.upload_file(
        path_or_fileobj=path, path_in_repo="added.safetensors", repo_id=model, parent_commit=parent, commit_message="more"
    )
    assert set(api.list_repo_files(model)) == before | {"added.safetensors"}
    assert api.model_info(model).sha == pushed.oid != parent
    api.delete_file("config.json", model)
    assert set(HfApi(token=False).list_repo_files(model)) == before, "others see the release"
    raises(HfHubHTTPError, api.create_branch, model, branch="main", says="there already")


def refused(model, read_token, ended_token):
    """Each is refused with the class that the client has for it, and nothing is left of it."""
    api = HfApi(token=os.environ["HF_TOKEN"])
    api.create_repo(model)
    raises(RepositoryNotFoundError, api.upload_file, path_or_fileobj=b"x", path_in_repo="x.txt", repo_id=model + "2")
    nation = model.split("/")[0]
    raises(HfHubHTTPError, api.create_repo, "borea/theirs", says=nation)
    for token, says in ((read_token, "for reading"), (ended_token, "Invalid"), ("hf_" + "0" * 40, "Invalid")):
        wrong = HfApi(token=token)
        raises(HfHubHTTPError, wrong.upload_file, path_or_fileobj=b"x", path_in_repo="x.txt", repo_id=model, says=says)
        raises(HfHubHTTPError, wrong.create_repo, model + "3", says=says)
    raises(
        (HfHubHTTPError, ValueError), HfApi(token=False).upload_file, path_or_fileobj=b"x", path_in_repo="x.txt", repo_id=model
    )

    def push(path, content, error=BadRequestError, says=""):
        raises(error, api.upload_file, path_or_fileobj=content, path_in_repo=path, repo_id=model, says=says)

    pickle = b"\x80\x04\x95" + os.urandom(2000)
    for path, content in (("pytorch_model.bin", b"\0" * 3000), ("training_args.bin", pickle), ("weights.dat", pickle)):
        push(path, content, says="safetensors")
    # A pickle that calls itself something harmless and begins so.
    push("model.safetensors", pickle, says="pickle")
    push("run.py", b"print('x')\n", says="source text")
    push("broken.safetensors", b"\xff\0\0\0\0\0\0\0{}", says="broken.safetensors")
    secret = "hf_" + "AbCdEfGhIjKlMnOpQrStUvWxYz012345678"
    push("config.json", f'{{\n "a": 1,\n "token": "{secret}"\n}}'.encode(), says="line 3")
    key = "-----BEGIN PRIVATE KEY-----\n" + "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSj\n" * 8
    push("notes.md", ("# Notes\n" + key).encode(), says="private key")
    push("long.txt", ("x" * 79 + "\n").encode() * 5000 + key.encode(), says="line 5001")
    for path in ("a/" * 20 + "x.txt", "x" * 300 + ".txt", "a\\b.txt", "a\0b.txt", "a:b.txt", "a//b.txt", " a.txt"):
        push(path, b"x", says="")
    twice = [CommitOperationAdd("Readme.txt", b"x"), CommitOperationAdd("readme.txt", b"y")]
    raises(BadRequestError, api.create_commit, model, twice, commit_message="case", says="collide")
    inside = [CommitOperationAdd("a.txt", b"x"), CommitOperationAdd("a.txt/b.txt", b"y")]
    raises(BadRequestError, api.create_commit, model, inside, commit_message="folder", says="collide")
    card = "---\nlicense: mit\n# no end\n"
    raises(ValueError, api.upload_file, path_or_fileobj=card.encode(), path_in_repo="README.md", repo_id=model, says="metadata")
    raises(HfHubHTTPError, api.upload_file, path_or_fileobj=b"x", path_in_repo="x.txt", repo_id=model, create_pr=True)
    assert api.list_repo_files(model) == [], "nothing of it is there"
    warnings.simplefilter("ignore")
    api.upload_file(path_or_fileobj=b"---\nlicense: mit\n---\n# Fine\n", path_in_repo="README.md", repo_id=model)
    assert api.list_repo_files(model) == ["README.md"]


def full(model, path):
    """There is no room: the client is told so, and small things go on."""
    api = HfApi(token=os.environ["HF_TOKEN"])
    api.create_repo(model, exist_ok=True)
    raised = raises(Exception, api.upload_file, path_or_fileobj=path, path_in_repo="model.safetensors", repo_id=model)
    said = "".join(str(it) for it in (raised, raised.__cause__))
    assert "507" in said or "room" in said or "fit" in said, repr(raised)
    api.upload_file(path_or_fileobj=b"fits", path_in_repo="small.txt", repo_id=model)
    assert "model.safetensors" not in api.list_repo_files(model)


def push_file(model, path, name):
    api = HfApi(token=os.environ["HF_TOKEN"])
    api.create_repo(model, exist_ok=True)
    api.upload_file(path_or_fileobj=path, path_in_repo=name, repo_id=model)
