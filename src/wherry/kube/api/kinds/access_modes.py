"""How volumes may be used, as PersistentVolumes and claims on them say it.

Upstream: pkg/apis/core/v1/helper/helpers.go and pkg/apis/core/validation/validation.go.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from wherry.kube.api.kinds import fields
from wherry.kube.api.kinds.checks import Faults

_SHORT: Final = {
    "ReadWriteOnce": "RWO",
    "ReadOnlyMany": "ROX",
    "ReadWriteMany": "RWX",
    "ReadWriteOncePod": "RWOP",
}
_SUPPORTED = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")


def short(modes: Sequence[str]) -> str:
    """``RWO,ROX``, as tables show the modes."""
    return ",".join(text for mode, text in _SHORT.items() if mode in modes)


def check(modes: Sequence[str], path: str, faults: Faults) -> None:
    """Faults of a list of modes that is not empty."""
    for mode in modes:
        if mode not in _SUPPORTED:
            faults.append(fields.not_supported(path, mode, _SUPPORTED))
    if "ReadWriteOncePod" in modes and set(modes) - {"ReadWriteOncePod"}:
        why = "may not use ReadWriteOncePod with other access modes"
        faults.append(fields.forbidden(path, why))
