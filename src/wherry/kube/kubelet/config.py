"""The kubelet's configuration file: ``KubeletConfiguration`` of kubelet.config.k8s.io/v1beta1.

``document`` is the whole of it with upstream's defaults, which ``/configz`` tells; ``Settings`` has
the values that something here acts upon. What the file may say beyond them is taken and has no
effect, so that a file written for another kubelet can be used.
https://kubernetes.io/docs/reference/config-api/kubelet-config.v1beta1/
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wherry.kube.api import quantity
from wherry.kube.kubelet import pulled
from wherry.kube.kubelet.eviction.thresholds import DEFAULT_HARD, Threshold, parse_thresholds

Object = dict[str, Any]

API_VERSION, KIND = "kubelet.config.k8s.io/v1beta1", "KubeletConfiguration"

# Every field of upstream's with its default; a duration is a text such as 5m0s.
_DEFAULTS: Object = {
    "enableServer": True,
    "staticPodPath": "",
    "podLogsDir": "/var/log/pods",
    "syncFrequency": "1m0s",
    "fileCheckFrequency": "20s",
    "httpCheckFrequency": "20s",
    "staticPodURL": "",
    "staticPodURLHeader": {},
    "address": "0.0.0.0",
    "port": 10250,
    "readOnlyPort": 0,
    "tlsCertFile": "",
    "tlsPrivateKeyFile": "",
    "tlsCipherSuites": [],
    "tlsMinVersion": "",
    "rotateCertificates": False,
    "serverTLSBootstrap": False,
    "authentication": {
        "x509": {"clientCAFile": ""},
        "webhook": {"enabled": True, "cacheTTL": "2m0s"},
        "anonymous": {"enabled": False},
    },
    "authorization": {
        "mode": "Webhook",
        "webhook": {"cacheAuthorizedTTL": "5m0s", "cacheUnauthorizedTTL": "30s"},
    },
    "registryPullQPS": 5,
    "registryBurst": 10,
    "eventRecordQPS": 50,
    "eventBurst": 100,
    "enableDebuggingHandlers": True,
    "enableContentionProfiling": False,
    "healthzPort": 10248,
    "healthzBindAddress": "127.0.0.1",
    "oomScoreAdj": -999,
    "clusterDomain": "",
    "clusterDNS": [],
    "streamingConnectionIdleTimeout": "4h0m0s",
    "nodeStatusUpdateFrequency": "10s",
    "nodeStatusReportFrequency": "5m0s",
    "nodeLeaseDurationSeconds": 40,
    "imageMinimumGCAge": "2m0s",
    "imageMaximumGCAge": "0s",
    "imageGCHighThresholdPercent": 85,
    "imageGCLowThresholdPercent": 80,
    "volumeStatsAggPeriod": "1m0s",
    "kubeletCgroups": "",
    "systemCgroups": "",
    "cgroupRoot": "",
    "cgroupsPerQOS": True,
    "cgroupDriver": "cgroupfs",
    "cpuManagerPolicy": "none",
    "singleProcessOOMKill": False,
    "cpuManagerPolicyOptions": {},
    "cpuManagerReconcilePeriod": "10s",
    "memoryManagerPolicy": "None",
    "topologyManagerPolicy": "none",
    "topologyManagerScope": "container",
    "topologyManagerPolicyOptions": {},
    "qosReserved": {},
    "runtimeRequestTimeout": "2m0s",
    "hairpinMode": "promiscuous-bridge",
    "maxPods": 110,
    "podCIDR": "",
    "podPidsLimit": -1,
    "resolvConf": "/etc/resolv.conf",
    "runOnce": False,
    "cpuCFSQuota": True,
    "cpuCFSQuotaPeriod": "100ms",
    "nodeStatusMaxImages": 50,
    "maxOpenFiles": 1000000,
    "contentType": "application/json",
    "kubeAPIQPS": 50,
    "kubeAPIBurst": 100,
    "serializeImagePulls": True,
    "maxParallelImagePulls": 1,
    "evictionHard": dict(DEFAULT_HARD),
    "evictionSoft": {},
    "evictionSoftGracePeriod": {},
    "evictionPressureTransitionPeriod": "5m0s",
    "evictionMaxPodGracePeriod": 0,
    "evictionMinimumReclaim": {},
    "mergeDefaultEvictionSettings": False,
    "podsPerCore": 0,
    "enableControllerAttachDetach": True,
    "protectKernelDefaults": False,
    "makeIPTablesUtilChains": True,
    "iptablesMasqueradeBit": 14,
    "iptablesDropBit": 15,
    "featureGates": {},
    "failSwapOn": True,
    "memorySwap": {},
    "containerLogMaxSize": "10Mi",
    "containerLogMaxFiles": 5,
    "containerLogMaxWorkers": 1,
    "containerLogMonitorInterval": "10s",
    "configMapAndSecretChangeDetectionStrategy": "Watch",
    "systemReserved": {},
    "kubeReserved": {},
    "reservedSystemCPUs": "",
    "showHiddenMetricsForVersion": "",
    "systemReservedCgroup": "",
    "kubeReservedCgroup": "",
    "enforceNodeAllocatable": ["pods"],
    "allowedUnsafeSysctls": [],
    "volumePluginDir": "/usr/libexec/kubernetes/kubelet-plugins/volume/exec/",
    "providerID": "",
    "kernelMemcgNotification": False,
    "logging": {"format": "text", "flushFrequency": "5s", "verbosity": 0},
    "enableSystemLogHandler": True,
    "enableSystemLogQuery": False,
    "shutdownGracePeriod": "0s",
    "shutdownGracePeriodCriticalPods": "0s",
    "shutdownGracePeriodByPodPriority": [],
    "crashLoopBackOff": {},
    "reservedMemory": [],
    "enableProfilingHandler": True,
    "enableDebugFlagsHandler": True,
    "seccompDefault": False,
    "memoryThrottlingFactor": 0.9,
    "registerWithTaints": [],
    "registerNode": True,
    "tracing": {},
    "localStorageCapacityIsolation": True,
    "containerRuntimeEndpoint": "",
    "imageServiceEndpoint": "",
    "imagePullCredentialsVerificationPolicy": "NeverVerifyPreloadedImages",
    "preloadedImagesVerificationAllowlist": [],
    "userNamespaces": {},
}
_UNIT = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}
_PIECE = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")


class ConfigFault(ValueError):
    """The file is no configuration; the text says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class ShutdownPriority:
    """Pods of this priority and above get ``seconds`` when the node goes down."""

    priority: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Settings:
    """What is acted upon. Times are seconds, sizes bytes, CPUs thousandths."""

    document: Mapping[str, Any]
    max_pods: int
    pods_per_core: int  # 0: max_pods alone counts
    pod_pids_limit: int  # -1: none
    static_pod_path: str
    container_log_max_size: int
    container_log_max_files: int
    thresholds: tuple[Threshold, ...]
    eviction_transition: float
    eviction_max_grace: int
    image_gc_high: int  # per cent; 100 switches it off
    image_gc_low: int
    image_minimum_age: float
    image_maximum_age: float  # 0: none is too old
    image_proof: str  # when a pod must show that it may have an image that is here
    images_without_proof: Sequence[str]
    system_reserved: Mapping[str, str]
    kube_reserved: Mapping[str, str]
    enforce_allocatable: bool
    shutdown: tuple[ShutdownPriority, ...]  # ascending; none: pods are left running
    status_period: float
    report_period: float
    lease_seconds: int
    max_images: int
    cpu_cfs_quota: bool
    cpu_cfs_period: float
    allowed_unsafe_sysctls: tuple[str, ...]
    seccomp_default: bool
    taints: tuple[Mapping[str, str], ...]
    cluster_dns: tuple[str, ...]
    cluster_domain: str
    resolv_conf: str  # where the node says whom it asks; empty: nowhere
    max_restart_backoff: float
    debugging_handlers: bool
    system_logs: bool
    anonymous: bool
    authorize_all: bool


def duration(text: str) -> float:
    """The seconds that a duration of Go's (``1h30m``, ``500ms``) means.

    Raises:
        ValueError: it means none.
    """
    rest = text.removeprefix("-")
    if rest == "0":
        return 0.0
    pieces = list(_PIECE.finditer(rest))
    if not rest or "".join(piece.group() for piece in pieces) != rest:
        raise ValueError(f'time: invalid duration "{text}"')
    seconds = sum(float(piece[1]) * _UNIT[piece[2]] for piece in pieces)
    return -seconds if text.startswith("-") else seconds


def load(path: Path) -> Settings:
    """Read a file.

    Raises:
        ConfigFault: it cannot be read or says what makes no sense.
    """
    try:
        return parse(path.read_bytes())
    except OSError as error:
        raise ConfigFault(
            f"failed to load kubelet config file, path: {path}, error: "
            f"{(error.strerror or str(error)).lower()}"
        ) from error
    except ConfigFault as error:
        raise ConfigFault(
            f"failed to load kubelet config file, path: {path}, error: {error}"
        ) from error


def parse(body: bytes) -> Settings:
    """The settings of a file's text, YAML or JSON.

    Raises:
        ConfigFault: it is none.
    """
    from wherry.kube.api import yaml_values

    try:
        given, complaints = yaml_values.load(body, 50)
    except yaml_values.YAMLFault as error:
        raise ConfigFault(str(error)) from error
    if complaints:
        raise ConfigFault(f"strict decoding error: {', '.join(complaints)}")
    if not isinstance(given, dict):
        raise ConfigFault("the file holds no object")
    version, kind = given.get("apiVersion"), given.get("kind")
    if not kind:
        raise ConfigFault("Object 'Kind' is missing")
    if (version, kind) != (API_VERSION, KIND):
        raise ConfigFault(f'no kind "{kind}" is registered for version "{version}"')
    return settings({k: v for k, v in given.items() if k not in ("apiVersion", "kind")})


def settings(given: Mapping[str, Any]) -> Settings:
    """The settings where ``given`` (fields of the file) takes the place of the defaults.

    Raises:
        ConfigFault: a field is unknown or its value makes no sense.
    """
    unknown = sorted(set(given) - set(_DEFAULTS))
    if unknown:
        raise ConfigFault(
            "strict decoding error: " + ", ".join(f'unknown field "{name}"' for name in unknown)
        )
    document = dict(_DEFAULTS)
    for name, value in given.items():
        if value is not None:
            document[name] = _typed(name, value, _DEFAULTS[name])
    if document["mergeDefaultEvictionSettings"]:
        document["evictionHard"] = {**DEFAULT_HARD, **document["evictionHard"]}
    try:
        return _settings(document)
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigFault(f"failed to validate kubelet configuration, error: {error}") from error


def _typed(name: str, value: Any, default: Any) -> Any:
    """``value``, if it is of the default's kind; parts of a section keep their defaults."""
    fits = isinstance(value, type(default)) and isinstance(value, bool) == isinstance(default, bool)
    if isinstance(default, float):
        fits = isinstance(value, int | float)
    if not fits:
        words = {bool: "a bool", int: "an int", str: "a string", list: "a list", dict: "a map"}
        raise ConfigFault(f"{name}: {value!r} is not {words.get(type(default), 'a number')}")
    if name in ("authentication", "authorization"):
        return {
            key: {**part, **(value.get(key) or {})}
            if isinstance(part, dict)
            else value.get(key, part)
            for key, part in default.items()
        }
    return value


def _settings(of: Object) -> Settings:
    if of["imageGCLowThresholdPercent"] >= of["imageGCHighThresholdPercent"]:
        low, high = of["imageGCLowThresholdPercent"], of["imageGCHighThresholdPercent"]
        raise ValueError(
            f"invalid configuration: imageGCLowThresholdPercent (--image-gc-low-threshold) {low} "
            f"must be less than imageGCHighThresholdPercent (--image-gc-high-threshold) {high}"
        )
    for name in ("imageGCLowThresholdPercent", "imageGCHighThresholdPercent"):
        if not 0 <= of[name] <= 100:
            raise ValueError(f"invalid configuration: {name} {of[name]} must be between 0 and 100")
    for name in ("maxPods", "podsPerCore"):
        if of[name] < 0:
            raise ValueError(
                f"invalid configuration: {name} {of[name]} must not be a negative number"
            )
    if of["containerLogMaxFiles"] <= 1:
        raise ValueError(
            f"invalid configuration: containerLogMaxFiles {of['containerLogMaxFiles']} "
            "must be greater than 1"
        )
    reserved = {}
    for name in ("systemReserved", "kubeReserved"):
        reserved[name] = {k: str(v) for k, v in of[name].items()}
        for resource, amount in reserved[name].items():
            if quantity.parse(amount).nanos < 0:
                raise ValueError(f"invalid configuration: {name} {resource} {amount} is negative")
    graces = {k: duration(str(v)) for k, v in of["evictionSoftGracePeriod"].items()}
    backoff = of["crashLoopBackOff"].get("maxContainerRestartPeriod")
    return Settings(
        document=of,
        max_pods=of["maxPods"],
        pods_per_core=of["podsPerCore"],
        pod_pids_limit=of["podPidsLimit"],
        static_pod_path=of["staticPodPath"],
        container_log_max_size=quantity.parse(of["containerLogMaxSize"]).to_int(),
        container_log_max_files=of["containerLogMaxFiles"],
        thresholds=parse_thresholds(
            {k: str(v) for k, v in of["evictionHard"].items()},
            {k: str(v) for k, v in of["evictionSoft"].items()},
            graces,
            {k: str(v) for k, v in of["evictionMinimumReclaim"].items()},
        ),
        eviction_transition=duration(of["evictionPressureTransitionPeriod"]),
        eviction_max_grace=of["evictionMaxPodGracePeriod"],
        image_gc_high=of["imageGCHighThresholdPercent"],
        image_gc_low=of["imageGCLowThresholdPercent"],
        image_minimum_age=duration(of["imageMinimumGCAge"]),
        image_maximum_age=duration(of["imageMaximumGCAge"]),
        image_proof=_one_of("imagePullCredentialsVerificationPolicy", of, pulled.POLICIES),
        images_without_proof=tuple(of["preloadedImagesVerificationAllowlist"]),
        system_reserved=reserved["systemReserved"],
        kube_reserved=reserved["kubeReserved"],
        enforce_allocatable="pods" in of["enforceNodeAllocatable"],
        shutdown=_shutdown(of),
        status_period=duration(of["nodeStatusUpdateFrequency"]),
        report_period=duration(of["nodeStatusReportFrequency"]),
        lease_seconds=of["nodeLeaseDurationSeconds"],
        max_images=of["nodeStatusMaxImages"],
        cpu_cfs_quota=of["cpuCFSQuota"],
        cpu_cfs_period=duration(of["cpuCFSQuotaPeriod"]),
        allowed_unsafe_sysctls=tuple(of["allowedUnsafeSysctls"]),
        seccomp_default=of["seccompDefault"],
        taints=tuple(of["registerWithTaints"]),
        cluster_dns=tuple(of["clusterDNS"]),
        cluster_domain=of["clusterDomain"],
        resolv_conf=of["resolvConf"],
        max_restart_backoff=duration(backoff) if backoff else 300.0,
        debugging_handlers=of["enableDebuggingHandlers"],
        system_logs=of["enableSystemLogHandler"],
        anonymous=bool(of["authentication"]["anonymous"]["enabled"]),
        authorize_all=of["authorization"]["mode"] == "AlwaysAllow",
    )


def _one_of(name: str, of: Object, allowed: Sequence[str]) -> str:
    if of[name] not in allowed:
        listed = ", ".join(allowed)
        raise ValueError(f"invalid configuration: {name} {of[name]} must be one of {listed}")
    return str(of[name])


def _shutdown(of: Object) -> tuple[ShutdownPriority, ...]:
    """The grace of each class of pods; the two simple fields mean two classes."""
    by_priority = of["shutdownGracePeriodByPodPriority"]
    total = duration(of["shutdownGracePeriod"])
    critical = duration(of["shutdownGracePeriodCriticalPods"])
    if by_priority:
        if total or critical:
            raise ValueError(
                "invalid configuration: Cannot specify both shutdownGracePeriodByPodPriority and "
                "shutdownGracePeriod at the same time"
            )
        made = [
            ShutdownPriority(int(p["priority"]), float(p["shutdownGracePeriodSeconds"]))
            for p in by_priority
        ]
        return tuple(sorted(made, key=lambda p: p.priority))
    if critical > total:
        raise ValueError(
            "invalid configuration: shutdownGracePeriod (--shutdown-grace-period) "
            f"{of['shutdownGracePeriod']} must be >= shutdownGracePeriodCriticalPods "
            f"{of['shutdownGracePeriodCriticalPods']}"
        )
    if not total:
        return ()
    return (ShutdownPriority(0, total - critical), ShutdownPriority(2_000_000_000, critical))


DEFAULTS = settings({})
