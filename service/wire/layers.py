"""Layers of detection events on the wire of `tandem.stream.v1` (docs/api.md, "Streams")."""

from __future__ import annotations

import struct

SUBPROTOCOL = "tandem.stream.v1"
HEADER = struct.Struct("<IHBB")
"""Of a layer: stream (uint32), round (uint16), flags (uint8), a zero; little-endian. The packed events follow."""
LAST = 1
"""Flag: this layer is the data's readout compared with the last syndrome, and the answer is wanted."""
RUNNING = 2
"""Flag: wanted are the flip probabilities that the answer would have if the data were read out now."""
MAX_STREAM = 2**32 - 1
