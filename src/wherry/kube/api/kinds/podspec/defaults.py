"""What a pod's spec says where its author said nothing.

Some defaults hold only in a Pod, not in a template (``default_pod``), so that a template keeps what
its author wrote. Applying them twice changes nothing more.

Upstream: pkg/apis/core/v1/defaults.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from wherry.kube.api.kinds.podspec import resources
from wherry.kube.api.kinds.podspec.volumes import SOURCES

Object = dict[str, Any]

GRACE_SECONDS: Final = 30
FILE_MODE: Final = 0o644
_TOKEN_SECONDS: Final = 3600
_PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
_MODED_VOLUMES = ("secret", "configMap", "downwardAPI", "projected")


def default_pod(spec: Object) -> None:
    """The defaults of a Pod's spec, in place."""
    default_spec(spec)
    spec.setdefault("enableServiceLinks", True)
    for kind in ("containers", "initContainers"):
        for container in spec.get(kind) or ():
            resources.requests_from_limits(container["resources"])
            if spec.get("hostNetwork"):
                _publish_ports(container)
    if spec.get("resources"):
        resources.default_pod_level(spec)


def default_template(template: Object) -> None:
    """The defaults of a pod template, in place."""
    template.setdefault("metadata", {})
    default_spec(template.setdefault("spec", {}))


def default_spec(spec: Object) -> None:
    """The defaults that hold in Pods and templates alike, in place."""
    if not spec.get("dnsPolicy"):
        spec["dnsPolicy"] = "ClusterFirst"
    if not spec.get("restartPolicy"):
        spec["restartPolicy"] = "Always"
    if not spec.get("schedulerName"):
        spec["schedulerName"] = "default-scheduler"
    spec.setdefault("securityContext", {})
    spec.setdefault("terminationGracePeriodSeconds", GRACE_SECONDS)
    _alias_service_account(spec)
    for kind in ("containers", "initContainers", "ephemeralContainers"):
        for container in spec.get(kind) or ():
            default_container(container)
    for volume in spec.get("volumes") or ():
        _default_volume(volume)
    resources.canonicalize(spec.get("overhead"))
    if requirements := spec.get("resources"):
        _canonicalize(requirements)


def _alias_service_account(spec: Object) -> None:
    """``serviceAccount`` is the old name of ``serviceAccountName``; both are shown."""
    if name := spec.get("serviceAccountName") or spec.get("serviceAccount"):
        spec["serviceAccountName"] = spec["serviceAccount"] = name


def default_container(container: Object) -> None:
    """The defaults of a container of any kind, in place."""
    if not container.get("imagePullPolicy"):
        latest = _is_latest(container.get("image", ""))
        container["imagePullPolicy"] = "Always" if latest else "IfNotPresent"
    if not container.get("terminationMessagePath"):
        container["terminationMessagePath"] = "/dev/termination-log"
    if not container.get("terminationMessagePolicy"):
        container["terminationMessagePolicy"] = "File"
    _canonicalize(container.setdefault("resources", {}))
    for port in container.get("ports") or ():
        if not port.get("protocol"):
            port["protocol"] = "TCP"
    for variable in container.get("env") or ():
        if source := variable.get("valueFrom"):
            _default_source(source)
    for name in _PROBES:
        if probe := container.get(name):
            _default_probe(probe)
    if lifecycle := container.get("lifecycle"):
        for handler in lifecycle.values():
            if isinstance(handler, dict) and "httpGet" in handler:
                _default_http(handler["httpGet"])


@lru_cache(1024)
def _is_latest(image: str) -> bool:
    """Whether the image is named by the tag ``latest``, in so many words or by saying none."""
    name, _, digest = image.partition("@")
    tag = name.rpartition("/")[2].partition(":")[2]
    return tag == "latest" or (not tag and not digest)


def _canonicalize(requirements: Object) -> None:
    if requirements:
        resources.canonicalize(requirements.get("limits"))
        resources.canonicalize(requirements.get("requests"))


def _default_source(source: Object) -> None:
    if (reference := source.get("fieldRef")) is not None and not reference.get("apiVersion"):
        reference["apiVersion"] = "v1"
    if (reference := source.get("resourceFieldRef")) is not None:
        reference.setdefault("divisor", "0")
        resources.canonicalize_one(reference, "divisor")
    if (reference := source.get("fileKeyRef")) is not None:
        reference.setdefault("optional", False)


def _default_probe(probe: Object) -> None:
    for name, value in (
        ("timeoutSeconds", 1),
        ("periodSeconds", 10),
        ("successThreshold", 1),
        ("failureThreshold", 3),
    ):
        if not probe.get(name):
            probe[name] = value
    if "httpGet" in probe:
        _default_http(probe["httpGet"])
    if "grpc" in probe:
        probe["grpc"].setdefault("service", "")


def _default_http(action: Object) -> None:
    if not action.get("path"):
        action["path"] = "/"
    if not action.get("scheme"):
        action["scheme"] = "HTTP"


def _default_volume(volume: Object) -> None:
    if SOURCES.isdisjoint(volume):
        volume["emptyDir"] = {}
        return
    for kind in _MODED_VOLUMES:
        if (source := volume.get(kind)) is not None:
            source.setdefault("defaultMode", FILE_MODE)
    if (source := volume.get("hostPath")) is not None:
        source.setdefault("type", "")
    if (source := volume.get("emptyDir")) is not None:
        resources.canonicalize_one(source, "sizeLimit")
    if (source := volume.get("downwardAPI")) is not None:
        _default_files(source)
    for projection in (volume.get("projected") or {}).get("sources") or ():
        if (token := projection.get("serviceAccountToken")) is not None:
            token.setdefault("expirationSeconds", _TOKEN_SECONDS)
        if (files := projection.get("downwardAPI")) is not None:
            _default_files(files)
    if (source := volume.get("image")) is not None and not source.get("pullPolicy"):
        latest = _is_latest(source.get("reference", ""))
        source["pullPolicy"] = "Always" if latest else "IfNotPresent"
    if claim := (volume.get("ephemeral") or {}).get("volumeClaimTemplate"):
        claim.setdefault("spec", {}).setdefault("volumeMode", "Filesystem")
        _canonicalize(claim["spec"].get("resources") or {})
    if (source := volume.get("iscsi")) is not None:
        source.setdefault("iscsiInterface", "default")
    if (source := volume.get("rbd")) is not None:
        for name, value in (("pool", "rbd"), ("user", "admin"), ("keyring", "/etc/ceph/keyring")):
            source.setdefault(name, value)


def _default_files(source: Mapping[str, Any]) -> None:
    for item in source.get("items") or ():
        _default_source(item)


def _publish_ports(container: Object) -> None:
    for port in container.get("ports") or ():
        if not port.get("hostPort") and port.get("containerPort"):
            port["hostPort"] = port["containerPort"]
