"""The SPICE link message, which a viewer sends first on each channel (docs/protocol.md, 3)."""

import struct

MAIN, DISPLAY, INPUTS = 1, 2, 3


def link(kind: int = MAIN, connection_id: int = 0, number: int = 0) -> bytes:
    # One word of common capabilities: AuthSelection, AuthSpice, MiniHeader.
    body = struct.pack("<IBBIIII", connection_id, kind, number, 1, 0, 18, 0b1011)
    return struct.pack("<4sIII", b"REDQ", 2, 2, len(body)) + body
