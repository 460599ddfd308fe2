"""Streams between the loop and its threads."""

from __future__ import annotations

import asyncio

from wherry.engine.image.threads import stream_from


def test_an_empty_piece_is_not_the_end_of_a_stream() -> None:
    async def collected() -> list[bytes]:
        return [piece async for piece in stream_from(iter([b"", b"one", b"", b"two", b""]))]

    assert asyncio.run(collected()) == [b"one", b"two"]
