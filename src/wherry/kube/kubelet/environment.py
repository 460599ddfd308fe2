"""A container's environment, command and arguments, from what its spec refers to. No I/O.

Follows makeEnvironmentVariables of pkg/kubelet/kubelet_pods.go, pkg/kubelet/envvars and
third_party/forked/golang/expansion.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from wherry.kube.api import meta, quantity
from wherry.kube.kubelet import env_files, resources

Object = dict[str, Any]

_ENV_NAME = re.compile(r"[^\x00=]+")
_SUBSCRIPT = re.compile(r"^metadata\.(annotations|labels)\['(.*)'\]$")


class ConfigError(Exception):
    """The container cannot be made as its spec says; ``str()`` is upstream's sentence."""


class Missing(Exception):
    """An object that the spec refers to does not exist."""


@dataclass(frozen=True, slots=True)
class PodFacts:
    """What of the pod is known only on its node."""

    host_ips: Sequence[str] = ()
    pod_ips: Sequence[str] = ()
    allocatable: Mapping[str, str] = field(default_factory=dict)


ReadFile = Callable[[str, str], bytes | None]
"""The content of a file in a volume of the pod, by the volume's name and the path; None: no file.
Raises ConfigError where there is no such volume, or the file cannot be read."""

Lookup = Callable[[str, str], Mapping[str, bytes] | None]
"""The content of a ConfigMap or Secret of the pod's namespace, by kind and name; None: none."""


# $(NAME)


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Replace each ``$(NAME)`` that is known; ``$$`` is a dollar sign."""
    if "$" not in text:
        return text
    result: list[str] = []
    position = 0
    while True:
        dollar = text.find("$", position)
        if dollar < 0 or dollar + 1 == len(text):
            result.append(text[position:])
            return "".join(result)
        result.append(text[position:dollar])
        following = text[dollar + 1]
        position = dollar + 2
        if following == "$":
            result.append("$")
        elif following != "(":
            result.append("$" + following)
        else:
            end = text.find(")", position)
            if end < 0:
                result.append("$(")
                continue
            name = text[position:end]
            result.append(variables.get(name, f"$({name})"))
            position = end + 1


def expand_all(texts: Iterable[str], variables: Mapping[str, str]) -> list[str]:
    """``expand`` each; for commands and arguments."""
    return [expand(text, variables) for text in texts]


# services


def service_variables(services: Iterable[Object], namespace: str, *, links: bool) -> dict[str, str]:
    """``NAME_SERVICE_HOST`` and the like, for services of the pod's namespace.

    ``default/kubernetes`` is there always, others if ``links`` (``enableServiceLinks``) says so.
    """
    chosen: dict[str, Object] = {}
    for service in services:
        name, where = meta.name(service), meta.namespace(service)
        spec = service.get("spec") or {}
        if spec.get("clusterIP") in (None, "", "None") or not spec.get("ports"):
            continue
        master = (where, name) == ("default", "kubernetes")
        # A service of that name in the pod's own namespace comes before the cluster's.
        if (where == namespace and links) or (master and name not in chosen):
            chosen[name] = service
    variables: dict[str, str] = {}
    for name in sorted(chosen):
        variables.update(_variables_of(name, chosen[name]["spec"]))
    return variables


def _variables_of(name: str, spec: Object) -> dict[str, str]:
    prefix = _as_variable(name)
    address = spec["clusterIP"]
    host = f"[{address}]" if ":" in address else address
    ports = spec["ports"]
    result = {
        f"{prefix}_SERVICE_HOST": address,
        f"{prefix}_SERVICE_PORT": str(ports[0]["port"]),
    }
    for port in ports:
        if port.get("name"):
            result[f"{prefix}_SERVICE_PORT_{_as_variable(port['name'])}"] = str(port["port"])
    for index, port in enumerate(ports):
        protocol = port.get("protocol") or "TCP"
        number = port["port"]
        url = f"{protocol.lower()}://{host}:{number}"
        if index == 0:
            result[f"{prefix}_PORT"] = url
        link = f"{prefix}_PORT_{number}_{protocol}"
        result[link] = url
        result[f"{link}_PROTO"] = protocol.lower()
        result[f"{link}_PORT"] = str(number)
        result[f"{link}_ADDR"] = address
    return result


def _as_variable(name: str) -> str:
    return name.upper().replace("-", "_").replace(".", "_")


# the whole


def container_environment(
    pod: Object,
    container: Object,
    facts: PodFacts,
    *,
    services: Mapping[str, str],
    lookup: Lookup,
    read_file: ReadFile = lambda _volume, _path: None,
) -> dict[str, str]:
    """The variables of ``container``.

    Raises:
        ConfigError: it refers to what is not there, or to what cannot be referred to.
    """
    result: dict[str, str] = {}
    for source in container.get("envFrom") or ():
        result.update(_env_from(pod, source, lookup))
    for variable in container.get("env") or ():
        name = variable["name"]
        if variable.get("valueFrom"):
            source = variable["valueFrom"]
            if source.get("fileKeyRef"):
                value = _from_file(source["fileKeyRef"], read_file)
            else:
                value = _value_from(pod, container, source, facts, lookup)
            if value is None:
                continue
        else:
            value = expand(variable.get("value") or "", {**services, **result})
        result[name] = value
    for name, value in services.items():
        # The spec's own variables come before those of services.
        result.setdefault(name, value)
    return result


def _env_from(pod: Object, source: Object, lookup: Lookup) -> dict[str, str]:
    prefix = source.get("prefix") or ""
    for field_name, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
        reference = source.get(field_name)
        if not reference:
            continue
        data = lookup(kind, reference["name"])
        if data is None:
            if reference.get("optional"):
                return {}
            raise ConfigError(_absent(kind, reference["name"]))
        return {
            prefix + key: value.decode("utf-8", "replace")
            for key, value in sorted(data.items())
            if _ENV_NAME.fullmatch(prefix + key)
        }
    return {}


def _value_from(
    pod: Object, container: Object, source: Object, facts: PodFacts, lookup: Lookup
) -> str | None:
    if source.get("fieldRef"):
        return field_value(pod, source["fieldRef"]["fieldPath"], facts)
    if source.get("resourceFieldRef"):
        return resource_value(pod, container, source["resourceFieldRef"], facts)
    for field_name, kind in (("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")):
        reference = source.get(field_name)
        if not reference:
            continue
        name, key = reference["name"], reference["key"]
        data = lookup(kind, name)
        if data is None:
            if reference.get("optional"):
                return None
            raise ConfigError(_absent(kind, name))
        if key not in data:
            if reference.get("optional"):
                return None
            raise ConfigError(f"couldn't find key {key} in {kind} {meta.namespace(pod)}/{name}")
        return data[key].decode("utf-8", "replace")
    raise ConfigError("unsupported environment variable source")


def _from_file(reference: Object, read_file: ReadFile) -> str | None:
    volume, path, key = (reference[name] for name in ("volumeName", "path", "key"))
    data = read_file(volume, path)
    optional = bool(reference.get("optional"))
    if data is None:
        if optional:
            return None
        raise ConfigError(f'couldn\'t parse env file: no file "{path}" in volume "{volume}"')
    try:
        found = env_files.find(data.decode("utf-8", "replace"), key)
    except env_files.EnvFileFault as fault:
        raise ConfigError(f"couldn't parse env file: {fault}") from fault
    if found is None and not optional:
        raise ConfigError(f'environment variable key "{key}" not found in file "{path}"')
    return found


def _absent(kind: str, name: str) -> str:
    return f'{kind.lower()} "{name}" not found'


def field_value(pod: Object, path: str, facts: PodFacts) -> str:
    """What the downward API's ``fieldPath`` stands for.

    Raises:
        ConfigError: it is not one of those that are offered.
    """
    match = _SUBSCRIPT.match(path)
    if match:
        values = meta.labels(pod) if match[1] == "labels" else meta.annotations(pod)
        return values.get(match[2], "")
    spec = pod["spec"]
    simple: dict[str, Callable[[], str]] = {
        "metadata.name": lambda: meta.name(pod),
        "metadata.namespace": lambda: meta.namespace(pod),
        "metadata.uid": lambda: meta.uid(pod),
        "metadata.labels": lambda: _quoted_lines(meta.labels(pod)),
        "metadata.annotations": lambda: _quoted_lines(meta.annotations(pod)),
        "spec.nodeName": lambda: spec.get("nodeName") or "",
        "spec.serviceAccountName": lambda: spec.get("serviceAccountName") or "",
        "status.hostIP": lambda: facts.host_ips[0] if facts.host_ips else "",
        "status.hostIPs": lambda: ",".join(facts.host_ips),
        "status.podIP": lambda: facts.pod_ips[0] if facts.pod_ips else "",
        "status.podIPs": lambda: ",".join(facts.pod_ips),
    }
    if path not in simple:
        raise ConfigError(f"unsupported fieldPath: {path}")
    return simple[path]()


def _quoted_lines(values: Mapping[str, str]) -> str:
    """As the downward API writes a map into a file: sorted, values in Go's quotes."""
    return "\n".join(f"{key}={_go_quote(values[key])}" for key in sorted(values))


def _go_quote(text: str) -> str:
    escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}
    return '"' + "".join(escapes.get(c, c) for c in text) + '"'


def resource_value(pod: Object, container: Object, reference: Object, facts: PodFacts) -> str:
    """What a ``resourceFieldRef`` stands for, in units of its divisor, rounded up.

    A limit that is not set is the node's allocatable amount; a request that is not set is 0.

    Raises:
        ConfigError: there is no such resource or container.
    """
    name = reference.get("containerName")
    if name and name != container.get("name"):
        members = [*(pod["spec"].get("initContainers") or ()), *pod["spec"]["containers"]]
        found = next((c for c in members if c["name"] == name), None)
        if found is None:
            raise ConfigError(f"container {name} not found")
        container = found
    kind, _, resource = reference["resource"].partition(".")
    if kind not in ("limits", "requests") or not resource:
        raise ConfigError(f"unsupported container resource : {reference['resource']}")
    value = resources.amount(container, kind, resource)
    if not value and kind == "limits" and resource in facts.allocatable:
        value = quantity.parse(facts.allocatable[resource])
    divisor = quantity.parse(str(reference.get("divisor") or "1"))
    if not divisor:
        divisor = quantity.parse("1")
    if not value:
        return "0"
    return str(-(-value.nanos // divisor.nanos))
