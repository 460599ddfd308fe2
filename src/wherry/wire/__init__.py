"""Protocols without I/O: bytes in, events out. Nothing here opens a socket or knows of asyncio."""
