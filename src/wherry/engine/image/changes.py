"""``--change`` of ``docker import`` and ``docker commit``: Dockerfile instructions on a config.

Only instructions that change metadata are allowed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wherry.engine.build.dockerfile import DockerfileError
from wherry.engine.build.dockerfile.instructions import instruction
from wherry.engine.build.dockerfile.parser import parse
from wherry.engine.build.settings import Scope, Settings
from wherry.engine.errors import BadParameter

_ALLOWED = frozenset(
    (
        *("cmd", "entrypoint", "env", "expose", "healthcheck", "label", "onbuild"),
        *("stopsignal", "user", "volume", "workdir"),
    )
)


def apply(settings: Mapping[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """The container settings of an image (``Env``, ``Cmd``, …) after the instructions.

    Raises:
        BadParameter: an instruction is wrong or not allowed here.
    """
    result = Settings(dict(settings))
    if not changes:
        return result.values
    try:
        parsed = parse("\n".join(changes))
        for node in parsed.nodes:
            if node.keyword not in _ALLOWED:
                raise BadParameter(f"{node.keyword} is not a valid change command")
        for step in [instruction(node) for node in parsed.nodes]:
            result.apply(step, Scope(result.environment, escape=parsed.escape))
    except DockerfileError as error:
        raise BadParameter(error.message) from None
    return result.values
