"""The builder: from a context and options to an image.

Each needed stage is a task that waits for the stages it depends on; what they tell the client comes
in the order of the file all the same. Everything a build puts on the disk beside images is in one
directory that goes with it, and with the next start of the engine after a kill.
"""

from __future__ import annotations

import asyncio
import secrets
import shutil
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from wherry.engine.build.cache import Cache
from wherry.engine.build.dockerfile import DockerfileError
from wherry.engine.build.dockerfile.arguments import Arguments, unused
from wherry.engine.build.dockerfile.instructions import Arg
from wherry.engine.build.dockerfile.parser import parse
from wherry.engine.build.dockerfile.patterns import IgnoreFile, read_ignore_file
from wherry.engine.build.dockerfile.stages import (
    Dockerfile,
    Stage,
    find,
    needed,
    read,
    target_stage,
    with_labels,
)
from wherry.engine.build.dockerfile.words import expand
from wherry.engine.build.leftovers import temporary
from wherry.engine.build.mounting import CacheDirectories
from wherry.engine.build.options import Options, Send
from wherry.engine.build.output import Output
from wherry.engine.build.remote import fetch_file
from wherry.engine.build.running import Runner
from wherry.engine.build.sources import Context, Source, Tree
from wherry.engine.build.stage import Result, StageBuilder
from wherry.engine.container.service import Containers
from wherry.engine.container.view import Plan, View
from wherry.engine.errors import BadParameter, EngineError, NotFound
from wherry.engine.image.image import Image
from wherry.engine.image.manifest import Platform, host_platform, parse_platform
from wherry.engine.image.reference import parse as parse_reference
from wherry.engine.image.store import ImageStore, check_platform
from wherry.engine.image.threads import in_thread
from wherry.host.files import make_private

SCRATCH = "scratch"
_SIDE_BY_SIDE = 4


class Builder:
    """All builds of one engine; ``root`` is where it may keep files."""

    def __init__(self, root: Path, images: ImageStore, containers: Containers) -> None:
        self.images = images
        self.containers = containers
        self.caches = CacheDirectories(root / "cache")
        self._temporary = temporary(root)
        self._used: Counter[str] = Counter()
        self.running: dict[str, asyncio.Task[object]] = {}

    def using_image(self, identity: str) -> list[str]:
        """A name for what needs the image, where a build does."""
        return ["build"] if self._used[identity] else []

    @asynccontextmanager
    async def scratch(self) -> AsyncIterator[Path]:
        """A directory for one build."""
        path = self._temporary / secrets.token_hex(8)
        try:
            await in_thread(self._make_scratch, path)
            yield path
        finally:
            await in_thread(shutil.rmtree, path, True)

    def _make_scratch(self, path: Path) -> None:
        make_private(self._temporary)
        path.mkdir(mode=0o700)

    async def build(
        self, options: Options, context: Context | None, scratch: Path, send: Send
    ) -> Image:
        """Build, tell ``send`` about it, and name the image; returns it.

        Raises:
            BadParameter: the Dockerfile or an option is wrong.
            CommandFailed: a RUN failed.
            EngineError: something else stands against it.
        """
        try:
            tags = [_tag(text) for text in options.tags]
            file = await in_thread(_read_dockerfile, context, options)
            build = Build(self, options, file, context, scratch, send)
            try:
                image = await build.run()
            finally:
                for identity in build.used:
                    self._used[identity] -= 1
        except DockerfileError as error:
            raise BadParameter(error.message) from None
        await send({"stream": f"Successfully built {image.short_id}\n"})
        for tag in tags:
            await self.images.tag(image.id, tag)
            await send({"stream": f"Successfully tagged {tag}\n"})
        return image

    def use(self, image: Image) -> None:
        """Keep ``image`` until the build that says so ends."""
        self._used[image.id] += 1


@dataclass(slots=True)
class Build:
    """One build."""

    builder: Builder
    options: Options
    file: Dockerfile
    context: Context | None
    scratch: Path
    send: Send
    used: list[str] = field(default_factory=list)
    results: dict[int, asyncio.Task[Result]] = field(default_factory=dict)

    async def run(self) -> Image:
        """All of it; returns the image of the target."""
        options, file = self.options, self.file
        target = target_stage(file, options.target)
        arguments = Arguments(options.arguments, _builtin(options.platform or host_platform()))
        for step in file.arguments:
            for name, default in step.names:
                arguments.declare(name, self._expanded(default, arguments))
        order = needed(file, target, arguments.for_from())
        stages = {number: file.stages[number] for number in order}
        stages[target.number] = with_labels(target, options.labels)
        total = len(file.arguments) + sum(1 + len(stage.steps) for stage in stages.values())
        for number, step in enumerate(file.arguments, 1):
            await self._line(f"Step {number}/{total} : {step.text}")
        for warning in file.warnings:
            await self._line(warning)
        outputs = {number: Output(self.send) for number in stages}
        room = asyncio.Semaphore(_SIDE_BY_SIDE)
        first = len(file.arguments) + 1
        for number, stage in stages.items():
            work = self._stage(stage, order[number], first, total, arguments, outputs, room)
            self.results[number] = asyncio.create_task(work)
            first += 1 + len(stage.steps)
        try:
            await self._tell(outputs)
        finally:
            for task in self.results.values():
                task.cancel()
            await asyncio.gather(*self.results.values(), return_exceptions=True)
        image = self.results[target.number].result().image
        if image is None:
            raise DockerfileError("No image was generated. Is your Dockerfile empty?")
        declared = frozenset(
            name
            for stage in stages.values()
            for step in (*file.arguments, *stage.steps)
            if isinstance(step, Arg)
            for name, _ in step.names
        )
        if left := unused(options.arguments, declared):
            await self._line(
                f"[Warning] One or more build-args [{' '.join(left)}] were not consumed"
            )
        return image

    async def _line(self, text: str) -> None:
        await self.send({"stream": f"{text}\n"})

    def _expanded(self, default: str | None, arguments: Arguments) -> str | None:
        return default and expand(default, arguments.for_from(), self.file.escape)

    async def _tell(self, outputs: Mapping[int, Output]) -> None:
        """Let each stage speak in its turn; one that fails speaks at once, and last."""
        for number in self.results:
            await outputs[number].go_live()
            while not self.results[number].done():
                pending = [task for task in self.results.values() if not task.done()]
                await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                self._check()
            self._check()
            await outputs[number].go_live()

    def _check(self) -> None:
        for task in self.results.values():
            if task.done() and not task.cancelled() and (error := task.exception()):
                raise error

    async def _stage(
        self,
        stage: Stage,
        dependencies: frozenset[int],
        first_step: int,
        total: int,
        arguments: Arguments,
        outputs: Mapping[int, Output],
        room: asyncio.Semaphore,
    ) -> Result:
        output = outputs[stage.number]
        for number in dependencies:
            await asyncio.shield(self.results[number])
        options = self.options
        async with room:
            platform = options.platform
            if stage.start.platform:
                text = expand(stage.start.platform, arguments.for_from(), self.file.escape)
                platform = parse_platform(text)
            sources = [image for name in options.cache_from if (image := self._found(name))]
            builder = StageBuilder(
                images=self.builder.images,
                runner=Runner(self.builder.containers, options, self.scratch.name),
                options=options,
                context=self.context,
                scratch=self.scratch,
                caches=self.builder.caches,
                output=output,
                stage=stage,
                first_step=first_step,
                total=total,
                arguments=Arguments(options.arguments, before=arguments),
                escape=self.file.escape,
                cache=Cache(
                    self.builder.images, options.use_cache, bool(options.cache_from), sources
                ),
                platform=platform or host_platform(),
                open_from=self._opener(stage, output),
                download=fetch_file,
                used=self._use,
            )
            try:
                return await builder.build(self._base(stage, arguments, platform, output))
            except BaseException as error:
                if not isinstance(error, asyncio.CancelledError):
                    await output.go_live()
                raise

    def _found(self, name: str) -> Image | None:
        try:
            return self.builder.images.resolve(name)
        except EngineError:
            return None

    def _use(self, image: Image) -> None:
        self.builder.use(image)
        self.used.append(image.id)

    # ---- base images

    def _base(
        self, stage: Stage, arguments: Arguments, platform: Platform | None, output: Output
    ) -> Callable[[], Awaitable[Image | None]]:
        async def find_base() -> Image | None:
            name = expand(stage.start.base, arguments.for_from(), self.file.escape)
            if not name:
                raise DockerfileError(f"base name ({stage.start.base}) should not be blank")
            other = find(self.file.stages[: stage.number], name, numbers=False)
            if other is not None:
                return self.results[other.number].result().image
            if name == SCRATCH:
                return None
            return await self._image(name, platform, output)

        return find_base

    async def _image(self, name: str, platform: Platform | None, output: Output) -> Image:
        images = self.builder.images
        if not self.options.pull:
            try:
                image = images.resolve(name)
                check_platform(image, platform)
            except NotFound:
                pass
            else:
                self._use(image)
                return image
        reference = parse_reference(name).with_default_tag()
        credentials = self.options.credentials_for(reference.domain)
        async for message in images.distribution.pull(reference, credentials, platform=platform):
            await output.message(message)
        image = images.resolve(str(reference))
        self._use(image)
        return image

    # ---- --from

    def _opener(
        self, stage: Stage, output: Output
    ) -> Callable[[str, AsyncExitStack], Awaitable[Source]]:
        async def open_from(reference: str, stack: AsyncExitStack) -> Source:
            other = find(self.file.stages[: stage.number], reference, numbers=True)
            if other is not None:
                image = self.results[other.number].result().image
            elif reference.isdigit():
                same = int(reference) == stage.number
                raise BadParameter(
                    "refers to current build stage" if same else "index out of bounds"
                )
            else:
                image = await self._image(reference, self.options.platform, output)
            place = Path(await in_thread(tempfile.mkdtemp, None, None, str(self.scratch)))
            layers = self.builder.images.layers(image) if image is not None else [place]
            view = await in_thread(View, _view_plan(place, layers))
            stack.push_async_callback(in_thread, view.close)
            return Tree(view.root)

        return open_from


def _view_plan(place: Path, layers: Sequence[Path]) -> Plan:
    return Plan(layers=layers, upper=place / "upper", work=place / "work", rootfs=place / "rootfs")


def _read_dockerfile(context: Context | None, options: Options) -> Dockerfile:
    """The Dockerfile of the context, which is rid of what its .dockerignore names."""
    name = options.dockerfile
    data = context.read(name) if context is not None else None
    if data is None and name == "Dockerfile" and context is not None:
        data = context.read("dockerfile")
    if data is None:
        raise EngineError(f"Cannot locate specified Dockerfile: {name}")
    if not data:
        raise BadParameter(f"the Dockerfile ({name}) cannot be empty")
    assert context is not None
    ignore = context.read(f"{name}.dockerignore")
    if ignore is None:
        ignore = context.read(".dockerignore")
    if ignore is not None:
        try:
            context.without(IgnoreFile(read_ignore_file(ignore.decode("utf-8", "replace"))))
        except DockerfileError as error:
            raise DockerfileError(f"failed to parse dockerignore: {error}") from None
    try:
        parsed = parse(data.decode("utf-8", "surrogateescape"))
    except DockerfileError as error:
        raise DockerfileError(f"failed to parse {name}: {error}") from None
    return read(parsed)


def _tag(text: str) -> str:
    reference = parse_reference(text)
    if reference.digest:
        raise BadParameter("build tag cannot contain a digest")
    return reference.with_default_tag().familiar()


def _builtin(platform: Platform) -> dict[str, str]:
    here = host_platform()
    values: dict[str, str] = {}
    for prefix, one in (("BUILD", here), ("TARGET", platform)):
        values |= {
            f"{prefix}PLATFORM": str(one),
            f"{prefix}OS": one.os,
            f"{prefix}ARCH": one.architecture,
            f"{prefix}VARIANT": one.variant,
        }
    return values
