"""The options of driver ``local``: which there are, and the mount that they stand for.

``type``, ``o`` and ``device`` are those of mount(8), which is not called: network file systems have
their server's name resolved here, as the kernel knows only addresses.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from wherry.engine.errors import BadParameter, EngineError
from wherry.engine.volume.volume import Volume
from wherry.runtime import mount_options
from wherry.runtime.rootfs import unmount as unmount_path

_REQUIRES = {"device": ("type",), "type": ("device",), "o": ("device", "type")}
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?(?:[kmgtp](?:i?b)?|b)?", re.IGNORECASE)


def check_options(options: Mapping[str, str]) -> None:
    """Judge the options of a new volume.

    Raises:
        BadParameter: there is no such option, or one is missing; the text lacks the name.
    """
    for name in options:
        if name not in ("type", "o", "device", "size"):
            raise BadParameter(f'invalid option: "{name}"')
    if "size" in options:
        match = _SIZE.fullmatch(options["size"])
        if not match:
            raise BadParameter(f"invalid size: '{options['size']}'")
        if float(match[1]):
            raise BadParameter("quota size requested but no quota support")
    for name, required in _REQUIRES.items():
        for other in required:
            if name in options and other not in options:
                raise BadParameter(f'missing required option: "{other}"')


def mount(volume: Volume) -> None:
    """Mount what the options of ``volume`` say at its path. Blocking: a server may be slow.

    Raises:
        EngineError: the kernel refuses, or the server's name is not known.
    """
    options = volume.options or {}
    device, kind, text = (options.get(name, "") for name in ("device", "type", "o"))
    if not device:
        raise EngineError("missing device in volume options")
    if kind in ("nfs", "cifs"):
        device, text = _resolved(device, kind, text)
    try:
        mount_options.mount(device, str(volume.path), kind, text)
    except mount_options.MountError as error:
        shown = re.sub(r"(password=)[^,:]*", r"\1********", str(error))
        raise EngineError(f"failed to mount local volume: {shown}") from error


def _resolved(device: str, kind: str, text: str) -> tuple[str, str]:
    """Device and options with an address where a name of a server was."""
    match = re.search(r"(?:^|,)addr=([^,]*)", text)
    if match and match[1]:
        if _is_ipv4(match[1]):
            return device, text
        return device, text.replace(f"addr={match[1]}", f"addr={_address(match[1])}", 1)
    parts = urlsplit(device)
    if kind == "cifs" and parts.hostname and not _is_ipv4(parts.hostname):
        address = _address(parts.hostname)
        place = f"{address}:{parts.port}" if parts.port else address
        return urlunsplit(parts._replace(netloc=place)), text
    return device, text


def _is_ipv4(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).version == 4
    except ValueError:
        return False


def _address(name: str) -> str:
    try:
        return str(socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)[0][4][0])
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise EngineError(
            f"error resolving passed in network volume address: lookup {name}: {reason}"
        ) from error


def unmount(path: Path) -> None:
    """Undo ``mount``; nothing happens where nothing is mounted.

    Raises:
        OSError: the kernel refuses.
    """
    unmount_path(path)
