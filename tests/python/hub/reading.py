"""Reading: metadata, downloads, the file system."""

import hashlib
from pathlib import Path

from huggingface_hub import HfApi, HfFileSystem, hf_hub_download, snapshot_download


def files(folder):
    """Every file below `folder`, by its path there."""
    folder = Path(folder)
    return {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}


def sha256(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def same(one, other):
    one, other = files(one), files(other)
    assert set(one) == set(other), (set(one) ^ set(other))
    for name in one:
        assert sha256(one[name]) == sha256(other[name]), name


def snapshot(model, folder, revision=None):
    same(snapshot_download(model, revision=revision or None), folder)


def everything(model, folder, release):
    """Metadata and files of the newest release of `model`, which is `folder`."""
    api = HfApi()
    commit = release.removeprefix("b3:")[:40]
    wanted = files(folder)

    info = api.model_info(model, files_metadata=True)
    assert info.sha == commit and info.id == model, info
    assert not info.private and not info.gated and not info.disabled
    assert info.last_modified is not None and info.author == model.split("/")[0]
    assert {s.rfilename for s in info.siblings} == set(wanted)
    for sibling in info.siblings:
        path = wanted[sibling.rfilename]
        assert sibling.size == path.stat().st_size, sibling
        assert sibling.lfs.sha256 == sha256(path), sibling
    assert api.model_info(model, revision=commit).sha == commit
    assert api.model_info(model, expand=["sha"]).sha == commit

    tree = list(api.list_repo_tree(model, recursive=True))
    assert {e.path for e in tree if hasattr(e, "size") and hasattr(e, "blob_id")} == set(wanted)
    top = {e.path for e in api.list_repo_tree(model)}
    assert top == {name.split("/")[0] for name in wanted}, top
    assert set(api.list_repo_files(model)) == set(wanted)

    name = next(iter(wanted))
    (one,) = api.get_paths_info(model, [name, "not/there"], expand=True)
    assert one.path == name and one.last_commit.oid == commit
    assert api.file_exists(model, name) and not api.file_exists(model, "nothing.bin")
    assert api.repo_exists(model) and not api.repo_exists(model + "x")
    assert api.revision_exists(model, commit) and not api.revision_exists(model, "0" * 40)

    for name, path in wanted.items():
        assert sha256(hf_hub_download(model, name)) == sha256(path), name
    same(snapshot_download(model), folder)


def names(model, *pairs):
    """Revisions and the commits that they are: `main=…`."""
    api = HfApi()
    for pair in pairs:
        revision, _, release = pair.partition("=")
        commit = release.removeprefix("b3:")[:40]
        assert api.model_info(model, revision=revision).sha == commit, pair
    refs = api.list_repo_refs(model, include_pull_requests=True)
    assert refs.branches[0].name == "main", refs
    assert {ref.name for ref in refs.tags} == {"1", "2"}, refs
    commits = api.list_repo_commits(model)
    assert commits[0].commit_id == refs.branches[0].target_commit, commits
    assert len(commits) == 2 and commits[0].created_at >= commits[1].created_at
    found = [entry.id for entry in api.list_models(search=model.split("/")[1][:4].upper(), limit=10)]
    assert model in found, found
    assert [entry.id for entry in api.list_models(author=model.split("/")[0])].count(model) == 1
    assert not list(api.list_models(search="nothing-is-called-so"))
    assert list(api.list_models(limit=1)), "a page of one"


def filesystem(model, folder):
    """Folders and ranges by HfFileSystem."""
    fs = HfFileSystem()
    wanted = files(folder)
    assert set(fs.find(model)) == {f"{model}/{name}" for name in wanted}
    assert {e.split("/")[-1] for e in fs.ls(model, detail=False)} == {name.split("/")[0] for name in wanted}
    largest = max(wanted, key=lambda name: wanted[name].stat().st_size)
    path, content = f"{model}/{largest}", wanted[largest].read_bytes()
    assert fs.info(path)["size"] == len(content) and fs.isfile(path) and not fs.exists(path + "x")
    with fs.open(path, block_size=1 << 20) as reader:
        for start, length in ((len(content) - 7, 100), (0, 10), (len(content) // 2, 300_000)):
            reader.seek(start)
            assert reader.read(length) == content[start : start + length], (start, length)
    assert fs.cat_file(path, start=5, end=25) == content[5:25]
    for name in wanted:
        if wanted[name].stat().st_size < 1 << 20:
            assert fs.cat_file(f"{model}/{name}") == wanted[name].read_bytes(), name
