"""Running plugins, and remembering what they must be told when a pod goes.

Before the first plugin of a pod is run, a record is on disk of who is run, with what configuration;
their result is added to it. So a pod goes as it came though the daemon was killed at any step and
the configuration is another by then: whoever finds a record has DEL to say, whoever finds none has
nothing to do.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import orjson

from wherry.engine.errors import EngineError
from wherry.engine.network.cni import conf as confs
from wherry.engine.network.cni import protocol
from wherry.engine.network.cni.conf import ConfList
from wherry.engine.network.cni.protocol import Attachment, BadResult, Place
from wherry.engine.network.cni.turns import Turns
from wherry.host.files import make_private, write_atomic
from wherry.host.inotify import Appearance, Directory
from wherry.host.process import run
from wherry.net import namespaces

log = logging.getLogger(__name__)

FORMAT = 1
# So long a plugin may take, in seconds, as dockershim had it.
_PATIENCE = 220.0
# Likewise for a word on how it is, and how often it is asked: plugins cannot tell by themselves.
_STATUS_PATIENCE, STATUS_PERIOD = 10.0, 5.0
_FIRST_DELAY, _LAST_DELAY = 1.0, 60.0  # seconds until a plugin that refused to undo is asked again
NOT_READY = (
    "NetworkReady=false reason:NetworkPluginNotReady message:docker: network plugin is not ready: "
)


class PluginFailed(EngineError):
    """A plugin is not there or has refused; the text is libcni's, around it dockershim's."""


class Plugins:
    """The plugins of one engine.

    ``directory`` has their configuration, None where pods are not theirs; they are looked for in
    ``path``. ``records`` is the directory for what is remembered.
    """

    def __init__(self, directory: Path | None, path: Sequence[Path], records: Path) -> None:
        self._directory = directory
        self._path = tuple(path)
        self._records = records
        self._undoing: dict[str, asyncio.Task[None]] = {}
        self._turns = Turns()
        self._judged: ConfList | None = None
        self._asked = False  # they can tell how they are
        self._supported: dict[tuple[Path, int, int, int], frozenset[str]] = {}

    @property
    def wanted(self) -> bool:
        """Whether pods get their places by plugins."""
        return self._directory is not None

    async def judge(self) -> None:
        """Raises EngineError: there is no configuration yet, or a plugin says that it is not ready;
        the text is the kubelet's."""
        if not self.wanted:
            return
        conf = self._judged = self._conf()
        self._asked = False
        if conf is None:
            raise EngineError(f"{NOT_READY}cni config uninitialized")
        conf = await self._agreed(conf)
        self._asked = conf.tells
        for plugin in conf.plugins if conf.tells else ():
            try:
                await self._call("STATUS", conf, plugin, patience=_STATUS_PATIENCE)
            except PluginFailed as error:
                raise EngineError(f"{NOT_READY}{error.message}") from None

    async def changed(self) -> None:
        """Return when ``judge`` may find otherwise: files of the configuration have come, gone or
        been written, or it is time to ask plugins that can tell how they are."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STATUS_PERIOD if self._asked else None):
                await self._rewritten()

    async def _rewritten(self) -> None:
        forever = asyncio.get_running_loop().create_future()
        if self._directory is None:
            await forever
            return
        try:
            with Directory(self._directory, content=True) as watched:
                if self._conf() == self._judged:  # since when nobody has watched
                    await watched.changed_or(forever)
        except OSError:
            appearing = asyncio.Event()
            awaited = Appearance(self._directory, appearing.set)
            try:
                await appearing.wait()
            finally:
                awaited.close()

    def _conf(self) -> ConfList | None:
        return confs.load(self._directory) if self._directory is not None else None

    # ---- the calls

    async def add(self, attachment: Attachment, namespace: Path) -> Place:
        """Give the pod its place. What a plugin has done before another failed is undone by
        ``delete``.

        Raises:
            PluginFailed: no place is given.
        """
        try:
            async with self._turns.shared():
                return await self._add(attachment, namespace)
        except PluginFailed as error:
            name, full = attachment.name, f"{attachment.name}_{attachment.namespace}"
            raise PluginFailed(
                f'failed to set up sandbox container "{attachment.id}" network for pod "{name}": '
                f'networkPlugin cni failed to set up pod "{full}" network: {error.message}'
            ) from None

    async def _add(self, attachment: Attachment, namespace: Path) -> Place:
        conf = self._conf()
        if conf is None:
            raise PluginFailed("cni config uninitialized")
        for plugin in conf.plugins:
            self._find(str(plugin["type"]))  # else there would be something to undo
        conf = await self._agreed(conf)
        record: dict[str, Any] = {
            "format": FORMAT,
            "conf": conf.to_document(),
            "attachment": asdict(attachment),
            "result": None,
        }
        make_private(self._records)
        self._save(attachment.id, record)
        previous: dict[str, Any] | None = None
        for plugin in conf.plugins:
            out = await self._call("ADD", conf, plugin, attachment, namespace, previous)
            try:
                previous = protocol.result(out) or previous
            except BadResult as error:
                raise _failed(plugin, "add", str(error)) from None
        record["result"] = previous
        self._save(attachment.id, record)
        try:
            return protocol.place(previous)
        except BadResult as error:
            raise PluginFailed(str(error)) from None

    async def check(self, id: str, namespace: Path) -> None:
        """Have the plugins look whether the pod still has what they gave it; nothing where they
        cannot.

        Raises:
            EngineError: it has not.
        """
        record = self._record(id)
        if record is None or record["result"] is None:
            return
        conf, attachment = _parts(record)
        if not conf.remembers or conf.disable_check:
            return
        for plugin in conf.plugins:
            await self._call("CHECK", conf, plugin, attachment, namespace, record["result"])

    async def delete(self, id: str, namespace: Path) -> None:
        """Take back what the pod was given, wholly or in part; nothing where it was never given
        anything.

        Raises:
            EngineError: a plugin refuses; the record stays.
        """
        record = self._record(id)
        if record is None:
            return
        conf, attachment = _parts(record)
        known = namespace if namespace.exists() else None
        previous = record["result"] if conf.remembers else None
        async with self._turns.shared():
            for plugin in reversed(conf.plugins):
                await self._call("DEL", conf, plugin, attachment, known, previous)
            self._file(id).unlink(missing_ok=True)

    def delete_later(self, id: str, namespace: Path) -> None:
        """As ``delete`` until it is done, at growing intervals; ``namespace`` goes with it."""

        async def keep_on() -> None:
            delay = _FIRST_DELAY
            while True:
                await asyncio.sleep(delay)
                delay = min(delay * 2, _LAST_DELAY)
                try:
                    await self.delete(id, namespace)
                except EngineError as error:
                    log.error("network of pod %s: %s", id[:12], error.message)
                else:
                    await asyncio.to_thread(namespaces.delete, namespace)
                    break
            del self._undoing[id]
            await self.collect()  # who has refused may have lost something

        if id not in self._undoing:
            task = asyncio.create_task(keep_on(), name=f"cni {id[:12]}")
            self._undoing[id] = task
            task.add_done_callback(lambda _: self._undoing.pop(id, None))

    def close(self) -> None:
        """Leave what is not undone yet to the next daemon."""
        for task in tuple(self._undoing.values()):
            task.cancel()

    def known(self) -> set[str]:
        """The pods that have, or may have, something of plugins."""
        try:
            return {path.stem for path in self._records.iterdir() if path.suffix == ".json"}
        except FileNotFoundError:
            return set()

    async def release(self, ids: Iterable[str], namespaces: Path) -> None:
        """Take back what pods were given; the log says what was not possible."""
        for id in ids:
            try:
                await self.delete(id, namespaces / id)
            except EngineError as error:
                log.error("network of pod %s: %s", id[:12], error.message)

    async def collect(self) -> None:
        """Have plugins that can do so take back what belongs to no pod any more; nothing is given
        or taken back otherwise meanwhile. The log says what was not possible."""
        conf = self._conf()
        if conf is None or not conf.collects:
            return
        conf = await self._agreed(conf)
        if not conf.collects:
            return
        async with self._turns.exclusive():
            valid = [
                id for id in sorted(self.known() - set(self._undoing)) if self._is_on(id, conf)
            ]
            for plugin in conf.plugins:
                try:
                    await self._call("GC", conf, plugin, valid=valid)
                except PluginFailed as error:
                    log.error("%s", error.message)

    def _is_on(self, id: str, conf: ConfList) -> bool:
        record = self._record(id)
        return record is not None and record["conf"]["name"] == conf.name

    # ---- one call of one plugin

    async def _agreed(self, conf: ConfList) -> ConfList:
        """``conf`` in the newest of its versions that all of its plugins know; where there is none
        the plugins will say so."""
        for version in conf.versions if len(conf.versions) > 1 else ():
            for plugin in conf.plugins:
                if version not in await self._versions(str(plugin["type"])):
                    break
            else:
                return replace(conf, version=version)
        return conf

    async def _versions(self, kind: str) -> frozenset[str]:
        """Those that a plugin knows; none where it does not say."""
        with contextlib.suppress(PluginFailed, OSError, TimeoutError):
            program = self._find(kind)
            status = program.stat()  # two that were written in one tick of the clock differ in size
            key = program, status.st_mtime_ns, status.st_size, status.st_ino
            if key not in self._supported:
                told = protocol.environment("VERSION", self._path, None, None)
                done = await run(
                    [program],
                    input=orjson.dumps({"cniVersion": confs.VERSIONS[-1]}),
                    timeout=_STATUS_PATIENCE,
                    env={**os.environ, **told},
                    cwd=Path("/"),
                )
                self._supported[key] = protocol.supported(done.stdout)
            return self._supported[key]
        return frozenset()

    async def _call(
        self,
        command: str,
        conf: ConfList,
        plugin: Mapping[str, Any],
        attachment: Attachment | None = None,
        namespace: Path | None = None,
        previous: Mapping[str, Any] | None = None,
        *,
        valid: Sequence[str] | None = None,
        patience: float = _PATIENCE,
    ) -> bytes:
        told = protocol.environment(command, self._path, attachment, namespace)
        try:
            done = await run(
                [self._find(str(plugin["type"]))],
                input=protocol.stdin(conf, plugin, attachment, previous, valid),
                timeout=patience,
                env={**os.environ, **told},
                cwd=Path("/"),
            )
        except TimeoutError:
            text = f"no answer within {patience:.0f} seconds"
            raise _failed(plugin, command.lower(), text) from None
        except OSError as error:
            raise _failed(plugin, command.lower(), error.strerror or str(error)) from error
        if done.exit_code:
            text = protocol.fault(done.exit_code, done.stdout, done.stderr)
            raise _failed(plugin, command.lower(), text)
        return done.stdout

    def _find(self, kind: str) -> Path:
        for directory in self._path:
            if os.access(directory / kind, os.X_OK):
                return directory / kind
        shown = " ".join(map(str, self._path))
        raise PluginFailed(f'failed to find plugin "{kind}" in path [{shown}]')

    # ---- the records

    def _file(self, id: str) -> Path:
        return self._records / f"{id}.json"

    def _save(self, id: str, record: Mapping[str, Any]) -> None:
        write_atomic(self._file(id), orjson.dumps(record))

    def _record(self, id: str) -> dict[str, Any] | None:
        with contextlib.suppress(FileNotFoundError):
            record: dict[str, Any] = orjson.loads(self._file(id).read_bytes())
            if record.get("format") != FORMAT:
                raise EngineError(
                    f"{self._file(id)} is of a format that this version does not know"
                )
            return record
        return None


def _parts(record: Mapping[str, Any]) -> tuple[ConfList, Attachment]:
    kept = record["conf"]
    conf = ConfList(
        kept["name"], kept["cniVersion"], tuple(kept["plugins"]), kept.get("disableCheck", False)
    )
    return conf, Attachment(**record["attachment"])


def _failed(plugin: Mapping[str, Any], action: str, why: str) -> PluginFailed:
    return PluginFailed(f'plugin type="{plugin["type"]}" failed ({action}): {why}')
