"""Change nftables in transactions: by libnftables in this process, else by the ``nft`` program.

nft(8), libnftables(3). The library spares a process for each change; it is not safe for concurrent
use of one context, so a single thread works for each ``Nftables``.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from wherry.host.process import run

_LIBRARY = "libnftables.so.1"
_JSON = 1 << 4  # NFT_CTX_OUTPUT_JSON


class NftError(Exception):
    """nftables refused; the text is its own, and nothing was changed."""


_letting_go = ThreadPoolExecutor(1, thread_name_prefix="nft-close")


@contextlib.contextmanager
def local() -> Iterator[Callable[[str], str]]:
    """A function that applies scripts in the network namespace of the calling thread, blocking.

    That is the namespace in which it is called first, and it is to be left before this context
    is. Each script is one transaction; NftError is raised where nothing was changed.
    """
    contexts: list[_Context] = []

    def run(script: str) -> str:
        try:
            if not contexts:
                contexts.append(_Context())
        except _LibraryMissing:
            return _run_program(script)
        return contexts[0].run(script, as_json=False)

    try:
        yield run
    finally:
        # After a deletion the kernel lets the socket go only when nobody can see what was deleted
        # any more, tens of milliseconds later. (A thread begins in the namespace of its maker.)
        for context in contexts:
            _letting_go.submit(context.close)


def _run_program(script: str) -> str:
    done = subprocess.run(
        ["nft", "-f", "-"], input=script.encode(), capture_output=True, check=False
    )
    if done.returncode != 0:
        raise NftError(done.stderr.decode(errors="replace").strip())
    return done.stdout.decode()


class Runner(Protocol):
    """What applies scripts: ``Nftables``."""

    async def run(self, script: str) -> object:
        """Apply ``script`` as one transaction.

        Raises:
            NftError: nothing was changed.
        """


class Nftables:
    """One way into the kernel's nftables, in the network namespace of the process."""

    def __init__(self) -> None:
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="nft")
        self._context: _Context | None = None
        self._missing = False

    async def run(self, script: str) -> str:
        """Apply ``script`` (nft's text syntax) as one transaction; returns what it printed.

        Raises:
            NftError: nothing was changed.
        """
        return await self._run(script, as_json=False)

    async def run_json(self, commands: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Apply ``commands`` (libnftables-json(5)) as one transaction; returns its answer.

        Raises:
            NftError: nothing was changed.
        """
        text = await self._run(json.dumps({"nftables": list(commands)}), as_json=True)
        answer: dict[str, Any] = json.loads(text) if text.strip() else {"nftables": []}
        return answer

    async def _run(self, script: str, *, as_json: bool) -> str:
        if not self._missing:
            loop = asyncio.get_running_loop()
            try:
                return await loop.run_in_executor(self._worker, self._call, script, as_json)
            except _LibraryMissing:
                self._missing = True
        command = ["nft", "-j", "-f", "-"] if as_json else ["nft", "-f", "-"]
        done = await run(command, input=script.encode())
        if done.exit_code != 0:
            raise NftError(done.stderr.decode(errors="replace").strip())
        return done.stdout.decode()

    def _call(self, script: str, as_json: bool) -> str:
        if self._context is None:
            self._context = _Context()
        return self._context.run(script, as_json)

    def close(self) -> None:
        """Let the thread and the library's context go."""
        self._worker.shutdown()
        with contextlib.suppress(AttributeError):
            if self._context is not None:
                self._context.close()
        self._context = None


class _LibraryMissing(Exception):
    """libnftables is not installed."""


class _Context:
    """A ``struct nft_ctx`` that prints into buffers."""

    def __init__(self) -> None:
        try:
            library = ctypes.CDLL(_LIBRARY)
        except OSError as error:
            raise _LibraryMissing(str(error)) from error
        library.nft_ctx_new.restype = ctypes.c_void_p
        library.nft_ctx_get_output_buffer.restype = ctypes.c_char_p
        library.nft_ctx_get_error_buffer.restype = ctypes.c_char_p
        self._library = library
        self._context = ctypes.c_void_p(library.nft_ctx_new(0))
        if not self._context:
            raise NftError("libnftables gave no context")
        library.nft_ctx_buffer_output(self._context)
        library.nft_ctx_buffer_error(self._context)

    def run(self, script: str, as_json: bool) -> str:
        library, context = self._library, self._context
        library.nft_ctx_output_set_flags(context, _JSON if as_json else 0)
        failed = library.nft_run_cmd_from_buffer(context, script.encode())
        output = library.nft_ctx_get_output_buffer(context) or b""
        complaint = library.nft_ctx_get_error_buffer(context) or b""
        if failed:
            raise NftError(complaint.decode(errors="replace").strip())
        text: str = output.decode()
        return text

    def close(self) -> None:
        self._library.nft_ctx_free(self._context)
