"""Contexts and files that are not sent but fetched: from a URL or a git repository."""

from __future__ import annotations

import email.utils
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from wherry.engine.build.copying import Chosen
from wherry.engine.build.dockerfile import DockerfileError
from wherry.engine.build.dockerfile.instructions import Copy
from wherry.engine.build.options import Send
from wherry.engine.build.sources import Context, Single
from wherry.engine.errors import BadParameter, EngineError
from wherry.engine.image import progress
from wherry.engine.image.compression import Compression, check_room, detect
from wherry.engine.image.distribution.http import open_url
from wherry.engine.image.threads import in_thread
from wherry.engine.image.tree import archive_directory
from wherry.host.beneath import open_beneath
from wherry.host.process import run

if TYPE_CHECKING:
    import aiohttp

_GIT = re.compile(r"(?:git://|git@|github\.com/|https?://.*\.git(?:#.*)?$)")
_UNNAMED = "__unnamed__"
_DOCKERFILE_LIMIT = 16 << 20
_GIT_TIMEOUT = 600.0
_USTAR = 257  # where an archive says what it is


async def fetch_context(url: str, dockerfile: str, scratch: Path, send: Send) -> Context:
    """The context that ``docker build URL`` means: a repository, an archive or a Dockerfile.

    Raises:
        EngineError: it cannot be had.
    """
    if _GIT.match(url):
        return await _clone(url, scratch)
    if not url.startswith(("http://", "https://")):
        raise BadParameter(f"remoteURL ({url}) could not be recognized as URL")
    await send(progress.status(f"Downloading build context from remote url: {url}"))
    path, _ = await _download(url, scratch)
    return await in_thread(_as_context, path, dockerfile, scratch, url)


def _as_context(path: Path, dockerfile: str, scratch: Path, url: str) -> Context:
    with path.open("rb", buffering=0) as file:
        head = file.read(512)
        packed = detect(head[:6].ljust(6, b"\0")) is not Compression.NONE
        if packed or head[_USTAR : _USTAR + 5] == b"ustar":
            file.seek(0)
            return Context.receive(file, scratch)
        if b"\0" in head or path.stat().st_size > _DOCKERFILE_LIMIT:
            raise BadParameter(f'unsupported Content-Type "application/octet-stream": {url}')
    return Context.of_file(dockerfile, path.read_bytes(), scratch)


async def fetch_file(url: str, step: Copy, destination: str, scratch: Path) -> Chosen:
    """What ``ADD url`` copies.

    Raises:
        DockerfileError: it has no name, or not the checksum that the instruction states.
        EngineError: it cannot be fetched.
    """
    try:
        path, answer = await _download(url, scratch)
    except EngineError as error:
        raise type(error)(f"ADD failed: {error.message}") from error
    name = unquote(urlsplit(url).path).rpartition("/")[2] or _disposition(answer)
    if not name:
        if destination.endswith("/"):
            raise DockerfileError(f"ADD failed: cannot determine filename for source {url}")
        name = _UNNAMED
    if step.checksum:
        actual = await in_thread(_checksum, path, step.checksum)
        if actual != step.checksum:
            raise DockerfileError(f"digest mismatch {actual}: {step.checksum}")
    mtime = _modified(answer.get("Last-Modified", "")) * 1_000_000_000
    return Chosen(Single(name, path, 0o600, mtime), name, name)


def _modified(text: str) -> int:
    """``Last-Modified`` in seconds since the epoch; 0 where the server says nothing sensible."""
    try:
        return int(email.utils.parsedate_to_datetime(text).timestamp())
    except (ValueError, OverflowError):
        return 0


def _checksum(path: Path, wanted: str) -> str:
    algorithm = wanted.partition(":")[0]
    if algorithm not in ("sha256", "sha384", "sha512"):
        raise DockerfileError(f"unsupported digest algorithm: {wanted}")
    with path.open("rb") as file:
        return f"{algorithm}:{hashlib.file_digest(file, algorithm).hexdigest()}"


def _disposition(headers: dict[str, str]) -> str:
    match = re.search(r'filename="?([^";]+)', headers.get("Content-Disposition", ""))
    return match[1].rpartition("/")[2] if match else ""


async def _download(url: str, scratch: Path) -> tuple[Path, dict[str, str]]:
    path = scratch / f"download-{hashlib.sha256(url.encode()).hexdigest()[:16]}"

    async def consume(answer: aiohttp.ClientResponse) -> dict[str, str]:
        with path.open("wb") as file:
            async for piece in answer.content.iter_chunked(1 << 20):
                await in_thread(check_room, scratch)
                await in_thread(file.write, piece)
        return dict(answer.headers)

    return path, await open_url(url, consume)


async def _clone(url: str, scratch: Path) -> Context:
    address, _, fragment = url.partition("#")
    reference, _, directory = fragment.partition(":")
    if address.startswith("github.com/"):
        address = f"https://{address}"
    if reference.startswith("-"):
        raise BadParameter(f"invalid refspec: {reference}")
    place = scratch / "git"
    place.mkdir()
    await _git(place, "failed to init repo", "init", "-q")
    await _git(place, "failed add origin repo", "remote", "add", "origin", address)
    wanted = reference or "HEAD"
    try:
        await _git(place, "error fetching", "fetch", "-q", "--depth", "1", "origin", "--", wanted)
        revision = "FETCH_HEAD"
    except EngineError:
        # A server of plain files can send all or nothing, another may not give out a commit alone.
        everything = ("+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*")
        await _git(place, "error fetching", "fetch", "-q", "origin", "--", *everything, "HEAD")
        revision = await _revision(place, reference)
    await _git(place, f"error checking out {reference}", "checkout", "-q", revision, "--")
    await _git(
        place,
        "error initializing submodules",
        *("submodule", "update", "-q", "--init", "--recursive", "--depth=1"),
    )
    return await in_thread(_pack, place, directory, scratch)


async def _revision(place: Path, reference: str) -> str:
    """The commit that a branch, a tag or the beginning of a commit's name means."""
    if not reference:
        return "FETCH_HEAD"
    for candidate in (f"refs/remotes/origin/{reference}", f"refs/tags/{reference}", reference):
        done = await run(
            ["git", "rev-parse", "-q", "--verify", f"{candidate}^{{commit}}"], cwd=place
        )
        if not done.exit_code:
            return done.stdout.decode().strip()
    raise EngineError(f"error fetching: couldn't find remote ref {reference}: exit status 128")


async def _git(place: Path, what: str, *arguments: str) -> None:
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "GIT_PROTOCOL_FROM_USER": "0"}
    try:
        done = await run(["git", *arguments], cwd=place, env=environment, timeout=_GIT_TIMEOUT)
    except FileNotFoundError:
        raise EngineError("building from a git repository needs git on the host") from None
    except TimeoutError:
        raise EngineError(f"{what}: it took longer than {_GIT_TIMEOUT:.0f} s") from None
    if done.exit_code:
        text = (done.stderr or done.stdout).decode("utf-8", "replace").strip()
        raise EngineError(f"{what}: {text}: exit status {done.exit_code}")


def _pack(place: Path, directory: str, scratch: Path) -> Context:
    root = os.open(place, os.O_PATH | os.O_DIRECTORY)
    try:
        try:
            top = open_beneath(root, directory or ".", os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            raise BadParameter(
                f'error setting git context, "{directory}" not within git root'
            ) from None
    finally:
        os.close(root)
    try:
        pieces: Iterator[bytes] = archive_directory(
            top, "", itself=False, skip=lambda found: found.path.split("/")[0] == ".git"
        )
        return Context.of_pieces(pieces, scratch)
    finally:
        os.close(top)
