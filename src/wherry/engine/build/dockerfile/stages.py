"""The stages of a Dockerfile, and which of them a target needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from wherry.engine.build.dockerfile.errors import DockerfileError
from wherry.engine.build.dockerfile.instructions import (
    Arg,
    Copy,
    From,
    Instruction,
    Label,
    Run,
    instruction,
)
from wherry.engine.build.dockerfile.parser import Parsed
from wherry.engine.build.dockerfile.words import expand


@dataclass(slots=True)
class Stage:
    """One FROM and what follows it; ``number`` counts from 0."""

    number: int
    start: From
    steps: list[Instruction] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.start.name


@dataclass(slots=True)
class Dockerfile:
    """A whole file, judged: ``arguments`` are the ARGs before the first FROM."""

    stages: list[Stage]
    arguments: list[Arg]
    escape: str = "\\"
    warnings: Sequence[str] = ()


def read(parsed: Parsed) -> Dockerfile:
    """The stages of what ``parser.parse`` has found.

    Raises:
        DockerfileError: an instruction is wrong, or stands before the first FROM.
    """
    stages: list[Stage] = []
    arguments: list[Arg] = []
    names: set[str] = set()
    for node in parsed.nodes:
        try:
            one = instruction(node)
        except DockerfileError as error:
            raise DockerfileError(f"dockerfile parse error line {node.line}: {error}") from None
        if isinstance(one, From):
            stages.append(Stage(len(stages), one))
            if one.name in names:
                raise DockerfileError(f"{one.name} stage name already used")
            names.add(one.name) if one.name else None
        elif stages:
            stages[-1].steps.append(one)
        elif isinstance(one, Arg):
            arguments.append(one)
        else:
            raise DockerfileError("no build stage in current context")
    if not stages:
        raise DockerfileError("No image was generated. Is your Dockerfile empty?")
    return Dockerfile(stages, arguments, parsed.escape, parsed.warnings)


def target_stage(file: Dockerfile, target: str) -> Stage:
    """The stage called ``target``, by name or number; the last one for an empty target.

    Raises:
        DockerfileError: there is none.
    """
    if not target:
        return file.stages[-1]
    for stage in file.stages:
        if stage.name == target.lower():
            return stage
    if target.isdigit() and int(target) < len(file.stages):
        return file.stages[int(target)]
    raise DockerfileError(f"failed to reach build target {target} in Dockerfile")


def needed(
    file: Dockerfile, target: Stage, variables: Mapping[str, str]
) -> dict[int, frozenset[int]]:
    """The stages to build for ``target``: by number, each with those it directly needs.

    ``variables`` are for the names of base images. Only what stands before a stage can be needed
    by it, so the result has no circles.
    """
    found: dict[int, frozenset[int]] = {}
    waiting = [target]
    while waiting:
        stage = waiting.pop()
        if stage.number in found:
            continue
        before = file.stages[: stage.number]
        references = [(expand(stage.start.base, variables, file.escape), False)]
        for step in stage.steps:
            if isinstance(step, Copy) and step.origin:
                references.append((step.origin, True))
            if isinstance(step, Run):
                references += [(mount.origin, True) for mount in step.mounts if mount.origin]
        named = [find(before, text, numbers=numbers) for text, numbers in references]
        direct = [one for one in named if one is not None]
        found[stage.number] = frozenset(one.number for one in direct)
        waiting += direct
    return dict(sorted(found.items()))


def find(before: Sequence[Stage], text: str, *, numbers: bool) -> Stage | None:
    """The stage among those ``before`` that a reference means; None for an image.

    Only ``--from`` may say a number.
    """
    for stage in reversed(before):
        if stage.name and stage.name == text.lower():
            return stage
    if numbers and text.isdigit() and int(text) < len(before):
        return before[int(text)]
    return None


def with_labels(stage: Stage, labels: Mapping[str, str]) -> Stage:
    """The stage with the labels of ``docker build --label`` at its end, in their names' order."""
    if not labels:
        return stage
    added = [
        Label(f"LABEL {name}={value}", 0, ((name, value),), literal=True)
        for name, value in sorted(labels.items())
    ]
    return replace(stage, steps=[*stage.steps, *added])
