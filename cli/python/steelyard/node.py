"""A node, as a client sees it: the generated interface, and what takes more than one request."""

from __future__ import annotations

import os
import re
import ssl
import time
from pathlib import Path
from typing import Iterator, Mapping, Optional, Set

from ._http import NodeError, Transport
from .api import Api
from .core.basic import Refused, is_digest
from .evidence import PLACE, Evidence, compose
from .schemas import RecallEntry

# A feed that broke off is opened again after so many seconds.
AGAIN = 5.0


class Node(Api):
    """A node at `http://host:port`, or at `unix:/path/to/steelyard.sock` on its own machine.

    The methods that are not here are generated: `status()`, `models()`, `releases_digest(…)`, `recalls()`, `events(…)` and more.
    """

    def __init__(self, endpoint: str, headers: Optional[Mapping[str, str]] = None, context: Optional[ssl.SSLContext] = None) -> None:
        super().__init__(Transport(endpoint, headers, context))

    def evidence(self, reference: str) -> Evidence:
        """Everything signed about the release that `reference` means: `nation/name[:channel|@version]` or a digest. The roots of
        every nation that the node knows come with it, since they say who witnessed."""
        release = reference if is_digest(reference) else self.resolve(reference)["release"]
        found = self.releases_digest_evidence(release)
        statements = list(found["statements"])
        for nation in self.nations():
            for envelopes in self.nations_nation_roots(nation["nation"]):
                statements.append({"envelopes": envelopes})
        try:
            whole = compose(release, found["made"], statements)
        except Refused as refused:
            raise NodeError(f"the node's evidence is not well formed: {refused}") from None
        # Roots of the producer came twice, with and without their proofs; the first counts.
        once, seen = [], set()
        for entry, read in zip(statements, whole.statements):
            if read.signed.digest not in seen:
                seen.add(read.signed.digest)
                once.append(entry)
        return compose(release, found["made"], once)

    def release_of(self, folder: os.PathLike) -> str:
        """The digest of the release whose snapshot lies in `folder`, told by the names that `snapshot_download` gives."""
        found = snapshot_name(Path(folder))
        if found is None:
            raise ValueError(f"{folder} is not named as a snapshot of a hub's client; say which release it is")
        model, commit = found
        nation, name = model.split("/")
        for release in self.models_nation_name(nation, name)["releases"]:
            if release["release"][3:].startswith(commit):
                return release["release"]
        raise NodeError(f"the node knows no release of {model} that begins with {commit}")

    def save_evidence(self, folder: os.PathLike, reference: Optional[str] = None) -> Path:
        """Puts the evidence about a snapshot beside its files, as `.steelyard/evidence.json`, where `verify` looks for it."""
        return self.evidence(reference or self.release_of(folder)).write(Path(folder) / PLACE)

    def recall_feed(self, seen: Optional[Set[str]] = None, again: float = AGAIN) -> Iterator[RecallEntry]:
        """Every recall that the node knows, the oldest first, and then each as it arrives, for ever. A stream that breaks off or
        was too slow is opened again and nothing is told twice; `seen` holds the recalls that are known already, and grows."""
        seen = set() if seen is None else seen
        while True:
            try:
                # Opened before the list is read: what comes in between is in one of them.
                happened = self.events("recall")
                yield from self._unseen(seen)
                for _ in happened:
                    yield from self._unseen(seen)
            except NodeError as error:
                if error.status is not None and error.status not in (429, 503):
                    raise
            time.sleep(again)

    def _unseen(self, seen: Set[str]) -> Iterator[RecallEntry]:
        for recall in reversed(self.recalls()):
            if recall["recall"] not in seen:
                seen.add(recall["recall"])
                yield recall


def snapshot_name(folder: Path):
    """Model and commit of a folder `models--NATION--NAME/snapshots/COMMIT`, or nothing."""
    parts = folder.absolute().parts[-3:]
    if len(parts) == 3 and parts[1] == "snapshots" and re.fullmatch("[0-9a-f]{40}", parts[2]):
        words = parts[0].split("--")
        if len(words) == 3 and words[0] == "models":
            return f"{words[1]}/{words[2]}", parts[2]
    return None
