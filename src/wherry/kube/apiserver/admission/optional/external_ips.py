"""DenyServiceExternalIPs: no Service takes an address that it does not have already."""

from __future__ import annotations

from wherry.kube.apiserver.admission.attributes import Attributes
from wherry.kube.apiserver.admission.context import Context


def validate(attributes: Attributes, context: Context) -> None:
    given = set(attributes.new.get("spec", {}).get("externalIPs") or ())
    before = set(((attributes.old or {}).get("spec") or {}).get("externalIPs") or ())
    if given - before:
        raise attributes.forbidden("Use of external IPs is denied by admission control.")
