"""Ports, probes and lifecycle hooks of a container."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from wherry.kube.api import names
from wherry.kube.api.kinds import checks, fields
from wherry.kube.api.kinds.checks import Faults

Spec = Mapping[str, Any]

_SCHEMES = ("HTTP", "HTTPS")
_ONE_HANDLER = "may not specify more than 1 handler type"
_NUMBERS = (
    "initialDelaySeconds",
    "timeoutSeconds",
    "periodSeconds",
    "successThreshold",
    "failureThreshold",
)


def check_ports(ports: Sequence[Spec], path: str, faults: Faults) -> None:
    """Faults of a container's ports."""
    seen: set[str] = set()
    for index, port in enumerate(ports):
        where = f"{path}[{index}]"
        if name := port.get("name"):
            if messages := names.is_port_name(name):
                faults += [fields.invalid(f"{where}.name", name, m) for m in messages]
            elif name in seen:
                faults.append(fields.duplicate(f"{where}.name", name))
            else:
                seen.add(name)
        if number := port.get("containerPort"):
            checks.port_number(number, f"{where}.containerPort", faults)
        else:
            faults.append(fields.required(f"{where}.containerPort"))
        if number := port.get("hostPort"):
            checks.port_number(number, f"{where}.hostPort", faults)
        checks.protocol(port.get("protocol"), f"{where}.protocol", faults)


def check_host_ports(containers: Iterable[tuple[Spec, str]], faults: Faults) -> None:
    """No two containers (each with its path) that run at once may want one port of the host."""
    taken: set[str] = set()
    for container, path in containers:
        for index, port in enumerate(container.get("ports") or ()):
            if number := port.get("hostPort"):
                key = f"{port.get('protocol', '')}/{port.get('hostIP', '')}/{number}"
                if key in taken:
                    faults.append(fields.duplicate(f"{path}.ports[{index}].hostPort", key))
                taken.add(key)


def check_probes(container: Spec, grace: int | None, path: str, faults: Faults) -> None:
    """Faults of the three probes."""
    if probe := container.get("livenessProbe"):
        _check_probe(probe, grace, f"{path}.livenessProbe", faults)
        _check_one_success(probe, f"{path}.livenessProbe", faults)
    if probe := container.get("readinessProbe"):
        where = f"{path}.readinessProbe"
        _check_probe(probe, grace, where, faults)
        if (seconds := probe.get("terminationGracePeriodSeconds")) is not None:
            where, why = (
                f"{where}.terminationGracePeriodSeconds",
                "must not be set for readinessProbes",
            )
            faults.append(fields.invalid(where, seconds, why))
    if probe := container.get("startupProbe"):
        _check_probe(probe, grace, f"{path}.startupProbe", faults)
        _check_one_success(probe, f"{path}.startupProbe", faults)


def check_lifecycle(lifecycle: Spec, grace: int | None, path: str, faults: Faults) -> None:
    """Faults of the hooks; ``grace`` is the pod's terminationGracePeriodSeconds."""
    for hook in ("postStart", "preStop"):
        if (handler := lifecycle.get(hook)) is not None:
            _check_handler(handler, grace, f"{path}.{hook}", faults)


def _check_one_success(probe: Spec, path: str, faults: Faults) -> None:
    if (threshold := probe.get("successThreshold", 1)) != 1:
        faults.append(fields.invalid(f"{path}.successThreshold", threshold, "must be 1"))


def _check_probe(probe: Spec, grace: int | None, path: str, faults: Faults) -> None:
    _check_handler(probe, grace, path, faults)
    for name in _NUMBERS:
        if (number := probe.get(name, 0)) < 0:
            faults.append(fields.invalid(f"{path}.{name}", number, fields.NEGATIVE))
    seconds = probe.get("terminationGracePeriodSeconds")
    if seconds is not None and seconds <= 0:
        where = f"{path}.terminationGracePeriodSeconds"
        faults.append(fields.invalid(where, seconds, "must be greater than 0"))


def _check_handler(handler: Spec, grace: int | None, path: str, faults: Faults) -> None:
    given = [k for k in ("exec", "httpGet", "tcpSocket", "grpc", "sleep") if k in handler]
    if not given:
        faults.append(fields.required(path, "must specify a handler type"))
        return
    for extra in given[1:]:
        faults.append(fields.forbidden(f"{path}.{extra}", _ONE_HANDLER))
    kind = given[0]
    action, where = handler[kind], f"{path}.{kind}"
    match kind:
        case "exec":
            if not action.get("command"):
                faults.append(fields.required(f"{where}.command"))
        case "httpGet":
            _check_http(action, where, faults)
        case "tcpSocket" | "grpc":
            checks.port(action.get("port", 0), f"{where}.port", faults)
        case "sleep":
            seconds = action.get("seconds", 0)
            if grace is not None and not 0 <= seconds <= grace:
                why = f"must be non-negative and less than terminationGracePeriodSeconds ({grace})"
                faults.append(fields.invalid(where, seconds, why))


def _check_http(action: Spec, path: str, faults: Faults) -> None:
    if not action.get("path"):
        faults.append(fields.required(f"{path}.path"))
    checks.port(action.get("port", 0), f"{path}.port", faults)
    if (scheme := action.get("scheme", "")) not in _SCHEMES:
        faults.append(fields.not_supported(f"{path}.scheme", scheme, _SCHEMES))
    for header in action.get("httpHeaders") or ():
        name = header.get("name", "")
        checks.check(names.is_http_header_name, name, f"{path}.httpHeaders", faults)
