"""What a container is made from: the user's request over what the image says of itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wherry.engine.container import healthcheck
from wherry.engine.errors import BadParameter

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def merge_image(config: Mapping[str, Any], image: Mapping[str, Any]) -> dict[str, Any]:
    """``config`` completed from the ``config`` section of an image's configuration.

    An entrypoint given by the user silences the image's command, as one belongs to the other.

    Raises:
        BadParameter: neither says what to run.
    """
    merged = dict(config)
    if not merged["User"]:
        merged["User"] = image.get("User") or ""
    if not merged["WorkingDir"]:
        merged["WorkingDir"] = image.get("WorkingDir") or ""
    if not merged["Entrypoint"]:
        if not merged["Cmd"]:
            merged["Cmd"] = image.get("Cmd")
        if merged["Entrypoint"] is None:
            merged["Entrypoint"] = image.get("Entrypoint")
    if merged["Entrypoint"] == [""]:  # `--entrypoint ""` resets it
        merged["Entrypoint"] = None
    merged["Env"] = merge_environment(image.get("Env") or [], merged["Env"] or [])
    merged["Labels"] = {**(image.get("Labels") or {}), **merged["Labels"]}
    if image.get("ExposedPorts") or merged.get("ExposedPorts"):
        merged["ExposedPorts"] = {
            **(image.get("ExposedPorts") or {}),
            **(merged.get("ExposedPorts") or {}),
        }
    merged["Volumes"] = {**(image.get("Volumes") or {}), **(merged["Volumes"] or {})} or None
    if check := healthcheck.merged(merged.get("Healthcheck"), image.get("Healthcheck")):
        merged["Healthcheck"] = check
    for field in ("StopSignal", "Shell"):
        if not merged.get(field) and image.get(field):
            merged[field] = image[field]
    if image.get("OnBuild"):
        merged["OnBuild"] = image["OnBuild"]
    if not [*(merged["Entrypoint"] or []), *(merged["Cmd"] or [])]:
        raise BadParameter("no command specified")
    return merged


def merge_environment(defaults: Sequence[str], chosen: Sequence[str]) -> list[str]:
    """``chosen`` variables, then those of ``defaults`` that they do not set.

    A variable without ``=`` stays as it is here; it removes the default of that name when the
    process is made (see ``environment``).
    """
    names = {variable.partition("=")[0] for variable in chosen}
    return [*chosen, *(v for v in defaults if v.partition("=")[0] not in names)]


def environment(variables: Sequence[str], *, hostname: str, home: str, terminal: bool) -> list[str]:
    """The environment of a container's process: Docker's own variables under the user's."""
    values = {"PATH": DEFAULT_PATH, "HOSTNAME": hostname}
    if terminal:
        values["TERM"] = "xterm"
    for variable in variables:
        name, separator, value = variable.partition("=")
        if separator:
            values[name] = value
        else:
            values.pop(name, None)
    values["HOME"] = values.get("HOME") or home  # an empty one is none
    return [f"{name}={value}" for name, value in values.items()]


def command(config: Mapping[str, Any]) -> tuple[str, list[str]]:
    """The program and its arguments."""
    words = [*(config["Entrypoint"] or []), *(config["Cmd"] or [])]
    return words[0], words[1:]
