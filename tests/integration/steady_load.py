"""Requests at a steady rate, each on a connection of its own, and what became of them."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from dataclasses import dataclass, field

REQUEST = b"GET / HTTP/1.1\r\nHost: load\r\nConnection: close\r\n\r\n"


@dataclass
class Load:
    """From entering to leaving it; ``rate`` a second."""

    address: str
    port: int
    rate: int
    answers: Counter[str] = field(default_factory=Counter)  # by the word that tells who answered
    lost: list[str] = field(default_factory=list)

    def __enter__(self) -> Load:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def answered(self) -> int:
        """How many were."""
        return self.answers.total()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        under_way: set[asyncio.Task[None]] = set()
        due = loop.time()
        while not self._stop.is_set():
            task = asyncio.create_task(self._ask())
            under_way.add(task)
            task.add_done_callback(under_way.discard)
            due = max(due + 1 / self.rate, loop.time() - 0.1)
            await asyncio.sleep(max(0.0, due - loop.time()))
        await asyncio.gather(*under_way)

    async def _ask(self) -> None:
        writer = None
        try:
            async with asyncio.timeout(20):
                reader, writer = await asyncio.open_connection(self.address, self.port)
                writer.write(REQUEST)
                answer = await reader.read()
            if b" 200 " in answer.split(b"\r\n", 1)[0] and b"Hello from " in answer:
                self.answers[answer.decode().split("Hello from ")[1].split(",")[0]] += 1
            else:
                self.lost.append(repr(answer))
        except (OSError, EOFError) as error:  # time-outs are such, too
            self.lost.append(repr(error))
        finally:
            if writer is not None:
                writer.close()
