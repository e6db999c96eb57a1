"""The node's public interface: made by `cli/python/generate.py` from the node's OpenAPI document. Not to be changed by hand."""

from __future__ import annotations

from typing import Any, Dict, Iterator, List, Optional

from ._http import Transport, segment
from .schemas import (
    AttachmentEntry, Card, Event, Evidence, EvidenceEntry, Health, LogPlace, LogStatus, ModelEntry, NationEntry,
    RecallEntry, ReleaseDetail, Resolved, SignInAt, Status,
)


class Api:
    """A method for each public route. What goes wrong is raised as a `NodeError`."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport

    def healthz(self) -> Health:
        """Whether the process answers."""
        return self.transport.json("/healthz")

    def readyz(self) -> Health:
        """Whether the node listens for peers."""
        return self.transport.json("/readyz")

    def status(self) -> Status:
        """The node at a glance."""
        return self.transport.json("/v1/status")

    def models(self) -> List[ModelEntry]:
        """Every model known here, with channels and releases."""
        return self.transport.json("/v1/models")

    def models_nation_name(self, nation: str, name: str) -> ModelEntry:
        """One model."""
        return self.transport.json(f"/v1/models/{segment(nation)}/{segment(name)}")

    def releases_digest(self, digest: str) -> ReleaseDetail:
        """One release: files, lineage, signers, the decision and its reasons."""
        return self.transport.json(f"/v1/releases/{segment(digest)}")

    def releases_digest_evidence(self, digest: str) -> Evidence:
        """The signed statements that the decision rests on."""
        return self.transport.json(f"/v1/releases/{segment(digest)}/evidence")

    def release_card(self, digest: str) -> Card:
        """The model card as plain text, bounded, without control characters."""
        return self.transport.json(f"/v1/releases/{segment(digest)}/card")

    def release_attachments(self, digest: str) -> List[AttachmentEntry]:
        """The attachments of a release and what they say."""
        return self.transport.json(f"/v1/releases/{segment(digest)}/attachments")

    def resolve(self, ref: str) -> Resolved:
        """The release that a reference means."""
        return self.transport.json("/v1/resolve", {"ref": ref})

    def nations(self) -> List[NationEntry]:
        """The pinned nations."""
        return self.transport.json("/v1/nations")

    def nations_nation_roots(self, nation: str) -> List[List[Dict[str, Any]]]:
        """A nation's roots as they travel, the first one first."""
        return self.transport.json(f"/v1/nations/{segment(nation)}/roots")

    def recalls(self) -> List[RecallEntry]:
        """Every recall known here, the newest first."""
        return self.transport.json("/v1/recalls")

    def events(self, kinds: Optional[str] = None) -> Iterator[Event]:
        """What happens, as it happens.

        A reader that is too slow gets an event `lagged` with how many it missed.
        """
        return self.transport.events("/v1/events", {"kinds": kinds})

    def log(self) -> LogStatus:
        """Every nation's log as this node has it, and how its own stands."""
        return self.transport.json("/v1/log")

    def log_evidence(self) -> List[EvidenceEntry]:
        """The evidence against logs that is kept here."""
        return self.transport.json("/v1/log/evidence")

    def log_evidence_name(self, name: str) -> Dict[str, Any]:
        """One piece of evidence, as it travels."""
        return self.transport.json(f"/v1/log/evidence/{segment(name)}")

    def log_place(self, digest: str, wait_ms: Optional[int] = None) -> LogPlace:
        """A statement's place in its nation's log, waited for if that is asked."""
        return self.transport.json(f"/v1/log/place/{segment(digest)}", {"wait_ms": wait_ms})

    def log_checkpoint(self, nation: str) -> str:
        """C2SP tlog-tiles: the newest checkpoint of a log, with its cosignatures."""
        return self.transport.text(f"/log/{segment(nation)}/checkpoint")

    def log_tile(self, nation: str, path: str) -> bytes:
        """C2SP tlog-tiles: a tile of hashes (`0/000`, `0/000.p/7`) or of entries (`entries/000`)."""
        return self.transport.bytes(f"/log/{segment(nation)}/tile/{segment(path, keep='/')}")

    def oidc(self) -> SignInAt:
        """Where people sign in, with a nonce for one attempt."""
        return self.transport.json("/v1/oidc")
