"""Finds the scale of whatever kind is meant, and the resource of a kind, by asking what is served.

Upstream: the RESTMapper and k8s.io/client-go/scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from wherry.kube.api.errors import StatusError
from wherry.kube.client.transport import Object, Transport


class NoTarget(Exception):
    """What is to be scaled is not to be had; ``str()`` says why."""


@dataclass(frozen=True, slots=True)
class Mapping:
    """A resource: where its objects are, and which group it is of."""

    base: str
    group: str
    plural: str
    namespaced: bool

    @property
    def qualified(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def path(self, namespace: str, name: str, subresource: str = "") -> str:
        place = f"/namespaces/{namespace}" if self.namespaced else ""
        below = f"/{subresource}" if subresource else ""
        return f"{self.base}{place}/{self.plural}/{name}{below}"


@dataclass(frozen=True, slots=True)
class Scale:
    """The scale of an object: how many there should be, how many there are, which pods."""

    path: str
    object: Object

    @property
    def wanted(self) -> int:
        return int((self.object.get("spec") or {}).get("replicas") or 0)

    @property
    def there(self) -> int:
        return int((self.object.get("status") or {}).get("replicas") or 0)

    @property
    def selector(self) -> str:
        status = self.object.get("status") or {}
        given: Any = status.get("targetSelector") or status.get("selector") or ""
        if isinstance(given, dict):  # as in extensions/v1beta1
            return ",".join(f"{name}={value}" for name, value in sorted(given.items()))
        return str(given)


class Targets:
    """Asks by ``transport``; remembers which resource a kind is until that fails."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._known: dict[tuple[str, str], Mapping] = {}

    async def mapping(self, api_version: str, kind: str) -> Mapping:
        """The resource of a kind; of several versions the one that is named, or the preferred.

        Raises:
            NoTarget: nobody serves it.
        """
        known = self._known.get((api_version, kind))
        if known is None:
            known = self._known[api_version, kind] = await self._ask(api_version, kind)
        return known

    async def scale(self, namespace: str, reference: Object) -> Scale:
        """The scale of what an autoscaler refers to.

        Raises:
            NoTarget: it cannot be had.
        """
        api_version, kind = reference.get("apiVersion") or "", reference.get("kind") or ""
        if api_version.count("/") > 1:
            raise NoTarget(f"unexpected GroupVersion string: {api_version}")
        mapping = await self.mapping(api_version, kind)
        path = mapping.path(namespace, reference.get("name") or "", "scale")
        try:
            return Scale(path, await self._transport.request("GET", path))
        except StatusError as error:
            if error.code == 404:
                self._known.pop((api_version, kind), None)
                if not error.details:
                    raise NoTarget("the server could not find the requested resource") from error
            raise NoTarget(str(error)) from error
        except (ConnectionError, TimeoutError) as error:
            raise NoTarget(str(error)) from error

    async def write(self, scale: Scale, replicas: int) -> Object:
        """Have so many. Raises StatusError, ConnectionError."""
        spec = {**(scale.object.get("spec") or {}), "replicas": replicas}
        return await self._transport.request("PUT", scale.path, body={**scale.object, "spec": spec})

    async def _ask(self, api_version: str, kind: str) -> Mapping:
        group, _, version = api_version.rpartition("/")
        for each in await self._versions(group, version):
            base = f"/apis/{group}/{each}" if group else f"/api/{each}"
            try:
                listed = await self._transport.request("GET", base)
            except StatusError as error:
                if error.code == 404:
                    continue
                raise NoTarget(str(error)) from error
            except (ConnectionError, TimeoutError) as error:
                raise NoTarget(str(error)) from error
            for entry in listed.get("resources") or ():
                if entry["kind"] == kind and "/" not in entry["name"]:
                    return Mapping(base, group, entry["name"], bool(entry.get("namespaced")))
        raise NoTarget(f'no matches for kind "{kind}" in group "{group}"')

    async def _versions(self, group: str, version: str) -> list[str]:
        """Those of the group, beginning with that one."""
        if not group:
            return [version or "v1"]
        try:
            told = await self._transport.request("GET", f"/apis/{group}")
        except (StatusError, ConnectionError, TimeoutError):
            return [version]
        served = [each["version"] for each in told.get("versions") or ()]
        return sorted(served, key=lambda each: each != version)
