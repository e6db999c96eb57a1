"""Offline verification of a downloaded snapshot: its files against the release that its nation signed, by pinned roots."""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Dict, Iterable, List, NoReturn, Optional

from . import files
from .core import log
from .core.basic import Refused, is_digest, reference, time_text
from .core.statement import Statement, ancestors_of, binds, may_have
from .core.trust import Trust
from .evidence import PLACE, Evidence, Proven
from .node import snapshot_name

# A clock may be wrong by so many seconds ([LOG-024]).
AHEAD = 600
# Where a refusal shows names of files: so many of them.
SHOWN = 5


class VerifyError(Exception):
    """The snapshot is not what it should be. `reason` is one word: `evidence`, `root`, `release`, `other`, `recalled`,
    `withheld`, `stale`, `files`; `findings` names the files."""

    def __init__(self, reason: str, message: str, findings: Optional[Dict[str, List[str]]] = None) -> None:
        super().__init__(message)
        self.reason, self.findings = reason, findings or {}


@dataclass
class Report:
    """What was verified."""

    release: str
    model: str
    version: str
    licence: str
    issued: str
    nation: str
    files: int
    bytes: int
    #: Files of the release that are not in the folder; only where `partial` was asked for.
    missing: List[str]
    #: Channels whose newest known statement names this release, with their sequence.
    channels: Dict[str, int]
    #: The nations that cosigned the log in which the release stands, with when.
    witnesses: Dict[str, str]
    #: When the evidence was gathered, as whoever gathered it says.
    made: str
    #: Since when what the evidence says was witnessed.
    witnessed: Optional[str]
    #: What other nations found: nation, suite, verdict, until.
    attestations: List[Dict[str, str]]
    #: Recalls that do not bind here, in words.
    warnings: List[str] = field(default_factory=list)

    def as_dict(self) -> Dict[str, Any]:
        return asdict(self)


def verify(
    folder: os.PathLike, roots: Iterable[str], *, evidence: Optional[os.PathLike] = None, expect: Optional[str] = None,
    own: Optional[str] = None, lease: Optional[float] = None, witnesses: int = 0, partial: bool = False, now: Optional[float] = None,
) -> Report:
    """Verifies the snapshot in `folder`; raises a `VerifyError` where anything is wrong. Nothing is asked of any network.

    roots:     fingerprints (`b3:…`) of the nations' first roots that you trust, got by another way than the evidence
    evidence:  the file of evidence; `.steelyard/evidence.json` in the folder where none is named
    expect:    what it should be: `nation/name`, `nation/name@version`, `nation/name:channel` or a digest
    own:       your nation: its recalls bind too, and the release must be releasable to it
    lease:     seconds for which evidence is good after it was gathered and witnessed; older is refused as stale
    witnesses: so many of the pinned nations, besides the producer, must have cosigned the log
    partial:   files may lack, as after a download with patterns
    """
    folder = Path(folder)
    clock = int(time.time() if now is None else now)
    found = _read(folder, evidence)
    case = _Case(found, list(roots), clock)
    release = case.release()
    _expected(case, release, folder, expect)
    if own is not None and not may_have(release, own):
        _fail("withheld", f"{case.name} is not releasable to {own}")
    warnings = case.recalls(release, own)
    witnessed = case.age(lease, witnesses)
    compared = files.compare(folder, release)
    _judge(compared, partial, case.name)
    said = release.predicate
    return Report(
        release=release.digest, model=said["model"], version=said["version"], licence=said["licence"], issued=said["issued"],
        nation=release.nation, files=compared.checked, bytes=compared.bytes, missing=compared.missing, channels=case.channels(release),
        witnesses={nation: time_text(at) for nation, at in case.witnesses.items()}, made=time_text(found.made),
        witnessed=None if witnessed is None else time_text(witnessed), attestations=case.attestations(release), warnings=warnings,
    )


def _fail(reason: str, message: str) -> NoReturn:
    raise VerifyError(reason, message)


def _read(folder: Path, given: Optional[os.PathLike]) -> Evidence:
    path = Path(given) if given is not None else folder / PLACE
    if not folder.is_dir():
        _fail("files", f"{folder} is no folder")
    try:
        return Evidence.read(path)
    except OSError as error:
        _fail("evidence", f"there is no evidence in {path} ({error.strerror}); `python -m steelyard evidence` fetches it from a node")
    except Refused as refused:
        _fail("evidence", f"the evidence in {path} is damaged: {refused}")


def _expected(case: "_Case", release: Statement, folder: Path, expect: Optional[str]) -> None:
    said, snapshot = release.predicate, snapshot_name(folder)
    if snapshot is not None and (snapshot[0] != said["model"] or not release.digest[3:].startswith(snapshot[1])):
        _fail("other", f"the folder is a snapshot of {snapshot[0]} at {snapshot[1]}, and the evidence is about {case.name}, {release.digest}")
    if expect is None:
        return
    try:
        # A model alone is any release of it.
        wanted = expect if "/" in expect and not set(expect) & set(":@") else reference(expect)
    except Refused:
        raise ValueError(f"{expect} names no release; write nation/name, nation/name@version, nation/name:channel or b3:…") from None
    names = {release.digest, said["model"], f"{said['model']}@{said['version']}"}
    names |= {f"{said['model']}:{channel}" for channel in case.channels(release)}
    if wanted not in names:
        _fail("other", f"{wanted} is expected, and the evidence is about {case.name}, which is {', '.join(sorted(names))}")


def _judge(compared: files.Findings, partial: bool, name: str) -> None:
    wrong = {"changed": compared.changed, "extra": compared.extra, "missing": [] if partial else compared.missing}
    words = {"changed": "differ from what was signed", "extra": "are not in the release", "missing": "lack"}
    told = []
    for kind, paths in wrong.items():
        if paths:
            more = f" and {len(paths) - SHOWN} more" if len(paths) > SHOWN else ""
            told.append(f"{', '.join(map(repr, paths[:SHOWN]))}{more} {words[kind]}")
    if told:
        raise VerifyError("files", f"this is not {name}: {'; '.join(told)}", {kind: paths for kind, paths in wrong.items() if paths})
    if not compared.checked:
        _fail("files", f"no file of {name} is here")


class _Case:
    """The evidence as the pinned roots see it."""

    def __init__(self, found: Evidence, roots: List[str], now: int) -> None:
        self.found, self.now, self.trust = found, now, Trust("")
        self.order: Dict[str, int] = {}
        self.witnesses: Dict[str, int] = {}
        self.name = found.release
        self._pin(roots)
        self._logged()

    def _pin(self, fingerprints: List[str]) -> None:
        wrong = [one for one in fingerprints if not is_digest(one)]
        if wrong or not fingerprints:
            raise ValueError(f"{wrong[0]} is no fingerprint" if wrong else "no root is given; name at least the producer's by its fingerprint, b3:…")
        roots = sorted(self.found.of_kind("root"), key=lambda one: one.statement.predicate["version"])
        for one in roots:
            try:
                if one.signed.digest in fingerprints:
                    # That it may have ended since is asked of the newest one, when something is believed.
                    self.trust.pin(one.signed, one.signed.digest, one.statement.issued)
                elif one.statement.nation in self.trust.members:
                    self.trust.rotate(one.signed, self.now)
            except Refused as refused:
                _fail("root", f"version {one.statement.predicate['version']} of the root of {one.statement.nation} does not hold: {refused}")

    def _logged(self) -> None:
        """Reads the proofs: the order of each nation's log, and who witnessed that of the release."""
        known = {nation: _witness_keys(nation, member.newest) for nation, member in self.trust.members.items()}
        for one in self.found.statements:
            nation = one.statement.nation
            if one.proof is None or nation not in self.trust.members:
                continue
            name = f"steelyard/{nation}"
            keys = {key for root in self.trust.members[nation].roots for key in root.roles["log"][0].values()}
            request = {
                "nation": nation, "statement": one.signed.digest, "witnesses": known, "now": self.now,
                "keys": [log.verifier(name, 1, key) for key in sorted(keys)],
            }
            try:
                shown = log.proof(request, one.proof)
            except Refused as refused:
                _fail("evidence", f"the proof from the log of {nation} does not hold: {refused}")
            self.order[one.signed.digest] = int(shown["index"])
            if one.signed.digest == self.found.release:
                self.witnesses = dict(shown["witnesses"])

    def believed(self, one: Proven) -> Statement:
        return self.trust.verify(one.signed, self.now, self.order)

    def believable(self, kind: str) -> List[Statement]:
        """Those of a kind that are believed; the rest is nobody's word."""
        out = []
        for one in self.found.of_kind(kind):
            try:
                out.append(self.believed(one))
            except Refused:
                continue
        return out

    def release(self) -> Statement:
        mine = [one for one in self.found.of_kind("release") if one.signed.digest == self.found.release]
        if not mine:
            _fail("evidence", f"the release {self.found.release} is not in its evidence")
        said = mine[0].statement
        self.name = f"{said.predicate['model']}@{said.predicate['version']}"
        if said.nation not in self.trust.members:
            roots = [one.signed.digest for one in self.found.of_kind("root") if one.statement.nation == said.nation and one.statement.predicate["version"] == 1]
            brought = f"; the evidence brings {', '.join(roots)}, which nothing vouches for" if roots else ""
            _fail("root", f"{self.name} is of {said.nation}, whose root is not among those you pinned{brought}")
        try:
            return self.believed(mine[0])
        except Refused as refused:
            _fail("release", f"{self.name} is not believed by the roots of {said.nation}: {_WORDS.get(str(refused), refused)}")

    def channels(self, release: Statement) -> Dict[str, int]:
        """A channel counts as it was moved last, as far as the evidence tells."""
        newest: Dict[str, Statement] = {}
        for one in self.believable("channel"):
            said = one.predicate
            if said["model"] == release.predicate["model"]:
                known = newest.get(said["channel"])
                if known is None or known.predicate["sequence"] < said["sequence"]:
                    newest[said["channel"]] = one
        return {name: one.predicate["sequence"] for name, one in newest.items() if one.predicate["release"] == release.digest}

    def recalls(self, release: Statement, own: Optional[str]) -> List[str]:
        """Refuses what was recalled with force here ([RCL-006]); tells of the rest."""
        known = {one.digest: one for one in self.believable("release")}
        ancestors = ancestors_of(release, known.get)
        warnings = []
        for one in self.believable("recall"):
            said = one.predicate
            words = f"recalled by {one.nation} at {said['issued']} ({said['severity']}): {said['reason']}"
            # Of a base whose producer the evidence does not tell, whoever recalls it is taken for that one.
            unknown = one.scope == "lineage" and one.target in ancestors and ancestors[one.target] is None
            if unknown or binds(one, own, release.nation, release.digest, ancestors):
                _fail("recalled", f"{self.name} was {words}; stop using it")
            warnings.append(f"{'' if one.target == release.digest else 'what it may derive from was '}{words}")
        return warnings

    def age(self, lease: Optional[float], wanted: int) -> Optional[int]:
        """Since when what the evidence says was witnessed; refuses too few witnesses, and what is older than the lease."""
        if len(self.witnesses) < wanted:
            _fail("stale", f"{len(self.witnesses)} of the pinned nations witnessed the log with {self.name}, and {wanted} are asked for")
        since = log.witnessed_since(self.witnesses.values(), wanted)
        if lease is None:
            return since
        if since is None:
            _fail("stale", "no pinned nation witnessed the log, so that nothing says how old the evidence is; pin a witness's root too")
        if self.found.made > self.now + AHEAD:
            _fail("stale", f"the evidence was gathered at {time_text(self.found.made)}, which is yet to come")
        oldest = min(since, self.found.made)
        if self.now - oldest > lease:
            _fail("stale", f"the lease has ended: the evidence is of {time_text(oldest)}; fetch it again to hear of recalls since")
        return since

    def attestations(self, release: Statement) -> List[Dict[str, str]]:
        return [
            {"nation": one.nation, "suite": one.predicate["suite"]["name"], "verdict": one.predicate["verdict"], "until": one.predicate["validUntil"]}
            for one in self.believable("attestation")
            if one.predicate["release"] == release.digest and one.until > self.now
        ]


def _witness_keys(nation: str, root: Statement) -> List[str]:
    keys = root.roles["witness"][0].values() if "witness" in root.roles else []
    return [log.verifier(f"steelyard/{nation}/witness", 4, key) for key in keys]


_WORDS = {
    "threshold": "too few of the nation's release keys signed it", "bad-signature": "a signature is wrong", "root-expired": "the nation's root has ended",
    "unordered": "the keys changed since, and the evidence lacks the proof that it was signed before", "superseded": "it was signed by a key after that was taken away",
    "from-the-future": "it was signed at a time that is yet to come",
}
