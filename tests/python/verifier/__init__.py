"""A second implementation of Steelyard's formats and rules, written from the documents in specs/ alone.

It shares no code with the first one and answers `steelyard conformance --against`. What it does not know it says.
"""
