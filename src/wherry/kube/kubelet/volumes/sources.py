"""Which files a ConfigMap, Secret, downward API or projected volume has. No I/O.

Follows https://kubernetes.io/docs/concepts/storage/projected-volumes/ and the volume plugins of
pkg/volume.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from wherry.kube.kubelet.environment import (
    ConfigError,
    Lookup,
    PodFacts,
    field_value,
    resource_value,
)
from wherry.kube.kubelet.volumes.atomic import File

Object = dict[str, Any]

DEFAULT_MODE = 0o644
TRUST = "trustBundle"
Tokens = Callable[[Object], str | None]
"""The token for a ``serviceAccountToken`` source; None where the API hands out none."""


def content(kind: str, object: Object) -> dict[str, bytes]:
    """The entries of a ConfigMap or Secret as bytes."""
    if kind == "ClusterTrustBundle":
        return {TRUST: str((object.get("spec") or {}).get("trustBundle") or "").encode()}
    if kind == "Secret":
        return {key: base64.b64decode(v) for key, v in (object.get("data") or {}).items()}
    texts = {key: value.encode() for key, value in (object.get("data") or {}).items()}
    binary = {k: base64.b64decode(v) for k, v in (object.get("binaryData") or {}).items()}
    return {**texts, **binary}


def references(pod: Object) -> set[tuple[str, str]]:
    """The (kind, name) of every ConfigMap and Secret that the pod uses."""
    spec = pod["spec"]
    found = {("Secret", ref["name"]) for ref in spec.get("imagePullSecrets") or () if "name" in ref}
    kinds = ("initContainers", "containers", "ephemeralContainers")
    for container in [c for kind in kinds for c in spec.get(kind) or ()]:
        for source in container.get("envFrom") or ():
            found |= _named(source, ("configMapRef", "secretRef"))
        for variable in container.get("env") or ():
            source = variable.get("valueFrom") or {}
            found |= _named(source, ("configMapKeyRef", "secretKeyRef"))
    for volume in spec.get("volumes") or ():
        if volume.get("configMap"):
            found.add(("ConfigMap", volume["configMap"].get("name") or ""))
        if volume.get("secret"):
            found.add(("Secret", volume["secret"].get("secretName") or ""))
        for source in (volume.get("projected") or {}).get("sources") or ():
            found |= _named(source, ("configMap", "secret"))
            if (source.get("clusterTrustBundle") or {}).get("name"):
                found.add(("ClusterTrustBundle", source["clusterTrustBundle"]["name"]))
    return found


def _named(source: Object, fields: tuple[str, str]) -> set[tuple[str, str]]:
    pairs = zip(fields, ("ConfigMap", "Secret"), strict=True)
    return {(kind, source[key].get("name") or "") for key, kind in pairs if source.get(key)}


def payload(
    pod: Object, volume: Object, facts: PodFacts, lookup: Lookup, tokens: Tokens
) -> dict[str, File] | None:
    """The files of ``volume``, None where it is of another kind.

    Raises:
        ConfigError: it refers to what is not there.
    """
    group = (pod["spec"].get("securityContext") or {}).get("fsGroup")
    user = _common_user(pod)
    for source, mode in _sources(volume):
        files: dict[str, File] = {}
        for part in source:
            for path, (data, own_mode) in _files(pod, part, facts, lookup, tokens).items():
                chosen = mode if own_mode is None else own_mode
                owner = None
                if part.get("serviceAccountToken") and (group is not None or user is not None):
                    chosen, owner = 0o600, user  # for nobody else
                # As upstream: the group may read what it is given.
                files[path] = File(
                    data, chosen | 0o440 if group is not None else chosen, group, owner
                )
        return files
    return None


def _common_user(pod: Object) -> int | None:
    """The user that all containers run as, where the pod says so."""
    spec = pod["spec"]
    general = (spec.get("securityContext") or {}).get("runAsUser")
    users = {
        (container.get("securityContext") or {}).get("runAsUser", general)
        for kind in ("initContainers", "containers")
        for container in spec.get(kind) or ()
    }
    return users.pop() if len(users) == 1 else None


def _sources(volume: Object) -> Iterator[tuple[list[Object], int]]:
    """The volume as projected sources, with its default mode."""
    if volume.get("configMap"):
        source = volume["configMap"]
        yield [{"configMap": source}], _mode(source)
    elif volume.get("secret"):
        source = volume["secret"]
        yield [{"secret": {**source, "name": source.get("secretName")}}], _mode(source)
    elif volume.get("downwardAPI"):
        source = volume["downwardAPI"]
        yield [{"downwardAPI": source}], _mode(source)
    elif volume.get("projected"):
        source = volume["projected"]
        yield list(source.get("sources") or ()), _mode(source)


def _mode(source: Object) -> int:
    mode = source.get("defaultMode")
    return DEFAULT_MODE if mode is None else int(mode)


Content = dict[str, tuple[bytes, int | None]]


def _files(pod: Object, source: Object, facts: PodFacts, lookup: Lookup, tokens: Tokens) -> Content:
    if source.get("configMap"):
        return _from_object(pod, "ConfigMap", source["configMap"], lookup)
    if source.get("secret"):
        return _from_object(pod, "Secret", source["secret"], lookup)
    if source.get("downwardAPI"):
        items = source["downwardAPI"].get("items") or ()
        return {i["path"]: (_downward(pod, i, facts), i.get("mode")) for i in items}
    if source.get("serviceAccountToken"):
        wanted = source["serviceAccountToken"]
        token = tokens(wanted)
        return {} if token is None else {wanted["path"]: (token.encode(), None)}
    if source.get("clusterTrustBundle"):
        return _trust(source["clusterTrustBundle"], lookup)
    if source.get("podCertificate"):
        raise ConfigError("certificates for pods are not issued here")
    return {}


def _trust(source: Object, lookup: Lookup) -> Content:
    """A ClusterTrustBundle by its name; those of a signer are not looked for."""
    name = source.get("name") or ""
    found = lookup("ClusterTrustBundle", name) if name else None
    if found is not None:
        return {source["path"]: (found[TRUST], None)}
    if source.get("optional"):
        return {source["path"]: (b"", None)}
    if name:
        raise ConfigError(f'clustertrustbundles.certificates.k8s.io "{name}" not found')
    raise ConfigError(
        "combination of signerName and labelSelector matched zero ClusterTrustBundles"
    )


def _from_object(pod: Object, kind: str, source: Object, lookup: Lookup) -> Content:
    name = source.get("name") or ""
    data: Mapping[str, bytes] | None = lookup(kind, name)
    optional = bool(source.get("optional"))
    if data is None:
        if optional:
            return {}
        raise ConfigError(f'{kind.lower()} "{name}" not found')
    items = source.get("items")
    if not items:
        return {key: (value, None) for key, value in data.items()}
    result: Content = {}
    for item in items:
        key = item["key"]
        if key in data:
            result[item["path"]] = (data[key], item.get("mode"))
        elif not optional:
            what = "config" if kind == "ConfigMap" else "secret"
            raise ConfigError(f"references non-existent {what} key: {key}")
    return result


def _downward(pod: Object, item: Object, facts: PodFacts) -> bytes:
    if item.get("fieldRef"):
        return field_value(pod, item["fieldRef"]["fieldPath"], facts).encode()
    reference = item["resourceFieldRef"]
    return resource_value(pod, {}, reference, facts).encode()
