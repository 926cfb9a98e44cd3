"""The Content-Encoding of bodies: gzip is decoded, a little at a time, and all others are refused."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator

from fastapi import Request

from service.errors import UnsupportedEncodingError

PIECE_BYTES = 2**18
"""What is decoded before other requests get their turn."""
GZIP_WINDOW = 16 + zlib.MAX_WBITS
"""Makes zlib expect gzip's header and checksum."""


async def decoded_body(request: Request) -> AsyncIterator[bytes]:
    """The body of a request in pieces, without its Content-Encoding.

    Decoded pieces have at most `PIECE_BYTES`, so that one who adds them up can stop in time: a few bytes of gzip may
    stand for a gigabyte.

    Raises:
        UnsupportedEncodingError: the Content-Encoding is neither gzip nor identity, or the body is no gzip.
        ClientDisconnect: the client left.
    """
    coding = ", ".join(request.headers.getlist("content-encoding")).strip().lower()
    if coding in ("", "identity"):
        async for chunk in request.stream():
            yield chunk
        return
    if coding not in ("gzip", "x-gzip"):
        raise UnsupportedEncodingError(f"the content encoding {coding[:80]!r} is not known here; send gzip, or none")
    unpacker = zlib.decompressobj(GZIP_WINDOW)
    async for chunk in request.stream():
        piece = b""
        while chunk or len(piece) == PIECE_BYTES:  # a full piece may not be all that was decoded
            try:
                piece = unpacker.decompress(chunk, PIECE_BYTES)
            except zlib.error as error:
                raise UnsupportedEncodingError(f"the body is no gzip ({error})") from None
            if unpacker.unused_data:
                raise UnsupportedEncodingError("the body goes on behind the end of its gzip; send one stream")
            chunk = unpacker.unconsumed_tail
            yield piece
            await asyncio.sleep(0)
    if not unpacker.eof:
        raise UnsupportedEncodingError("the body ends before its gzip does")
