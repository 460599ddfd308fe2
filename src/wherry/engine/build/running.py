"""RUN: a command in a container of the image so far."""

from __future__ import annotations

import asyncio
import codecs
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from wherry.engine.build.dockerfile.instructions import Run
from wherry.engine.build.leftovers import ANNOTATION
from wherry.engine.build.options import CommandFailed, Options
from wherry.engine.build.output import Output
from wherry.engine.build.settings import Settings
from wherry.engine.container import options as fields
from wherry.engine.container.attach import attach
from wherry.engine.container.container import Container
from wherry.engine.container.create import CreateRequest
from wherry.engine.container.service import Containers
from wherry.engine.errors import EngineError, NotFound
from wherry.engine.image.image import Image
from wherry.runtime.types import RuntimeFailure

log = logging.getLogger(__name__)

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Script:
    """A here-document that is a program of its own, with the name it gets in the container."""

    name: str
    content: str


def command_line(step: Run, settings: Settings) -> tuple[list[str], Script | None]:
    """What to execute, and a script that has to be there for it."""
    if not step.command.shell:
        return list(step.command.words), None
    (text,) = step.command.words
    documents = step.heredocs
    if len(documents) == 1 and _is_only_a_heredoc(text):
        content = documents[0].content
        if content.startswith("#!"):
            return [f"/dev/pipes/{documents[0].name}"], Script(documents[0].name, content)
        return [*settings.shell, content], None
    for document in documents:
        text += f"\n{document.content}{document.name}"
    return [*settings.shell, text], None


def _is_only_a_heredoc(text: str) -> bool:
    return len(text.split()) == 1 and text.startswith("<<")


@dataclass(slots=True)
class Runner:
    """Runs the steps of one build."""

    containers: Containers
    options: Options
    build: str  # its name, see ``leftovers``

    async def run(
        self,
        image: Image,
        settings: Settings,
        command: Sequence[str],
        environment: Sequence[str],
        output: Output,
        *,
        network: str = "",
        mounts: Sequence[Mapping[str, Any]] = (),
    ) -> Container:
        """Run ``command`` to its end; the container stays, for its files.

        Raises:
            CommandFailed: it ended with another exit code than 0.
            EngineError: it could not be run.
        """
        host: dict[str, Any] = {"Mounts": list(mounts)} if mounts else {}
        if network and network != "default":
            host["NetworkMode"] = network
        # An empty list runs what the image runs.
        words = list(command) or settings.values.get("Cmd")
        container, warnings = await self._create(
            image, settings, {"Cmd": words, "Env": list(environment)}, host
        )
        try:
            for warning in warnings:
                await output.line(f" ---> [Warning] {warning}")
            await output.line(f" ---> Running in {container.id[:12]}")
            code = await self._to_the_end(container, output)
        except (EngineError, RuntimeFailure):
            if self.options.force_remove:
                await self.remove(container, output)
            raise
        except BaseException:
            # Nobody waits for it any more: nothing of it is worth keeping.
            await self.remove(container, None)
            raise
        if code:
            if self.options.force_remove:
                await self.remove(container, output)
            raise CommandFailed(
                f"The command '{' '.join(command)}' returned a non-zero code: {code}", code
            )
        return container

    async def keep(self, image: Image, settings: Settings, command: Sequence[str]) -> str:
        """Make the container that stands for a step which runs nothing, for those who want to keep
        them (--rm=false); returns its short id."""
        container, _ = await self._create(image, settings, {"Cmd": list(command)}, {})
        return container.id[:12]

    async def _create(
        self,
        image: Image,
        settings: Settings,
        config: Mapping[str, Any],
        host: Mapping[str, Any],
    ) -> tuple[Container, list[str]]:
        whole = {
            **settings.values,
            "Image": image.id,
            "Entrypoint": [""],
            "Healthcheck": {"Test": ["NONE"]},
            "OnBuild": None,
            "AttachStdout": True,
            "AttachStderr": True,
            **config,
        }
        resources = {**self.options.resources, **host, "LogConfig": {"Type": "none"}}
        resources["Annotations"] = {ANNOTATION: self.build}
        request = CreateRequest(
            fields.decode(fields.CONFIG, whole, "CreateRequest"),
            fields.decode(fields.HOST_CONFIG, resources, "CreateRequest.HostConfig"),
        )
        creating = asyncio.create_task(self.containers.create(request))
        try:
            return await _whole(creating)
        except asyncio.CancelledError:
            if creating.done() and not creating.cancelled() and creating.exception() is None:
                await self.remove(creating.result()[0], None)
            raise

    async def _to_the_end(self, container: Container, output: Output) -> int:
        ended = self.containers.wait(container, "next-exit")
        attached = attach(self.containers.runtime, container, stdin=False).stream
        assert attached is not None
        try:
            await _whole(asyncio.create_task(self.containers.start(container.id)))
            stream = await attached
            if stream is not None:
                try:
                    await self._copy(stream, output)
                finally:
                    await stream.close()
            return await ended
        finally:
            ended.cancel()
            attached.cancel()

    @staticmethod
    async def _copy(stream: Any, output: Output) -> None:
        # A character may be cut in two by the pipe.
        decoders = {n: codecs.getincrementaldecoder("utf-8")("replace") for n in (1, 2)}
        while True:
            number, data = await stream.read()
            if not data:
                return
            if text := decoders[number].decode(data):
                await (output.error(text) if number == 2 else output.text(text))

    async def remove(self, container: Container, output: Output | None) -> None:
        """Remove an intermediate container, and say so, to whoever still listens."""
        try:
            if output is not None:
                await output.line(f"Removing intermediate container {container.id[:12]}")
        finally:
            await _whole(asyncio.create_task(self._remove(container, output)))

    async def _remove(self, container: Container, output: Output | None) -> None:
        try:
            await self.containers.remove(container.id, force=True, volumes=True)
        except NotFound:
            log.debug("%s has been removed by someone else", container.id[:12])
        except EngineError as error:
            if output is not None:
                await output.line(
                    f"Error removing intermediate container {container.id[:12]}: {error.message}"
                )
            log.error("removing %s of a build: %s", container.id[:12], error.message)


async def _whole(work: asyncio.Task[_T]) -> _T:
    """The result of what must not stop half-way: one who is cancelled goes when it is done."""
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        raise
