"""What the node's public interface answers: made by `cli/python/generate.py` from the node's OpenAPI document. Not to be changed by hand."""

from __future__ import annotations

from typing import Any, Dict, List, Literal, Optional, TypedDict, Union


# BLAKE3 of the content: `b3:` and 64 lowercase hexadecimal digits.
Digest = str


# UTC in whole seconds.
Timestamp = str


# Names an Ed25519 key: 64 lowercase hexadecimal digits.
KeyId = str


# What kind of failure it is; stable.
Code = Literal["usage", "not_found", "verification_failed", "policy_refused", "network", "conflict", "busy", "forbidden", "disk", "cancelled", "worker", "internal"]


# DSSE envelopes over one in-toto Statement v1, one signature each.
Signed = List[Dict[str, Any]]


class Check(TypedDict):
    """One rule's answer."""

    rule: str  # Such as `not-recalled`.
    passed: bool
    detail: str  # What was seen; where it refuses, also what would satisfy it.


class Decision(TypedDict):
    """The local policy's answer."""

    allowed: bool  # Whether the release may be served here.
    checks: List[Check]


class _Problem(TypedDict):
    type: str  # `urn:steelyard:problem:` and the code.
    title: str
    status: int  # The HTTP status.
    detail: str  # What happened, for people.
    code: Code


class Problem(_Problem, total=False):
    """Problem details, RFC 9457."""

    hint: str  # What to do next, for people.
    decision: Decision


class _Health(TypedDict):
    status: str  # `ok`.


class Health(_Health, total=False):
    """Health."""

    warnings: List[str]  # What an operator should look at although the node answers.


class Usage(TypedDict):
    """What the store holds."""

    blobs: int  # Whole blobs.
    bytes: int  # Their bytes.
    partial_bytes: int  # Bytes set aside for blobs being fetched.
    disk_free: int  # Bytes free on the disk.


class Status(TypedDict):
    """The node."""

    version: str  # The program's version.
    nation: str
    fingerprint: Digest
    root_expires: Timestamp
    peer_id: str  # libp2p identifier.
    running: bool  # A node, rather than a command that works on the folder by itself.
    started: Timestamp
    addresses: List[str]  # Multiaddrs that end in `/p2p/ID`.
    reach: Reach
    http: Optional[str]  # Where this interface listens.
    peers: int
    nations: int
    transfers: int  # Those that are not over.
    workers: int  # Those that are not over.
    statements: int  # Statements stored.
    usage: Usage
    lease: LeaseStatus
    root_version: int  # The version of the nation's root.
    endings: List[RootEnding]  # Every pinned nation whose root ends within 90 days, the nearest first.


class Reach(TypedDict):
    """How the node is reached from outside."""

    # Whether others can open connections to it: `public` when an external address is configured or a peer has dialled
    # one back, `behind_nat` when peers tried in vain.
    reachability: Literal["unknown", "public", "behind_nat"]
    confirmed: List[str]  # Addresses that are configured as external, or that a peer has dialled back.
    observed: List[str]  # Addresses under which peers see it.
    relays: List[RelayInfo]  # The relays of its settings.
    relaying: Optional[Relaying]  # What it relays, if it is a relay.


class RelayInfo(TypedDict):
    """A relay of the settings."""

    peer_id: str
    state: Literal["asking", "reserved", "failed"]
    why: Optional[str]  # Why it failed.


class Relaying(TypedDict):
    """What a node relays for others."""

    reservations: int  # Peers that are reached through it.
    circuits: int  # Circuits that are open.


class ChannelEntry(TypedDict):
    """A channel."""

    channel: str
    sequence: int
    release: Digest
    version: Optional[str]  # That release's version, if it is known here.
    reason: str  # Why it was moved.
    issued: Timestamp
    # What its last move went back from, to an older release; `reason` says why.
    rolled_back_from: Optional[Dict[str, Any]]


class _ReleaseEntry(TypedDict):
    release: Digest
    model: str  # `nation/name`.
    version: str
    format: str  # Such as `gguf`.
    licence: str  # SPDX expression.
    size: int  # Bytes of all files.
    files: int  # Number of files.
    issued: Timestamp
    presence: Literal["known", "partial", "complete"]  # How much of it is here.
    bytes_here: int
    admitted: bool
    recalled: bool  # Whether a recall binds this node for it.
    pinned: bool


class ReleaseEntry(_ReleaseEntry, total=False):
    """One release in a list."""

    mirrored: Optional[str]  # The mirror rule that brought it and keeps it.


class ModelEntry(TypedDict):
    """One model."""

    model: str
    channels: List[ChannelEntry]
    releases: List[ReleaseEntry]  # The newest first.


class FileEntry(TypedDict):
    """One file of a release, and whether it is here."""

    path: str  # Within the release, with `/`.
    blake3: Digest
    sha256: str  # 64 hexadecimal digits.
    size: int
    media_type: str
    chunk_map: Digest
    here: bool


class DerivedFrom(TypedDict):
    """One edge of the lineage."""

    release: Digest
    relation: Literal["fine-tune", "quantisation", "merge", "adapter", "distillation"]


class RecallEntry(TypedDict):
    """A recall."""

    recall: Digest
    nation: str  # Who recalls.
    release: Digest
    lineage: bool  # Whether all that derives from it is meant too.
    model: Optional[str]
    version: Optional[str]
    reason: str
    severity: Literal["low", "medium", "high", "critical"]
    sequence: int
    issued: Timestamp


class _ReleaseDetail(TypedDict):
    release: Digest
    model: str  # `nation/name`.
    version: str
    format: str  # Such as `gguf`.
    licence: str  # SPDX expression.
    size: int  # Bytes of all files.
    files: int  # Number of files.
    issued: Timestamp
    presence: Literal["known", "partial", "complete"]  # How much of it is here.
    bytes_here: int
    admitted: bool
    recalled: bool  # Whether a recall binds this node for it.
    pinned: bool
    file_list: List[FileEntry]
    releasable_to: str  # Which nations may have it, as people read it.
    derived_from: List[DerivedFrom]
    model_card: Optional[str]
    signers: List[KeyId]  # Keys that signed it and count.
    threshold: Optional[int]  # Signatures that the nation's root requires.
    channels: List[ChannelEntry]
    recalls: List[RecallEntry]
    decision: Optional[Decision]
    distrust: Optional[str]  # Why there is no decision: a signature or the nation is no longer believed.
    pin: Optional[str]  # Why it is pinned.


class ReleaseDetail(_ReleaseDetail, total=False):
    """Everything about one release, with the decision as it is now."""

    attestations: List[AttestationEntry]


class _SignedEntry(TypedDict):
    digest: Digest
    kind: Literal["root", "node", "release", "channel", "recall", "attestation"]
    nation: str
    envelopes: Signed


class SignedEntry(_SignedEntry, total=False):
    """One signed statement, as it travels."""

    # Its place in its nation's log with the checkpoint and who witnessed it, a C2SP tlog-proof, where it is known here.
    proof: str


class Evidence(TypedDict):
    """Everything signed that a decision rests on."""

    release: Digest
    made: Timestamp  # When the node gathered this, by its clock; nobody signs it.
    statements: List[SignedEntry]


class Resolved(TypedDict):
    """The release that a reference means here and now."""

    reference: str
    release: Digest
    model: str
    version: str


class RoleEntry(TypedDict):
    """A role of a nation's root."""

    role: str
    keys: List[KeyId]
    threshold: int  # How many must sign.


class NationEntry(TypedDict):
    """A pinned nation."""

    nation: str
    own: bool
    fingerprint: Digest
    version: int  # Its root's version.
    expires: Timestamp
    expired: bool
    pinned: Timestamp
    addresses: List[str]  # Where its nodes are dialled.
    peers: int  # Its nodes connected now.
    roles: List[RoleEntry]
    # How near the end is: more than 90 days away, within 90, within 30, within 7, or come.
    ending: Literal["far", "planned", "soon", "urgent", "ended"]
    standing: Literal["invited", "active", "suspended", "departed"]  # In which standing this node's nation holds it.
    sequence: Optional[int]  # The sequence of the membership statement that says so, if there is one.


class Event(TypedDict):
    """Something that happened; the other fields follow from `event`."""

    event: Literal["peer_up", "peer_down", "statement", "transfer", "recall", "channel", "admitted", "worker", "trust", "policy", "alert", "lagged"]


class AttachmentEntry(TypedDict):
    """One attachment of a release. What it says is its maker's word."""

    path: str
    attachment: Literal["oms", "slsa", "mlbom", "import"]
    blake3: Digest
    size: int
    # The essentials, by `kind`: `oms` (signer, name, files, matching), `slsa` (builder, build_type, materials,
    # subjects, matching), `mlbom` (version, subject, components, models, licences), `import` (nation, format, signer,
    # name).
    summary: Optional[Dict[str, Any]]
    problem: Optional[str]  # Why it can't be read.


class LeaseStatus(TypedDict):
    """On what lease models are served."""

    seconds: int  # For so long models are served without hearing from enough allies; 0 for ever.
    nations: int  # So many allied nations are enough.
    producers: Dict[str, int]  # Seconds for the models of these producers.
    held: bool  # Whether models that need a lease may be served now.
    ends: Optional[Timestamp]  # When the general lease ends.
    heard: List[Dict[str, Any]]  # When allies were heard last.


class RootEnding(TypedDict):
    """A root that ends soon."""

    nation: str
    expires: Timestamp
    # How near the end is: more than 90 days away, within 90, within 30, within 7, or come.
    ending: Literal["far", "planned", "soon", "urgent", "ended"]


class Card(TypedDict):
    """A model card."""

    path: str  # Path in the release.
    size: int  # Bytes.
    text: str  # Plain text without control characters.
    truncated: bool  # Whether the text is cut.


class _AttestationEntry(TypedDict):
    attestation: Digest
    nation: str  # Who evaluated.
    suite: Dict[str, Any]  # What was run.
    verdict: Literal["pass", "inconclusive", "fail"]
    results: List[Dict[str, Any]]
    summary: str  # In words.
    issued: str  # When it was signed.
    valid_until: str  # From when on it counts no more.
    counts: bool  # Whether it counts now.


class AttestationEntry(_AttestationEntry, total=False):
    """What one nation found out about a release with one suite."""

    why: str  # Why not.


class LogInfo(TypedDict):
    """One nation's log."""

    nation: str
    own: bool  # Of this node's own nation.
    size: int  # Entries.
    root: Optional[str]  # The root hash in base64.
    witnesses: List[str]  # The nations that cosigned the newest checkpoint.
    # Since when as many nations as are asked for had cosigned it; nothing while fewer have.
    witnessed: Optional[Timestamp]
    disputed: bool  # Evidence is held against it.


class LogStatus(TypedDict):
    """Logs."""

    logs: List[LogInfo]  # The own one first.
    appends: bool  # This node holds its nation's log key.
    witness: bool  # It cosigns allies' logs.
    pending: int  # Statements that wait to be logged.
    waiting: Optional[str]  # Why they wait.
    behind: Optional[int]  # The size of the own log that an ally knows, where that is more.
    problems: List[str]  # What an operator should look at.


class Logged(TypedDict):
    """What is proved of a statement's place."""

    index: int
    size: int
    witnesses: List[str]  # The nations that cosigned.
    # Since when as many nations as the policy asks for had cosigned it; nothing while fewer have.
    witnessed: Optional[Timestamp]


class LogPlace(TypedDict):
    """A statement's place in its nation's log."""

    digest: Digest
    nation: str
    logged: Optional[Logged]  # Nothing while it waits.
    waiting: Optional[str]  # Why it waits.
    expected: List[str]  # Connected allies that could still cosign.


class EvidenceEntry(TypedDict):
    """Evidence against a log."""

    name: str
    nation: str
    summary: str  # What it proves.
    path: str  # Where the file lies.


class SignInAt(TypedDict):
    """Where people sign in."""

    issuer: str
    client_id: str
    scopes: List[str]
    nonce: str  # What the ID token must carry; good once and for ten minutes.
