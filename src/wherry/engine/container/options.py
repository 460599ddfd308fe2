"""The words of a create request: which fields there are, their types, their defaults.

What ``docker inspect`` shows as ``Config`` and ``HostConfig`` is always complete, whatever the
client left out; these tables complete it. A value of the wrong type is refused in the words of Go's
JSON decoder, which clients know from dockerd. Unknown fields are dropped, as there.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from wherry.engine.errors import BadParameter

# Kinds of values, by the Go type that error texts name.
STRING = "string"
BOOL = "bool"
INT = "int64"
STRINGS = "[]string"
STRING_LISTS = "[][]string"
COMMAND = "strslice.StrSlice"  # a list of strings; old clients may send one string
STRING_MAP = "map[string]string"
SET = "map[string]struct {}"
OBJECT = "object"
OBJECTS = "[]object"
ANY_MAP = "map[string]interface {}"

# name: (kind, default). OMIT means that the field is not shown unless it was given.
OMIT: Any = object()

CONFIG: Mapping[str, tuple[str, Any]] = {
    "Hostname": (STRING, ""),
    "Domainname": (STRING, ""),
    "User": (STRING, ""),
    "AttachStdin": (BOOL, False),
    "AttachStdout": (BOOL, False),
    "AttachStderr": (BOOL, False),
    "ExposedPorts": (SET, OMIT),
    "Tty": (BOOL, False),
    "OpenStdin": (BOOL, False),
    "StdinOnce": (BOOL, False),
    "Env": (STRINGS, None),
    "Cmd": (COMMAND, None),
    "Healthcheck": (OBJECT, OMIT),
    "ArgsEscaped": (BOOL, OMIT),
    "Image": (STRING, ""),
    "Volumes": (SET, None),
    "WorkingDir": (STRING, ""),
    "Entrypoint": (COMMAND, None),
    "NetworkDisabled": (BOOL, OMIT),
    "MacAddress": (STRING, OMIT),
    "OnBuild": (STRINGS, None),
    "Labels": (STRING_MAP, {}),
    "StopSignal": (STRING, OMIT),
    "StopTimeout": (INT, OMIT),
    "Shell": (COMMAND, OMIT),
}

# What `docker update` may change.
RESOURCES: Mapping[str, tuple[str, Any]] = {
    "CpuShares": (INT, 0),
    "Memory": (INT, 0),
    "NanoCpus": (INT, 0),
    "CgroupParent": (STRING, ""),
    "BlkioWeight": (INT, 0),
    "BlkioWeightDevice": (OBJECTS, []),
    "BlkioDeviceReadBps": (OBJECTS, []),
    "BlkioDeviceWriteBps": (OBJECTS, []),
    "BlkioDeviceReadIOps": (OBJECTS, []),
    "BlkioDeviceWriteIOps": (OBJECTS, []),
    "CpuPeriod": (INT, 0),
    "CpuQuota": (INT, 0),
    "CpuRealtimePeriod": (INT, 0),
    "CpuRealtimeRuntime": (INT, 0),
    "CpusetCpus": (STRING, ""),
    "CpusetMems": (STRING, ""),
    "Devices": (OBJECTS, []),
    "DeviceCgroupRules": (STRINGS, None),
    "DeviceRequests": (OBJECTS, None),
    "MemoryReservation": (INT, 0),
    "MemorySwap": (INT, 0),
    "MemorySwappiness": (INT, None),
    "KernelMemory": (INT, OMIT),
    "KernelMemoryTCP": (INT, OMIT),
    "OomKillDisable": (BOOL, None),
    "PidsLimit": (INT, None),
    "Ulimits": (OBJECTS, []),
    "CpuCount": (INT, 0),
    "CpuPercent": (INT, 0),
    "IOMaximumIOps": (INT, 0),
    "IOMaximumBandwidth": (INT, 0),
}

LOG_CONFIG: Mapping[str, tuple[str, Any]] = {"Type": (STRING, ""), "Config": (STRING_MAP, {})}

HOST_CONFIG: Mapping[str, tuple[str, Any]] = {
    "Binds": (STRINGS, None),
    "ContainerIDFile": (STRING, ""),
    "LogConfig": (OBJECT, {"Type": "", "Config": {}}),
    "NetworkMode": (STRING, "bridge"),
    "PortBindings": (ANY_MAP, {}),
    "RestartPolicy": (OBJECT, {"Name": "no", "MaximumRetryCount": 0}),
    "AutoRemove": (BOOL, False),
    "VolumeDriver": (STRING, ""),
    "VolumesFrom": (STRINGS, None),
    "ConsoleSize": ("[2]uint", [0, 0]),
    "Annotations": (STRING_MAP, OMIT),
    "CapAdd": (COMMAND, None),
    "CapDrop": (COMMAND, None),
    "CgroupnsMode": (STRING, ""),
    "Dns": (STRINGS, None),
    "DnsOptions": (STRINGS, None),
    "DnsSearch": (STRINGS, None),
    "ExtraHosts": (STRINGS, None),
    "GroupAdd": (STRINGS, None),
    "IpcMode": (STRING, "private"),
    "Cgroup": (STRING, ""),
    "Links": (STRINGS, None),
    "OomScoreAdj": (INT, 0),
    "PidMode": (STRING, ""),
    "Privileged": (BOOL, False),
    "PublishAllPorts": (BOOL, False),
    "ReadonlyRootfs": (BOOL, False),
    "SecurityOpt": (STRINGS, None),
    "StorageOpt": (STRING_MAP, OMIT),
    "Tmpfs": (STRING_MAP, OMIT),
    "UTSMode": (STRING, ""),
    "UsernsMode": (STRING, ""),
    "ShmSize": (INT, 64 << 20),
    "Sysctls": (STRING_MAP, OMIT),
    "Runtime": (STRING, "runc"),
    "Isolation": (STRING, ""),
    **RESOURCES,
    "Mounts": (OBJECTS, OMIT),
    "MaskedPaths": (STRINGS, None),
    "ReadonlyPaths": (STRINGS, None),
    "Init": (BOOL, OMIT),
}


def json_name(value: Any) -> str:
    """What Go's JSON decoder calls the kind of ``value``."""
    match value:
        case bool():
            return "bool"
        case str():
            return "string"
        case int() | float():
            return "number"
        case list():
            return "array"
        case _:
            return "object"


def _strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _fits(kind: str, value: Any) -> bool:
    match kind:
        case "string":
            return isinstance(value, str)
        case "bool":
            return isinstance(value, bool)
        case "int64":
            return isinstance(value, int) and not isinstance(value, bool)
        case "[]string":
            return _strings(value)
        case "[][]string":
            return isinstance(value, list) and all(map(_strings, value))
        case "strslice.StrSlice":
            return isinstance(value, str) or _strings(value)
        case "map[string]string":
            return isinstance(value, dict) and all(isinstance(v, str) for v in value.values())
        case "[]object":
            return isinstance(value, list) and all(isinstance(v, dict) for v in value)
        case "[2]uint":
            return isinstance(value, list) and all(isinstance(v, int) for v in value)
        case _:
            return isinstance(value, dict)


def decode(
    fields: Mapping[str, tuple[str, Any]], value: Any, path: str, *, complete: bool = True
) -> dict[str, Any]:
    """The known fields of ``value``; with ``complete``, the others with their defaults.

    Raises:
        BadParameter: a field has a value of another type; ``path`` names where it stands.
    """
    if value is None:
        value = {}
    if not isinstance(value, dict):
        raise _mismatch(value, path, "object")
    result: dict[str, Any] = {}
    # Names are matched as Go does, whatever their case.
    folded = {name.lower(): name for name in value if name not in fields}
    for name, (kind, default) in fields.items():
        given = value.get(name)
        if given is None and folded:
            given = value.get(folded.get(name.lower(), name))
        if given is None:
            if complete and default is not OMIT:
                result[name] = copy.deepcopy(default)
            continue
        if not _fits(kind, given):
            raise _mismatch(given, f"{path}.{name}" if path else name, kind)
        result[name] = [given] if kind == COMMAND and isinstance(given, str) else given
    return result


def _mismatch(value: Any, path: str, kind: str) -> BadParameter:
    return BadParameter(
        f"invalid JSON: json: cannot unmarshal {json_name(value)} into Go struct field "
        f"{path} of type {kind}"
    )
