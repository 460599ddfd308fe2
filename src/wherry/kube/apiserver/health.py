"""``/healthz``, ``/livez``, ``/readyz``: checks by name, all together or each by its path.

https://kubernetes.io/docs/reference/using-api/health-checks/
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from wherry.kube.apiserver.answers import Document
from wherry.kube.apiserver.request import Query, no_such_path

_TEXT = "text/plain; charset=utf-8"
_HEADERS = {"Cache-Control": "no-cache, private", "X-Content-Type-Options": "nosniff"}
ENDPOINTS = ("healthz", "livez", "readyz")


@dataclass(frozen=True, slots=True)
class Check:
    """``fault`` says what is wrong, "" where all is well. ``ready_only``: it says whether clients
    should come here, not whether the process lives."""

    name: str
    fault: Callable[[], str]
    ready_only: bool = False


def report(endpoint: str, below: str, query: Query, checks: Sequence[Check]) -> Document:
    """The answer of one of `ENDPOINTS`, or of a check ``below`` it.

    Raises:
        StatusError: 404, there is no such check.
    """
    asked = [check for check in checks if endpoint == "readyz" or not check.ready_only]
    if below:
        return _single(below, asked)
    excluded = dict.fromkeys(query.all("exclude"))
    failed = False
    lines = []
    for check in asked:
        if check.name in excluded:
            del excluded[check.name]
            lines.append(f"[+]{check.name} excluded: ok")
        elif check.fault():
            failed = True
            lines.append(f"[-]{check.name} failed: reason withheld")
        else:
            lines.append(f"[+]{check.name} ok")
    if excluded:
        names = ",".join(f'"{name}"' for name in excluded)
        lines.append(f"warn: some health checks cannot be excluded: no matches for {names}")
    if failed:
        return _document("\n".join([*lines, f"{endpoint} check failed", ""]), 500)
    if query.has("verbose"):
        return _document("\n".join([*lines, f"{endpoint} check passed", ""]))
    return _document("ok")


def _single(name: str, checks: Sequence[Check]) -> Document:
    for check in checks:
        if check.name == name:
            fault = check.fault()
            return _document(f"internal server error: {fault}\n", 500) if fault else _document("ok")
    raise no_such_path()


def _document(text: str, code: int = 200) -> Document:
    return Document(text.encode(), _TEXT, code, dict(_HEADERS))
