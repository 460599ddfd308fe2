"""What a ValidatingAdmissionPolicy's expressions get wrong about the kinds it is about, told in its
status. A policy is judged once for each of its generations.

Upstream: pkg/controller/validatingadmissionpolicystatus.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

from wherry.kube.api.catalogue import Catalogue
from wherry.kube.api.errors import StatusError
from wherry.kube.api.kinds import Kind
from wherry.kube.api.resources import VALIDATING_ADMISSION_POLICIES
from wherry.kube.apiserver.cache import Cache, Event
from wherry.kube.client.transport import Transport

log = logging.getLogger(__name__)

Object = dict[str, Any]

_MOST_KINDS = 10
_AGAIN = 1.0  # seconds until something that failed is tried again


class PolicyChecks:
    """Follows the policies and writes their statuses."""

    def __init__(self, catalogue: Catalogue, cache: Cache, transport: Transport) -> None:
        self._catalogue = catalogue
        self._cache = cache
        self._transport = transport
        self._concerned: dict[str, None] = {}
        self._task: asyncio.Task[None] | None = None

    def follow(self) -> None:
        """Judge what there is, and what comes."""
        policies = self._cache.of(VALIDATING_ADMISSION_POLICIES)
        policies.listen(self._changed)
        for stored in policies.list():
            self._concern(stored.key)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def _changed(self, event: Event) -> None:
        if event.current is not None:
            self._concern(event.key)

    def _concern(self, name: str) -> None:
        self._concerned[name] = None
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._work())

    async def _work(self) -> None:
        while self._concerned:
            name = next(iter(self._concerned))
            del self._concerned[name]
            try:
                await self._judge(name)
            except (StatusError, ConnectionError) as error:
                if not (isinstance(error, StatusError) and error.code in (404, 409)):
                    log.warning("validating admission policy %s: %s", name, error)
                    asyncio.get_running_loop().call_later(_AGAIN, self._concern, name)
            except Exception:
                log.exception("validating admission policy %s", name)

    async def _judge(self, name: str) -> None:
        found = self._cache.of(VALIDATING_ADMISSION_POLICIES).get("", name)
        if found is None:
            return
        policy = found.object
        generation = policy["metadata"].get("generation", 0)
        if (policy.get("status") or {}).get("observedGeneration") == generation:
            return
        warnings = list(self._warnings(policy["spec"]))
        checked: Object = {"expressionWarnings": warnings} if warnings else {}
        status = {
            **(policy.get("status") or {}),
            "observedGeneration": generation,
            "typeChecking": checked,
        }
        path = VALIDATING_ADMISSION_POLICIES.path(None, name, "status")
        await self._transport.request("PUT", path, body={**policy, "status": status})

    def _warnings(self, spec: Object) -> Iterator[Object]:
        from wherry.kube.api.kinds.expressions import POLICY_NAMES
        from wherry.kube.api.typecheck import undefined_field

        kinds = self._kinds(spec)
        for i, validation in enumerate(spec.get("validations") or ()):
            for field in ("expression", "messageExpression"):
                text = validation.get(field)
                if not text:
                    continue
                said = []
                for kind in kinds:
                    shape = kind.merge_type()
                    shapes = {"object": shape, "oldObject": shape}
                    if why := undefined_field(text, POLICY_NAMES, shapes):
                        r = kind.resource
                        said.append(f"{r.api_version}, Kind={r.kind}: {why}\n")
                if said:
                    where = f"spec.validations[{i}].{field}"
                    yield {"fieldRef": where, "warning": "\n".join(said)}

    def _kinds(self, spec: Object) -> list[Kind]:
        """The kinds a policy names, but not by wildcards."""
        served = self._catalogue.served
        found: dict[Kind, None] = {}
        for rule in (spec.get("matchConstraints") or {}).get("resourceRules") or ():
            for group in rule.get("apiGroups") or ():
                for version in rule.get("apiVersions") or ():
                    for plural in rule.get("resources") or ():
                        kind = served.kind(group, version, plural)
                        if kind is not None:
                            found[kind] = None
        return list(found)[:_MOST_KINDS]
