"""The evidence about a release as a file: everything signed that a decision about it rests on, without its bytes.

    {"format": "steelyard-evidence", "version": 1, "release": "b3:…", "made": "2026-11-25T12:00:00Z",
     "statements": [{"envelopes": [DSSE, …], "proof": "c2sp.org/tlog-proof@v1\\n…"}, …]}

It is a container and signed by nobody: what is in it is believed by its own signatures alone.
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional

from .core.basic import Refused, is_digest, need, read_json, timestamp
from .core.envelope import Signed
from .core.statement import Statement

# Where it lies beside a snapshot's files.
PLACE = Path(".steelyard") / "evidence.json"
# As much as a bundle may carry (document 10), in base64 and with its frame.
MAX_FILE = 128 * 1024 * 1024
MAX_STATEMENTS = 32_768
# The longest log proof (document 10).
MAX_PROOF = 35_776


@dataclass
class Proven:
    """One statement as it travels, and its place in its nation's log where that is known."""

    signed: Signed
    statement: Statement
    proof: Optional[bytes]


class Evidence:
    """Evidence that was read: what is in it is well formed, and not yet believed."""

    def __init__(self, data: bytes) -> None:
        need(len(data) <= MAX_FILE, "too-large")
        value = read_json(data)
        need(isinstance(value, dict) and value.get("format") == "steelyard-evidence", "format")
        need(value.get("version") == 1 and value["version"] is not True, "version")
        statements = value.get("statements")
        need(is_digest(value.get("release")) and isinstance(statements, list), "malformed")
        need(len(statements) <= MAX_STATEMENTS, "too-many")
        self.release: str = value["release"]
        self.made: int = timestamp(value.get("made"))
        self.data = data
        self.statements: List[Proven] = []
        for one in statements:
            need(isinstance(one, dict) and isinstance(one.get("envelopes"), list), "malformed")
            signed = Signed(json.dumps(one["envelopes"]).encode())
            proof = one.get("proof")
            need(proof is None or (isinstance(proof, str) and len(proof.encode()) <= MAX_PROOF), "proof")
            self.statements.append(Proven(signed, Statement(signed.payload), proof.encode() if proof is not None else None))

    def of_kind(self, kind: str) -> List[Proven]:
        return [one for one in self.statements if one.statement.kind == kind]

    @classmethod
    def read(cls, path: os.PathLike) -> "Evidence":
        with open(path, "rb") as file:
            return cls(file.read(MAX_FILE + 1))

    def write(self, path: os.PathLike) -> Path:
        """Writes the file whole or not at all; its folder is made."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, new = tempfile.mkstemp(dir=path.parent, prefix=".evidence-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(self.data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(new, 0o644)
            os.replace(new, path)
        except BaseException:
            os.unlink(new)
            raise
        return path


def compose(release: str, made: str, statements: List[Dict[str, Any]]) -> Evidence:
    """Evidence of statements that a node gave."""
    kept = [{key: one[key] for key in ("envelopes", "proof") if one.get(key) is not None} for one in statements]
    value = {"format": "steelyard-evidence", "version": 1, "release": release, "made": made, "statements": kept}
    return Evidence(json.dumps(value, indent=1).encode())


__all__ = ["Evidence", "PLACE", "Proven", "Refused", "compose"]
