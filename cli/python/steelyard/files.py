"""The files of a snapshot against the signed release: what lacks, what differs, what is there besides."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import Dict, Iterator, List, Set

from blake3 import blake3

from .core.statement import ATTACHMENTS, Statement

# A release has at most 16,384 files in folders of at most 16 levels (document 03); more is not looked at.
MAX_ENTRIES = 262_144
MAX_DEPTH = 24
BLOCK = 1024 * 1024
# What clients keep beside the files they fetched: our own evidence, and the state of `hf download --local-dir`.
ASIDE = {".steelyard", ".cache/huggingface"}


class Findings:
    """What is wrong with a folder; empty lists where nothing is."""

    def __init__(self) -> None:
        self.missing: List[str] = []
        self.changed: List[str] = []
        self.extra: List[str] = []
        self.checked, self.bytes = 0, 0


def paths(folder: Path) -> Iterator[str]:
    """Every entry below `folder` that is no folder. A link to a folder is told as itself, and never followed."""
    count, todo = 0, [("", 0)]
    while todo:
        inside, depth = todo.pop()
        with os.scandir(folder / inside) as entries:
            for entry in entries:
                count += 1
                path = f"{inside}/{entry.name}" if inside else entry.name
                if count > MAX_ENTRIES or depth > MAX_DEPTH:
                    raise ValueError(f"{folder} holds more than a release can: over {MAX_ENTRIES} entries or {MAX_DEPTH} levels")
                if path in ASIDE:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    todo.append((path, depth + 1))
                else:
                    yield path


def same(path: Path, size: int, blake: str, sha: str) -> bool:
    """Whether the file holds what was signed: length, BLAKE3 and SHA-256, of one reading."""
    # Not to wait for whoever feeds a pipe.
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(handle, "rb", buffering=0) as file:
        known = os.fstat(handle)
        if not stat.S_ISREG(known.st_mode) or known.st_size != size:
            return False
        one, two, left = blake3(), hashlib.sha256(), size
        while True:
            block = file.read(BLOCK)
            if not block:
                break
            left -= len(block)
            if left < 0:
                return False
            one.update(block)
            two.update(block)
    return left == 0 and one.hexdigest() == blake and two.hexdigest() == sha


def compare(folder: Path, release: Statement) -> Findings:
    """Reads every file of `folder` once."""
    found, here = Findings(), set(paths(folder))
    signed: Dict[str, bool] = {}
    for file, (_, blake, sha) in zip(release.predicate["files"], release.subjects):
        path = file["path"]
        # The record of an import is a part of the release that folders leave out.
        signed[path] = ATTACHMENTS.get(file["mediaType"]) != "import"
        if path not in here:
            if signed[path]:
                found.missing.append(path)
            continue
        try:
            good = same(folder / path, file["size"], blake, sha)
        except OSError:
            good = False
        if good:
            found.checked += 1
            found.bytes += file["size"]
        else:
            found.changed.append(path)
    extra: Set[str] = here - set(signed)
    found.extra = sorted(extra)
    return found
