"""The schema data: what every kind looks like, as Kubernetes' own OpenAPI document says it.

It comes with the package kubernetes-validate. It is read once, on first use, without its prose,
which only ``openapi`` needs and reads again by itself.
"""

from __future__ import annotations

import importlib.util
import re
from functools import cache
from pathlib import Path
from typing import Any

import orjson

_DIRECTORY = re.compile(r"v(\d+)\.(\d+)\.(\d+)-local")


@cache
def _newest() -> tuple[str, Path]:
    """The newest version the data has, and where its definitions lie."""
    # The package itself is never imported: its code, which we do not need, pulls in a validator.
    spec = importlib.util.find_spec("kubernetes_validate")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError("the schema data is missing: install the package kubernetes-validate")
    root = Path(next(iter(spec.submodule_search_locations))) / "kubernetes-json-schema"
    versions = [
        (tuple(map(int, match.groups())), path)
        for path in root.iterdir()
        if (match := _DIRECTORY.fullmatch(path.name))
    ]
    numbers, path = max(versions)
    return ".".join(map(str, numbers)), path / "_definitions.json"


def newest_version() -> str:
    """The version of Kubernetes that is served, ``1.37.0``: the newest the data describes."""
    return _newest()[0]


def data_path() -> Path:
    """The file of the definitions, prose included."""
    return _newest()[1]


def _strip_prose(schema: dict[str, Any]) -> None:
    schema.pop("description", None)
    for part in schema.get("properties", {}).values():
        _strip_prose(part)
    for key in ("items", "additionalProperties"):
        if key in schema:
            _strip_prose(schema[key])


@cache
def definitions() -> dict[str, dict[str, Any]]:
    """All definitions by name, without descriptions. Shared: never change them."""
    loaded: dict[str, dict[str, Any]] = orjson.loads(data_path().read_bytes())["$defs"]
    for schema in loaded.values():
        _strip_prose(schema)
    return loaded


@cache
def prose(name: str) -> dict[str, str]:
    """What the data says of each field of a definition. It is read anew: for documents alone."""
    fields = orjson.loads(data_path().read_bytes())["$defs"][name]["properties"]
    return {field: schema.get("description", "") for field, schema in fields.items()}


@cache
def _old_definitions() -> dict[str, dict[str, Any]]:
    from wherry.kube.api.conversion.schemas import derive

    return derive(definitions())


def definition(name: str) -> dict[str, Any]:
    """The definition called ``io.k8s.api.core.v1.Pod``, also of an old version. Raises KeyError
    where there is none."""
    found = definitions().get(name)
    return _old_definitions()[name] if found is None else found
