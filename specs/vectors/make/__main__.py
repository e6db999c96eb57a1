"""Writes the test vectors of documents 02 to 11.

It shares no code with the implementation: keys and hashes come from the Python packages `cryptography` and `blake3`,
compressed blocks from `zstandard`, the JSON is made by hand. The files that it writes are kept in the repository; run it again only when a rule is added:

    python3 -m venv venv && venv/bin/pip install blake3 cryptography zstandard && venv/bin/python specs/vectors/make
"""

import codec
import common
import envelope
import nations
import oms
import release
import statement
import wire

envelope.names()
envelope.envelopes()
statement.statements()
statement.trust()
nations.chains()
nations.order()
nations.standings()
release.releases()
release.recalls()
wire.identity()
wire.frames()
wire.exchange()
wire.announcements()
codec.chunks()
oms.all()
common.write()
