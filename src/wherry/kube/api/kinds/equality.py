"""When two objects say the same.

Clients differ in whether they write out what is empty: ``hostNetwork: false`` and no hostNetwork at
all mean the same, as do ``env: []`` and no env. An empty object is not nothing: ``emptyDir: {}``.

Upstream: apimachinery's ``equality.Semantic.DeepEqual`` on decoded structs.
"""

from __future__ import annotations

from typing import Any


def equal(a: Any, b: Any) -> bool:
    """Whether the two values mean the same."""
    if a == b:
        return True
    if isinstance(a, dict) and isinstance(b, dict):
        return all(equal(a.get(key), b.get(key)) for key in a.keys() | b.keys())
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(equal, a, b))
    return not a and not b and not isinstance(a, dict) and not isinstance(b, dict)


def difference(old: Any, new: Any, path: str = "") -> list[str]:
    """One line for each value that is gone (``-``) or came (``+``), by its path."""
    if equal(old, new):
        return []
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted(old.keys() | new.keys())
        return [
            line
            for key in keys
            for line in difference(old.get(key), new.get(key), f"{path}.{key}" if path else key)
        ]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [
            line
            for index, pair in enumerate(zip(old, new, strict=True))
            for line in difference(*pair, f"{path}[{index}]")
        ]
    from wherry.kube.api.kinds.fields import show

    lines = [] if old is None else [f"-  {path}: {show(old)}"]
    return lines if new is None else [*lines, f"+  {path}: {show(new)}"]
