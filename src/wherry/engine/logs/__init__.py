"""Logs of containers: where their output is kept, and how it is read back.

One module a driver, all of one shape (``types.Driver``), and the table below. The runtime writes to
what ``open_sink`` gives it; ``GET /containers/{id}/logs`` and attach read with ``reader``. A driver
whose messages cannot be read back has a file beside it that can (``docker logs`` then works with
all drivers but ``none``), unless the option ``cache-disabled`` says no.

Nouns: a **sink** takes what is read from a container's pipes, cuts it into **pieces** (whole lines,
or parts of long ones), and gives them to a **writer**, one a driver. A **log file** is what some
writers write to: rotated, followed, and read by a **reading**.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from wherry.engine.errors import BadParameter, EngineError
from wherry.engine.logs import options
from wherry.engine.logs.info import Info
from wherry.engine.logs.reading import Reading
from wherry.engine.logs.sink import Sink
from wherry.engine.logs.types import Driver, LogQuery, Writer

if TYPE_CHECKING:
    from wherry.engine.container.container import Container
    from wherry.engine.logs.files import Format

DEFAULT = "json-file"
NONE = "none"
# By name, the module; imported when it is used.
DRIVERS: Mapping[str, str] = {
    "journald": "journald",
    "json-file": "json_file",
    "local": "local",
    "syslog": "syslog",
}
# Pods' logs, which no user can choose: a container with a log path of its own has it.
CRI = "cri"

# What ``docker logs`` says of a driver whose messages cannot be read back.
UNREADABLE = "configured logging driver does not support reading"

_BUFFER_SIZE = 1_000_000  # bytes that wait in mode=non-blocking
_MODES = ("", "blocking", "non-blocking")
_CACHE = {"cache-max-size": "max-size", "cache-max-file": "max-file", "cache-compress": "compress"}
_COMMON = frozenset(("mode", "max-buffer-size", "cache-disabled", *_CACHE))


def _driver(name: str) -> Driver:
    module = "cri" if name == CRI else DRIVERS[name]
    return cast(Driver, importlib.import_module(f"wherry.engine.logs.{module}"))


def check_options(name: str, config: Mapping[str, str]) -> None:
    """Whether a container may be created with this driver and these options.

    Raises:
        BadParameter: with dockerd's text.
    """
    if name == NONE:
        return
    mode = config.get("mode", "")
    if mode not in _MODES:
        raise BadParameter(f"logger: logging mode not supported: {mode}")
    if "max-buffer-size" in config:
        if mode != "non-blocking":
            raise BadParameter(
                "logger: max-buffer-size option is only supported with 'mode=non-blocking'"
            )
        try:
            options.human_size(config["max-buffer-size"], 1024)
        except ValueError as error:
            raise BadParameter(f"error parsing option max-buffer-size: {error}") from None
    if config.get("cache-disabled"):
        try:
            options.boolean(config["cache-disabled"])
        except ValueError:
            text = f"invalid value for option cache-disabled: {config['cache-disabled']}"
            raise BadParameter(text) from None
    if name not in DRIVERS:
        raise BadParameter(f"logger: no log driver named '{name}' is registered")
    _driver(name).check({n: value for n, value in config.items() if n not in _COMMON})


def driver_of(container: Container) -> str:
    """The name of its driver."""
    if container.log_path:
        return CRI
    return str(container.host_config["LogConfig"].get("Type") or DEFAULT)


def _options_of(container: Container) -> Mapping[str, str]:
    return container.host_config["LogConfig"].get("Config") or {}


def _path(container: Container, name: str) -> Path:
    match name:
        case "cri":
            return Path(container.log_path)
        case "json-file":
            return container.home / f"{container.id}-json.log"
        case "local":
            return container.home / "local-logs" / "container.log"
        case _:
            return container.home / "container-cached.log"


def shown_path(container: Container) -> str:
    """``LogPath`` of the API: the file of ``json-file``, once there is one."""
    name = driver_of(container)
    if name == CRI or (name == DEFAULT and container.state.started_at):
        return str(_path(container, name))
    return ""


async def open_sink(container: Container) -> Sink | None:
    """Where a run that begins is logged; None for nowhere.

    Raises:
        EngineError: an option makes no sense, or nobody takes the messages.
    """
    try:
        sink = _open(container)
        if sink is not None:
            try:
                await sink.connect()
            except BaseException:
                await sink.close()
                raise
    except (OSError, ValueError) as error:
        text = error.strerror or str(error) if isinstance(error, OSError) else str(error)
        raise EngineError(f"failed to initialize logging driver: {text}") from error
    return sink


def resume_sink(container: Container) -> Sink | None:
    """Where a run that another daemon began is logged from now on; None for nowhere.

    Raises:
        OSError, ValueError: the log cannot be opened.
    """
    return _open(container)


def _open(container: Container) -> Sink | None:
    name = driver_of(container)
    if name == NONE:
        return None
    writers = _writers(container, name)

    def closed() -> None:
        if container.log is sink:
            container.log = None

    sink = container.log = Sink(container.id, writers, closed)
    return sink


def _writers(container: Container, name: str) -> list[Writer]:
    config = _options_of(container)
    writer = _driver(name).Writer(_info(container, config, _path(container, name)))
    readable = writer.file is not None
    if config.get("mode") == "non-blocking":
        from wherry.engine.logs.ring import Ring

        size = config.get("max-buffer-size")
        writer = Ring(writer, options.human_size(size, 1024) if size else _BUFFER_SIZE)
    if readable or not _cached(config):
        return [writer]
    cache = {inner: config[name] for name, inner in _CACHE.items() if name in config}
    info = _info(container, cache, _path(container, "cache"))
    # First what is near: it need not wait for what is far.
    return [_driver("local").Writer(info), writer]


def _cached(config: Mapping[str, str]) -> bool:
    text = config.get("cache-disabled")
    return not (text and options.boolean(text))


def _info(container: Container, config: Mapping[str, str], path: Path) -> Info:
    return Info(
        config=config,
        path=path,
        id=container.id,
        name=container.name,
        image_id=container.image_id,
        image_name=str(container.config["Image"]),
        entrypoint=container.path,
        args=container.args,
        env=container.config["Env"] or (),
        labels=container.labels,
    )


@dataclass(frozen=True, slots=True)
class LogReader:
    """Reads the log of one container."""

    container: Container
    path: Path
    format: Format

    def open(self, query: LogQuery, *, framed: bool) -> Reading:
        """A look at it from this moment on; followed, if asked, until the run ends."""
        live = self.container.log.file if self.container.log is not None else None
        return Reading(self.path, self.format, live, query, raw=not framed)


def reader(container: Container) -> LogReader | None:
    """Reads its log; None where the driver keeps nothing that can be read."""
    name = driver_of(container)
    if name == CRI:
        from wherry.engine.logs.cri import CRILines

        return LogReader(container, _path(container, name), CRILines())
    if name == DEFAULT:
        from wherry.engine.logs.json_file import JSONLines

        return LogReader(container, _path(container, name), JSONLines())
    if name == NONE or (name != "local" and not _cached(_options_of(container))):
        return None
    from wherry.engine.logs.local import LocalEntries

    return LogReader(container, _path(container, name), LocalEntries())
