"""What a build tells its client, in the order of the steps though stages run side by side."""

from __future__ import annotations

from wherry.engine.build.options import Send
from wherry.engine.image.progress import Message, stream

_RED, _PLAIN = "\x1b[91m", "\x1b[0m"


class Output:
    """One stage's messages. They wait until the stages before it have told theirs."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._live = False
        self._waiting: list[Message] = []

    async def message(self, message: Message) -> None:
        """Any message."""
        if self._live:
            await self._send(message)
        else:
            self._waiting.append(message)

    async def text(self, text: str) -> None:
        """Text as it is."""
        await self.message(stream(text))

    async def line(self, text: str) -> None:
        """A line of text."""
        await self.text(f"{text}\n")

    async def error(self, text: str) -> None:
        """What a command wrote to its stderr, which is shown in red."""
        await self.text(f"{_RED}{text}{_PLAIN}")

    async def go_live(self) -> None:
        """Tell what has waited; from now on nothing waits."""
        while self._waiting:
            waiting, self._waiting = self._waiting, []
            for message in waiting:
                await self._send(message)
        self._live = True
