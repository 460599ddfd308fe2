"""Every pod runs as a ServiceAccount, and finds its token, the cluster's authority and its
namespace below ``/var/run/secrets`` unless it or the account says otherwise.

A new namespace gets its default account from a controller a moment after it was made; a pod that
comes in that moment waits for it, as upstream's plugin does.
Upstream: plugin/pkg/admission/serviceaccount/admission.go.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator

from wherry.kube.api.meta import clone
from wherry.kube.api.names import name_suffix
from wherry.kube.api.resources import SERVICE_ACCOUNTS
from wherry.kube.apiserver.admission.attributes import Attributes
from wherry.kube.apiserver.admission.context import Context
from wherry.kube.apiserver.cache import Cache
from wherry.kube.apiserver.objects import Object

MIRROR = "kubernetes.io/config.mirror"
_PATIENCE = 1.0  # seconds
_MOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
_VOLUME = "kube-api-access-"
_ENFORCE = "kubernetes.io/enforce-mountable-secrets"
_TRUE = ("1", "t", "T", "TRUE", "true", "True")
_SECONDS = 3607  # the token's; that it is no whole hour tells it from those asked for by hand
_SOURCE: Object = {
    "defaultMode": 0o644,
    "sources": [
        {"serviceAccountToken": {"expirationSeconds": _SECONDS, "path": "token"}},
        {
            "configMap": {
                "items": [{"key": "ca.crt", "path": "ca.crt"}],
                "name": "kube-root-ca.crt",
            }
        },
        {
            "downwardAPI": {
                "items": [
                    {
                        "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"},
                        "path": "namespace",
                    }
                ]
            }
        },
    ],
}


def admit(attributes: Attributes, context: Context) -> Awaitable[None] | None:
    """Give the pod its account, and the account's token."""
    pod = attributes.new
    if MIRROR in (pod["metadata"].get("annotations") or {}):
        _check_mirror(attributes, pod["spec"])
        return None
    spec = pod["spec"]
    name = spec.get("serviceAccountName") or spec.get("serviceAccount") or "default"
    spec["serviceAccountName"] = spec["serviceAccount"] = name
    found = context.cache.of(SERVICE_ACCOUNTS).get(attributes.namespace, name)
    if found is None:
        return _wait(attributes, context.cache, name)
    _give(attributes, found.object)
    return None


def validate(attributes: Attributes, context: Context) -> None:
    """Judge the pod as others have left it."""
    pod = attributes.new
    spec = pod["spec"]
    if MIRROR in (pod["metadata"].get("annotations") or {}):
        _check_mirror(attributes, spec)
        return
    name = spec.get("serviceAccountName", "")
    found = context.cache.of(SERVICE_ACCOUNTS).get(attributes.namespace, name)
    if found is None:
        raise _missing(attributes, name)
    annotations = found.object["metadata"].get("annotations")
    if annotations and annotations.get(_ENFORCE) in _TRUE:
        _check_secrets(attributes, spec, found.object)


async def _wait(attributes: Attributes, cache: Cache, name: str) -> None:
    if name != "default":
        raise _missing(attributes, name)
    try:
        async with asyncio.timeout(_PATIENCE):
            found = await cache.of(SERVICE_ACCOUNTS).appears(attributes.namespace, name)
    except TimeoutError:
        raise _missing(attributes, name) from None
    _give(attributes, found.object)


def _missing(attributes: Attributes, name: str) -> Exception:
    return attributes.forbidden(
        f"error looking up service account {attributes.namespace}/{name}: "
        f'serviceaccount "{name}" not found'
    )


def _give(attributes: Attributes, account: Object) -> None:
    spec = attributes.new["spec"]
    wanted = spec.get("automountServiceAccountToken")
    if wanted is None:
        wanted = account.get("automountServiceAccountToken")
    if wanted is not False:
        _mount(spec, account)
    if not spec.get("imagePullSecrets") and account.get("imagePullSecrets"):
        spec["imagePullSecrets"] = clone(account["imagePullSecrets"])


def _mount(spec: Object, account: Object) -> None:
    """Mount the token into all containers that have nothing in its place. The volume is called
    after the account, so that pods of one template are alike."""
    volumes = spec.get("volumes") or []
    name = next((v["name"] for v in volumes if v.get("name", "").startswith(_VOLUME)), "")
    is_there = bool(name)
    name = name or _VOLUME + name_suffix(account["metadata"]["uid"])
    needed = False
    for _, container in _containers(spec):
        mounts = container.get("volumeMounts") or []
        if any(mount.get("mountPath") == _MOUNT for mount in mounts):
            continue
        needed = True
        mount = {"name": name, "readOnly": True, "mountPath": _MOUNT}
        container["volumeMounts"] = [*mounts, mount]
    if needed and not is_there:
        spec["volumes"] = [*volumes, {"name": name, "projected": clone(_SOURCE)}]


def _check_mirror(attributes: Attributes, spec: Object) -> None:
    """A mirror pod shows what a kubelet runs by itself: it has nothing of the cluster's."""
    if spec.get("serviceAccountName"):
        raise attributes.forbidden("a mirror pod may not reference service accounts")
    for volume in spec.get("volumes") or ():
        sources = (volume.get("projected") or {}).get("sources") or ()
        if volume.get("secret") or any("secret" in source for source in sources):
            raise attributes.forbidden("a mirror pod may not reference secrets")
        if any("serviceAccountToken" in source for source in sources):
            raise attributes.forbidden(
                "a mirror pod may not use ServiceAccountToken volume projections"
            )
    secrets = any(
        source.get("secretRef")
        for _, container in _containers(spec)
        for source in container.get("envFrom") or ()
    )
    if secrets or spec.get("imagePullSecrets") or any(_secret_variables(spec)):
        raise attributes.forbidden("a mirror pod may not reference secrets")


def _check_secrets(attributes: Attributes, spec: Object, account: Object) -> None:
    """An account may limit its pods to the secrets that it names."""
    allowed = {secret.get("name") for secret in account.get("secrets") or ()}
    name = account["metadata"]["name"]
    not_referenced = f"is not allowed because service account {name} does not reference that"
    for volume in spec.get("volumes") or ():
        secret = (volume.get("secret") or {}).get("secretName")
        if secret is not None and secret not in allowed:
            raise attributes.forbidden(
                f'volume with secret.secretName="{secret}" {not_referenced} secret'
            )
    for what, container, variable, secret in _secret_variables(spec):
        if secret not in allowed:
            raise attributes.forbidden(
                f"{what} {container} with envVar {variable} referencing "
                f'secret.secretName="{secret}" {not_referenced} secret'
            )
    pulling = {secret.get("name") for secret in account.get("imagePullSecrets") or ()}
    for index, reference in enumerate(spec.get("imagePullSecrets") or ()):
        if (secret := reference.get("name")) not in pulling:
            raise attributes.forbidden(
                f'imagePullSecrets[{index}].name="{secret}" {not_referenced} imagePullSecret'
            )


def _containers(spec: Object) -> Iterator[tuple[str, Object]]:
    for container in spec.get("initContainers") or ():
        yield "init container", container
    for container in spec.get("containers") or ():
        yield "container", container


def _secret_variables(spec: Object) -> Iterator[tuple[str, str, str, str]]:
    """What container takes which variable from which secret."""
    for what, container in _containers(spec):
        for variable in container.get("env") or ():
            reference = (variable.get("valueFrom") or {}).get("secretKeyRef")
            if reference:
                name = reference.get("name", "")
                yield what, container.get("name", ""), variable.get("name", ""), name
