"""Steelyard's formats and rules as `specs/` write them: envelopes, statements, trust, logs. The conformance vectors decide this code
(`tests/python/verifier`); it shares none with the node's."""
