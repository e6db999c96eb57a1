"""Writes the test vectors of documents 02 to 12, and some of document 01.

It shares no code with the implementation: keys and hashes come from the Python packages `cryptography` and `blake3`,
compressed blocks from `zstandard`, the JSON is made by hand. The files that it writes are kept in the repository; run it again only when a rule is added:

    python3 -m venv venv && venv/bin/pip install blake3 cryptography zstandard && venv/bin/python specs/vectors/make
"""

import attestation
import bundle
import codec
import common
import content
import envelope
import logwire
import nations
import log
import lognode
import oms
import receipt
import release
import statement
import wire
import witness

content.all_of_it()
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
logwire.exchange()
codec.chunks()
bundle.bundles()
bundle.leases()
attestation.all_of_it()
log.entries()
log.trees()
log.notes()
log.checkpoints()
log.tiles()
witness.cosignatures()
witness.witnessing()
witness.proofs()
witness.evidence()
lognode.node()
oms.all()
receipt.all()
common.write()
