"""A client of Steelyard nodes, and the offline verification of what was downloaded from one.

    import steelyard
    node = steelyard.Node("http://127.0.0.1:4800")
    folder = huggingface_hub.snapshot_download("alba/smollm2", endpoint="http://127.0.0.1:4800")
    node.save_evidence(folder)                       # once, where there is a network
    report = steelyard.verify(folder, roots=["b3:…"]) # anywhere; raises `VerifyError`
"""

from ._http import NodeError
from .evidence import Evidence
from .node import Node
from .verify import Report, VerifyError, verify

__all__ = ["Evidence", "Node", "NodeError", "Report", "VerifyError", "verify"]
