"""The ConfigMap by which aggregated API servers learn whom to believe.

https://kubernetes.io/docs/tasks/extend-kubernetes/configure-aggregation-layer/
"""

from __future__ import annotations

import json
from pathlib import Path

from wherry.kube.apiserver.authn.config import Authentication
from wherry.kube.apiserver.objects import Object

NAME, NAMESPACE = "extension-apiserver-authentication", "kube-system"


def config_map(client_ca: Path | None, told: Authentication) -> Object:
    """The ConfigMap: the authorities, and the headers of the front proxy. Raises OSError."""
    data = {}
    if client_ca is not None:
        data["client-ca-file"] = client_ca.read_text()
    if (proxy := told.request_header) is not None:
        data["requestheader-client-ca-file"] = proxy.client_ca.read_text()
        for name, values in (
            ("allowed-names", proxy.allowed_names),
            ("extra-headers-prefix", proxy.extra_prefixes),
            ("group-headers", proxy.group_headers),
            ("uid-headers", proxy.uid_headers),
            ("username-headers", proxy.username_headers),
        ):
            data[f"requestheader-{name}"] = json.dumps(list(values))
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": NAME, "namespace": NAMESPACE},
        "data": data,
    }
