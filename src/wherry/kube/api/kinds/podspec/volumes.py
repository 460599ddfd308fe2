"""Volumes of a pod: one source each, and each source's own rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from wherry.kube.api.kinds import checks, fields, label_selectors
from wherry.kube.api.kinds.checks import Faults
from wherry.kube.api.kinds.podspec import env, paths
from wherry.kube.api.quantity import ZERO, QuantityError, parse

Spec = Mapping[str, Any]

_MODE = "must be a number between 0 and 0777 (octal), both inclusive"
_ONE_TYPE = "may not specify more than 1 volume type"
_PATHS = "conflicting duplicate paths"
_HOST_PATH_TYPES = (
    "",
    "BlockDevice",
    "CharDevice",
    "Directory",
    "DirectoryOrCreate",
    "File",
    "FileOrCreate",
    "Socket",
)
_PULL_POLICIES = ("Always", "IfNotPresent", "Never")


def check_volumes(volumes: Sequence[Spec], pod: str, path: str, faults: Faults) -> dict[str, Spec]:
    """Faults of ``spec.volumes``; the volumes that have none, by name.

    ``pod`` is the pod's name where it is known, which names the claims of ephemeral volumes.
    """
    good: dict[str, Spec] = {}
    claims = {f"{pod}-{v.get('name', '')}" for v in volumes if pod and "ephemeral" in v}
    for index, volume in enumerate(volumes):
        where, before = f"{path}[{index}]", len(faults)
        name = volume.get("name", "")
        _check_source(volume, where, faults)
        if not name:
            faults.append(fields.required(f"{where}.name"))
        else:
            checks.dns_label(name, f"{where}.name", faults)
        if name in good:
            faults.append(fields.duplicate(f"{where}.name", name))
        if len(faults) == before:
            good[name] = volume
        claim = (volume.get("persistentVolumeClaim") or {}).get("claimName")
        if claim in claims:
            why = "must not reference a PVC that gets created for an ephemeral volume"
            field = f"{where}.persistentVolumeClaim.claimName"
            faults.append(fields.invalid(field, claim, why))
    return good


def _check_source(volume: Spec, path: str, faults: Faults) -> None:
    given = [kind for kind in _SOURCES if kind in volume]
    if not given:
        faults.append(fields.required(path, "must specify a volume type"))
        return
    for extra in given[1:]:
        faults.append(fields.forbidden(f"{path}.{extra}", _ONE_TYPE))
    _SOURCES[given[0]](volume[given[0]], f"{path}.{given[0]}", faults)


def _needs(*names: str) -> Callable[[Spec, str, Faults], None]:
    """A source of which nothing is asked but that these fields are there."""

    def check(source: Spec, path: str, faults: Faults) -> None:
        for name in names:
            if not source.get(name):
                faults.append(fields.required(f"{path}.{name}"))

    return check


def _check_mode(source: Spec, name: str, path: str, faults: Faults) -> None:
    mode = source.get(name)
    if mode is not None and not 0 <= mode <= 0o777:
        faults.append(fields.invalid(f"{path}.{name}", mode, _MODE))


def _check_items(items: Sequence[Spec], path: str, faults: Faults) -> None:
    for index, item in enumerate(items):
        where = f"{path}[{index}]"
        if not item.get("key"):
            faults.append(fields.required(f"{where}.key"))
        if not item.get("path"):
            faults.append(fields.required(f"{where}.path"))
        paths.check_local_not_reserved(item.get("path", ""), f"{where}.path", faults)
        _check_mode(item, "mode", where, faults)


def _check_empty_dir(source: Spec, path: str, faults: Faults) -> None:
    limit = source.get("sizeLimit")
    if limit is None:
        return
    try:
        valid = parse(str(limit)) >= ZERO
    except QuantityError:
        valid = False
    if not valid:
        why = "SizeLimit field must be a valid resource quantity"
        faults.append(fields.forbidden(f"{path}.sizeLimit", why))


def _check_host_path(source: Spec, path: str, faults: Faults) -> None:
    target = source.get("path")
    if not target:
        faults.append(fields.required(f"{path}.path"))
        return
    paths.check_no_backsteps(target, f"{path}.path", faults)
    kind = source.get("type", "")
    if kind not in _HOST_PATH_TYPES:
        faults.append(fields.not_supported(f"{path}.type", kind, _HOST_PATH_TYPES))


def _check_secret(source: Spec, path: str, faults: Faults) -> None:
    if not source.get("secretName"):
        faults.append(fields.required(f"{path}.secretName"))
    _check_mode(source, "defaultMode", path, faults)
    _check_items(source.get("items") or (), f"{path}.items", faults)


def _check_config_map(source: Spec, path: str, faults: Faults) -> None:
    if not source.get("name"):
        faults.append(fields.required(f"{path}.name"))
    _check_mode(source, "defaultMode", path, faults)
    _check_items(source.get("items") or (), f"{path}.items", faults)


def _check_downward(source: Spec, path: str, faults: Faults) -> None:
    _check_mode(source, "defaultMode", path, faults)
    for item in source.get("items") or ():
        _check_downward_file(item, path, faults)


def _check_downward_file(item: Spec, path: str, faults: Faults) -> None:
    if not item.get("path"):
        faults.append(fields.required(f"{path}.path"))
    paths.check_local_not_reserved(item.get("path", ""), f"{path}.path", faults)
    field, resource = item.get("fieldRef"), item.get("resourceFieldRef")
    if field is not None:
        env.check_field_reference(field, env.VOLUME_FIELDS, f"{path}.fieldRef", faults)
        if resource is not None:
            why = "fieldRef and resourceFieldRef can not be specified simultaneously"
            faults.append(fields.invalid(path, "resource", why))
    elif resource is not None:
        where = f"{path}.resourceFieldRef"
        env.check_resource_reference(resource, where, faults, in_volume=True)
    else:
        faults.append(fields.required(path, "one of fieldRef and resourceFieldRef is required"))
    _check_mode(item, "mode", path, faults)


def _check_nfs(source: Spec, path: str, faults: Faults) -> None:
    _needs("server", "path")(source, path, faults)
    if not source.get("path", "").startswith("/"):
        where = f"{path}.path"
        faults.append(fields.invalid(where, source.get("path", ""), "must be an absolute path"))


def _check_csi(source: Spec, path: str, faults: Faults) -> None:
    driver = source.get("driver", "")
    if not driver:
        faults.append(fields.required(f"{path}.driver"))
    else:
        if len(driver) > 63:
            faults.append(fields.too_long(f"{path}.driver", 63))
        checks.dns_subdomain(driver.lower(), f"{path}.driver", faults)
    secret = source.get("nodePublishSecretRef")
    if secret is not None:
        if not secret.get("name"):
            faults.append(fields.required(f"{path}.nodePublishSecretRef.name"))
        else:
            where = f"{path}.nodePublishSecretRef.name"
            checks.dns_subdomain(secret["name"], where, faults)


def _check_ephemeral(source: Spec, path: str, faults: Faults) -> None:
    template = source.get("volumeClaimTemplate")
    if template is None:
        faults.append(fields.required(f"{path}.volumeClaimTemplate"))
        return
    where = f"{path}.volumeClaimTemplate.spec"
    spec = template.get("spec") or {}
    if not spec.get("accessModes"):
        faults.append(fields.required(f"{where}.accessModes", "at least 1 access mode is required"))
    if "storage" not in ((spec.get("resources") or {}).get("requests") or {}):
        faults.append(fields.required(f"{where}.resources[storage]"))


def _check_image(source: Spec, path: str, faults: Faults) -> None:
    if not source.get("reference"):
        faults.append(fields.required(f"{path}.reference"))
    policy = source.get("pullPolicy")
    if policy and policy not in _PULL_POLICIES:
        faults.append(fields.not_supported(f"{path}.pullPolicy", policy, _PULL_POLICIES))


def _check_git_repo(source: Spec, path: str, faults: Faults) -> None:
    _needs("repository")(source, path, faults)
    paths.check_local_descending(source.get("directory", ""), f"{path}.directory", faults)


def _check_iscsi(source: Spec, path: str, faults: Faults) -> None:
    _needs("targetPortal", "iqn")(source, path, faults)
    if not 0 <= (lun := source.get("lun", 0)) <= 255:
        faults.append(fields.invalid(f"{path}.lun", lun, fields.between(0, 255)))


def _check_partitioned(name: str) -> Callable[[Spec, str, Faults], None]:
    def check(source: Spec, path: str, faults: Faults) -> None:
        _needs(name)(source, path, faults)
        if not 0 <= (partition := source.get("partition", 0)) <= 255:
            where = f"{path}.partition"
            faults.append(fields.invalid(where, partition, fields.between(1, 255)))

    return check


def _check_fibre_channel(source: Spec, path: str, faults: Faults) -> None:
    names, ids = source.get("targetWWNs"), source.get("wwids")
    if not names and not ids:
        why = "must specify either targetWWNs or wwids, but not both"
        faults.append(fields.required(f"{path}.targetWWNs", why))
    if names and ids:
        why = "targetWWNs and wwids can not be specified simultaneously"
        faults.append(fields.invalid(f"{path}.targetWWNs", names, why))
    if names and source.get("lun") is None:
        why = "lun is required if targetWWNs is specified"
        faults.append(fields.required(f"{path}.lun", why))


def _check_flocker(source: Spec, path: str, faults: Faults) -> None:
    name, uuid = source.get("datasetName", ""), source.get("datasetUUID")
    if not name and not uuid:
        faults.append(fields.required(path, "one of datasetName and datasetUUID is required"))
    if name and uuid:
        why = "datasetName and datasetUUID can not be specified simultaneously"
        faults.append(fields.invalid(path, "resource", why))
    if "/" in name:
        faults.append(fields.invalid(f"{path}.datasetName", name, "must not contain '/'"))


def _check_projected(source: Spec, path: str, faults: Faults) -> None:
    _check_mode(source, "defaultMode", path, faults)
    taken: set[str] = set()
    for index, projection in enumerate(source.get("sources") or ()):
        where = f"{path}.sources[{index}]"
        given = [kind for kind in _PROJECTIONS if kind in projection]
        for kind in given:
            spec = projection[kind]
            for target in _PROJECTIONS[kind](spec, f"{where}.{kind}", path, faults):
                if target in taken:
                    shown = spec.get("name", "") if kind in ("secret", "configMap") else target
                    faults.append(fields.invalid(path, shown, _PATHS))
                taken.add(target)
        if len(given) > 1:
            why = "may not specify more than 1 volume type per source"
            faults.append(fields.forbidden(where, why))


def _project_keys(spec: Spec, path: str, volume: str, faults: Faults) -> list[str]:
    if not spec.get("name"):
        faults.append(fields.required(f"{path}.name"))
    items = spec.get("items") or ()
    _check_items(items, f"{path}.items", faults)
    return [item["path"] for item in items if item.get("path")]


def _project_downward(spec: Spec, path: str, volume: str, faults: Faults) -> list[str]:
    items = spec.get("items") or ()
    for item in items:
        _check_downward_file(item, path, faults)
    return [item["path"] for item in items if item.get("path")]


def _project_token(spec: Spec, path: str, volume: str, faults: Faults) -> list[str]:
    seconds = spec.get("expirationSeconds", 3600)
    if seconds < 600:
        why = "may not specify a duration less than 10 minutes"
        faults.append(fields.invalid(f"{path}.expirationSeconds", seconds, why))
    if seconds > 1 << 32:
        why = "may not specify a duration larger than 2^32 seconds"
        faults.append(fields.invalid(f"{path}.expirationSeconds", seconds, why))
    if not spec.get("path"):
        faults.append(fields.required(f"{volume}.path"))
    else:
        paths.check_local_not_reserved(spec["path"], f"{volume}.path", faults)
    return []


def _project_trust_bundle(spec: Spec, path: str, volume: str, faults: Faults) -> list[str]:
    name, signer = spec.get("name"), spec.get("signerName")
    if name is not None and signer is not None:
        why = "only one of name and signerName may be used"
        faults.append(fields.invalid(path, spec, why))
    elif name is not None:
        if not name:
            faults.append(fields.required(f"{path}.name", "must be a valid object name"))
        if spec.get("labelSelector") is not None:
            why = "labelSelector must be unset if name is specified"
            where = f"{path}.labelSelector"
            faults.append(fields.invalid(where, spec["labelSelector"], why))
    elif signer is not None:
        if not signer:
            faults.append(fields.required(f"{path}.signerName", "must be a valid signer name"))
        where = f"{path}.labelSelector"
        label_selectors.check_selector(spec.get("labelSelector"), where, faults)
    else:
        faults.append(fields.required(path, "either name or signerName must be specified"))
    target = spec.get("path", "")
    if not target:
        faults.append(fields.required(f"{path}.path"))
    paths.check_local_not_reserved(target, f"{path}.path", faults)
    return [target]


def _project_certificate(spec: Spec, path: str, volume: str, faults: Faults) -> list[str]:
    for name in ("signerName", "keyType"):
        if not spec.get(name):
            faults.append(fields.required(f"{path}.{name}"))
    names = ("credentialBundlePath", "keyPath", "certificateChainPath")
    targets = [(name, spec[name]) for name in names if spec.get(name)]
    if not targets:
        why = "specify at least one of credentialBundlePath, keyPath or certificateChainPath"
        faults.append(fields.required(path, why))
    for name, target in targets:
        paths.check_local_not_reserved(target, f"{path}.{name}", faults)
    return [target for _, target in targets]


_PROJECTIONS: dict[str, Callable[[Spec, str, str, Faults], list[str]]] = {
    "secret": _project_keys,
    "configMap": _project_keys,
    "downwardAPI": _project_downward,
    "serviceAccountToken": _project_token,
    "clusterTrustBundle": _project_trust_bundle,
    "podCertificate": _project_certificate,
}

# In upstream's order, which decides which of two sources is the one too many.
_SOURCES: dict[str, Callable[[Spec, str, Faults], None]] = {
    "emptyDir": _check_empty_dir,
    "hostPath": _check_host_path,
    "gitRepo": _check_git_repo,
    "gcePersistentDisk": _check_partitioned("pdName"),
    "awsElasticBlockStore": _check_partitioned("volumeID"),
    "secret": _check_secret,
    "nfs": _check_nfs,
    "iscsi": _check_iscsi,
    "glusterfs": _needs("endpoints", "path"),
    "flocker": _check_flocker,
    "persistentVolumeClaim": _needs("claimName"),
    "rbd": _needs("monitors", "image"),
    "cinder": _needs("volumeID"),
    "cephfs": _needs("monitors"),
    "quobyte": _needs("registry", "volume"),
    "downwardAPI": _check_downward,
    "fc": _check_fibre_channel,
    "flexVolume": _needs("driver"),
    "configMap": _check_config_map,
    "azureFile": _needs("secretName", "shareName"),
    "vsphereVolume": _needs("volumePath"),
    "photonPersistentDisk": _needs("pdID"),
    "portworxVolume": _needs("volumeID"),
    "azureDisk": _needs("diskName", "diskURI"),
    "storageos": _needs("volumeName"),
    "projected": _check_projected,
    "scaleIO": _needs("gateway", "system", "volumeName"),
    "csi": _check_csi,
    "ephemeral": _check_ephemeral,
    "image": _check_image,
}

SOURCES = frozenset(_SOURCES)
"""The fields of a volume of which exactly one is set."""
