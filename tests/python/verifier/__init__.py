"""A second implementation of Steelyard's formats and rules, written from the documents in specs/ alone.

It shares no code with the first one and answers `steelyard conformance --against`. What it does not know it says. What
clients need of it (envelopes, statements, trust, logs) is the Python package's own code, which is so decided by the vectors.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "cli" / "python"))
