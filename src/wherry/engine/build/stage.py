"""One stage: FROM, and each instruction after it, to an image of its own."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from wherry.engine.build import copying
from wherry.engine.build.cache import Cache
from wherry.engine.build.copying import Chosen, Copying
from wherry.engine.build.dockerfile import DockerfileError
from wherry.engine.build.dockerfile.arguments import Arguments
from wherry.engine.build.dockerfile.instructions import (
    Arg,
    Copy,
    Healthcheck,
    Instruction,
    Run,
    Volume,
    Workdir,
    instruction,
)
from wherry.engine.build.dockerfile.parser import parse
from wherry.engine.build.dockerfile.stages import Stage
from wherry.engine.build.images import add, document, inherited
from wherry.engine.build.layer import LayerWriter, Ownership
from wherry.engine.build.mounting import CacheDirectories, mounted
from wherry.engine.build.options import Options
from wherry.engine.build.output import Output
from wherry.engine.build.owners import find_owner
from wherry.engine.build.running import Runner, command_line
from wherry.engine.build.settings import Scope, Settings
from wherry.engine.build.sources import Context, Source
from wherry.engine.container.merge import DEFAULT_PATH
from wherry.engine.errors import BadParameter, EngineError
from wherry.engine.image import tar
from wherry.engine.image.changeset import layer_archive
from wherry.engine.image.image import Image
from wherry.engine.image.manifest import Platform
from wherry.engine.image.store import ImageStore
from wherry.engine.image.threads import in_thread

# Opens what --from means: a stage by name or number, else an image.
OpenFrom = Callable[[str, AsyncExitStack], Awaitable[Source]]
# Fetches the URL of an ADD.
Download = Callable[[str, Copy, str, Path], Awaitable[Chosen]]


@dataclass(slots=True)
class Result:
    """What a stage has come to."""

    image: Image | None
    settings: Settings


@dataclass(slots=True)
class StageBuilder:
    """Carries out the steps of ``stage``; ``first_step`` and ``total`` number them."""

    images: ImageStore
    runner: Runner
    options: Options
    context: Context | None
    scratch: Path
    caches: CacheDirectories
    output: Output
    stage: Stage
    first_step: int
    total: int
    arguments: Arguments
    escape: str
    cache: Cache
    platform: Platform
    open_from: OpenFrom
    download: Download
    used: Callable[[Image], None]
    image: Image | None = None
    settings: Settings = field(default_factory=Settings)

    async def build(self, find_base: Callable[[], Awaitable[Image | None]]) -> Result:
        """All of it, on the image that ``find_base`` finds or pulls, None for scratch.

        Raises:
            DockerfileError: an instruction makes no sense here.
            EngineError: a step fails.
        """
        await self._announce(0, self.stage.start.text)
        self.image = base = await find_base()
        self.settings = Settings(dict(base.settings) if base is not None else {})
        if "PATH" not in self.settings.environment:
            self.settings.values["Env"] = [
                *(self.settings.values.get("Env") or []),
                f"PATH={DEFAULT_PATH}",
            ]
        await self._triggers()
        await self._tell_image()
        for number, step in enumerate(self.stage.steps, 1):
            await self._announce(number, step.text)
            await self._step(step)
            await self._tell_image()
        if self.image is not None:
            await self.output.message({"aux": {"ID": self.image.id}})
        return Result(self.image, self.settings)

    async def _announce(self, number: int, text: str) -> None:
        await self.output.line(f"Step {self.first_step + number}/{self.total} : {text}")

    async def _tell_image(self) -> None:
        await self.output.line(f" ---> {self.image.short_id if self.image is not None else ''}")

    async def _triggers(self) -> None:
        triggers = self.settings.values.pop("OnBuild", None) or []
        if not triggers:
            return
        plural = "s" if len(triggers) > 1 else ""
        await self.output.line(f"# Executing {len(triggers)} build trigger{plural}")
        for trigger in triggers:
            nodes = parse(trigger).nodes
            if len(nodes) != 1:
                raise DockerfileError("onbuild trigger should be a single expression")
            await self._step(instruction(nodes[0]))

    # ---- steps

    @property
    def _scope(self) -> Scope:
        return Scope(self.settings.environment, self.arguments.values(), self.escape)

    async def _step(self, step: Instruction) -> None:
        match step:
            case Arg():
                await self._arg(step)
            case Copy():
                await self._copy(step)
            case Run():
                await self._run(step)
            case Workdir():
                comment = self.settings.apply(step, self._scope)
                await self._files(f"#(nop) {comment}", self._working_directory)
            case _:
                former = (self.settings.values.get("Healthcheck") or {}).get("Test") or ["NONE"]
                if isinstance(step, Healthcheck) and former[0] != "NONE":
                    shown = " ".join(former)
                    await self.output.line(f"Note: overriding previous HEALTHCHECK: [{shown}]")
                comment = self.settings.apply(step, self._scope)
                if isinstance(step, Volume):
                    await in_thread(self._check_volumes)
                await self._files(f"#(nop)  {comment}", None)

    async def _arg(self, step: Arg) -> None:
        shown = []
        for name, default in step.names:
            scope = self._scope
            value = None if default is None else scope.expand(default)
            self.arguments.declare(scope.expand(name), value)
            shown.append(name if value is None else f"{name}={value}")
        await self._files(f"#(nop)  ARG {' '.join(shown)}", None)

    async def _files(
        self, comment: str, layer: Callable[[], Iterator[bytes]] | None, *, runs: bool = True
    ) -> None:
        """A step that runs nothing: from the cache, or with the files that ``layer`` makes."""
        # The text after the mark is an argument of its own, but for steps that have files.
        mark, text = (comment[:8], comment[8:]) if comment.startswith("#(nop)  ") else (comment, "")
        command = [*self.settings.shell, *([f"{mark[:-1]}", text] if text else [mark])]
        created_by = " ".join(command)
        if await self._cached(created_by):
            return
        # Docker makes a container here, and clients expect to hear of it.
        name = f"{time.time_ns():x}"[-12:]
        if runs and not self.options.remove and self.image is not None:
            name = await self.runner.keep(self.image, self.settings, command)
        if runs:
            await self.output.line(f" ---> Running in {name}")
        await self._make(created_by, command, layer() if layer is not None else None)
        if runs and self.options.remove:
            await self.output.line(f"Removing intermediate container {name}")

    async def _cached(self, created_by: str) -> bool:
        values = inherited(self.settings.values)
        found = self.cache.find(self.image, created_by, values, self.settings.author)
        if found is None:
            restored = self.cache.from_sources(self.image, created_by)
            if isinstance(restored, Image):
                found = restored
            elif restored is not None:
                base, step = restored
                history = (self.image.config.get("history") or []) if self.image else []
                config = self._document(created_by) | {"history": [*history, dict(step)]}
                found = await self.images.add_layered(
                    config, base=base, parent=self.image.id if self.image is not None else ""
                )
        if found is None:
            return False
        await self.output.line(" ---> Using cache")
        self._take(found)
        return True

    def _document(
        self, created_by: str, command: Sequence[str] = (), container: str = ""
    ) -> dict[str, Any]:
        platform = self.image.platform if self.image is not None else self.platform
        settings = inherited(self.settings.values)
        return document(
            self.image,
            platform,
            settings,
            created_by=created_by,
            author=self.settings.author,
            container=container,
            container_config={**settings, "Cmd": list(command)} if command else None,
        )

    async def _make(
        self,
        created_by: str,
        command: Sequence[str],
        layer: Iterator[bytes] | None,
        container: str = "",
    ) -> None:
        config = self._document(created_by, command, container)
        self._take(await add(self.images, self.image, config, layer))

    def _take(self, image: Image) -> None:
        self.used(image)
        self.image = image

    @property
    def _lower(self) -> list[Path]:
        return list(self.images.layers(self.image)) if self.image is not None else []

    def _check_volumes(self) -> None:
        writer = LayerWriter(self._lower, 0)
        for path in self.settings.values.get("Volumes") or {}:
            if writer.kind(writer.resolve(path)) not in (None, tar.DIRECTORY):
                raise DockerfileError(f"cannot mount volume over existing file, file exists {path}")

    def _working_directory(self) -> Iterator[bytes]:
        writer = LayerWriter(self._lower, time.time_ns())
        yield from writer.directory(writer.resolve(self.settings.values["WorkingDir"]), (0, 0))
        yield writer.end()

    # ---- COPY and ADD

    async def _copy(self, step: Copy) -> None:
        scope = self._scope
        word = "ADD" if step.add else "COPY"
        sources = [scope.expand(text) for text in step.sources]
        destination = scope.expand(step.destination)
        absolute = self.settings.resolve(destination or ".")
        if destination.endswith(("/", "/.")) or destination == ".":
            absolute = f"{absolute.rstrip('/')}/"
        heredocs = tuple(
            replace(one, content=scope.expand_text(one.content)) if one.expand else one
            for one in step.heredocs
        )
        step = replace(step, heredocs=heredocs)
        async with AsyncExitStack() as stack:
            source: Source | None = self.context
            if step.origin:
                try:
                    source = await self.open_from(scope.expand(step.origin), stack)
                except EngineError as error:
                    raise type(error)(
                        f"invalid from flag value {step.origin}: {error.message}"
                    ) from error
            remote = [text for text in sources if step.add and _is_url(text)]
            if not step.add and any(_is_url(text) for text in sources):
                raise DockerfileError(f"{word} failed: source can't be a URL for COPY")
            local = [text for text in sources if text not in remote]
            chosen = await in_thread(copying.choose, step, local, source)
            for url in remote:
                chosen.append(await self.download(url, step, absolute, self.scratch))
            copying.check(word, chosen, absolute)
            ownership = await in_thread(self._ownership, step, scope)
            whole = Copying(chosen, absolute, ownership, step.exclude, step.parents)
            content = await in_thread(copying.fingerprint, whole)
            flags = f"--chown={step.chown}" if step.chown else ""
            flags += f"--chmod={step.chmod}" if step.chmod else ""
            comment = f"#(nop) {word} {flags}{content} in {absolute} "
            lower, scratch = self._lower, self.scratch
            await self._files(
                comment,
                lambda: copying.layer(whole, lower, time.time_ns(), scratch),
                runs=False,
            )

    def _ownership(self, step: Copy, scope: Scope) -> Ownership:
        mode = None
        if step.chmod:
            text = scope.expand(step.chmod)
            try:
                mode = int(text, 8)
            except ValueError:
                mode = -1
            if not 0 <= mode <= 0o7777:
                raise DockerfileError(
                    f"invalid chmod parameter: '{text}'. it should be octal string and between 0"
                    " and 07777"
                )
        if step.chown:
            return Ownership(find_owner(scope.expand(step.chown), self._lower), mode)
        return Ownership(None if step.origin else (0, 0), mode)

    # ---- RUN

    async def _run(self, step: Run) -> None:
        if self.image is None:
            raise BadParameter("No image was generated. RUN needs a base image with a shell")
        command, script = command_line(step, self.settings)
        environment = self.settings.environment
        shown = self.arguments.shown(environment)
        shown_command = [*command, *([script.content] if script is not None else [])]
        recorded = [f"|{len(shown)}", *shown, *shown_command] if shown else shown_command
        created_by = " ".join(recorded)
        if await self._cached(created_by):
            return
        variables = [*(self.settings.values.get("Env") or [])]
        variables += [
            f"{name}={value}"
            for name, value in self.arguments.values().items()
            if name not in environment
        ]
        async with AsyncExitStack() as stack:

            async def open_(reference: str) -> Source | None:
                return await self.open_from(reference, stack) if reference else self.context

            directory = self.scratch / f"run-{time.time_ns():x}"
            directory.mkdir()
            mounts = await stack.enter_async_context(
                mounted(
                    *(step.mounts, script, self._scope, self.settings.resolve),
                    *(self.caches, open_, directory),
                )
            )
            container = await self.runner.run(
                self.image,
                self.settings,
                command,
                variables,
                self.output,
                network=step.network,
                mounts=mounts,
            )
            try:
                targets = [str(mount["Target"]).strip("/") for mount in mounts]
                upper = container.layers / "upper"
                layer = layer_archive(upper, without=targets)
                await self._make(created_by, recorded, layer, container.id)
            finally:
                if self.options.remove or self.options.force_remove:
                    await self.runner.remove(container, self.output)


def _is_url(text: str) -> bool:
    return text.startswith(("http://", "https://"))
