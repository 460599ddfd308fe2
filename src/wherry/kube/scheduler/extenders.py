"""Extenders: services of the user's own that filter, score, choose victims and bind by HTTP
(https://github.com/kubernetes/design-proposals-archive/blob/main/scheduling/scheduler_extender.md).
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp
import orjson

from wherry.kube.api import meta
from wherry.kube.client.transport import Object
from wherry.kube.scheduler.algorithm import Candidates
from wherry.kube.scheduler.config import ExtenderSettings
from wherry.kube.scheduler.framework import reject
from wherry.kube.scheduler.room import Candidate
from wherry.kube.scheduler.snapshot import PodInfo

log = logging.getLogger(__name__)

_MAX_EXTENDER_SCORE = 10
_SCALE = 10  # from an extender's 0 … 10 to a plugin's 0 … 100


class ExtenderError(RuntimeError):
    """An extender that must not be ignored could not be asked, or refused."""


class Extenders:
    """All of the configuration, asked one after the other."""

    def __init__(self, settings: Sequence[ExtenderSettings]) -> None:
        self._all = [_Extender(each) for each in settings]

    def concern(self, pod: PodInfo) -> bool:
        """Whether any has a say about the pod's node."""
        return any(e.concerns(pod) for e in self._all)

    async def narrow(self, pod: PodInfo, candidates: Candidates) -> None:
        """Leave out the nodes that an extender rejects, and add its scores.

        Raises:
            ExtenderError: one could not be asked, and must be.
        """
        for extender in self._all:
            if candidates.nodes and extender.concerns(pod):
                await extender.filter(pod, candidates)
        for extender in self._all:
            if candidates.nodes and extender.concerns(pod):
                await extender.prioritize(pod, candidates)

    async def consider(self, pod: PodInfo, candidates: Sequence[Candidate]) -> list[Candidate]:
        """The candidates for preemption that extenders leave, perhaps with fewer victims.

        Raises:
            ExtenderError: one could not be asked, and must be.
        """
        left = list(candidates)
        for extender in self._all:
            if left and extender.settings.preempt_verb and extender.concerns(pod):
                left = await extender.consider(pod, left)
        return left

    async def bind(self, pod: PodInfo, node: str) -> bool:
        """Have the pod bound by the first that binds; whether there is one."""
        for extender in self._all:
            if extender.settings.bind_verb and extender.concerns(pod):
                await extender.bind(pod, node)
                return True
        return False

    async def close(self) -> None:
        """Give connections back."""
        for extender in self._all:
            await extender.close()


class _Extender:
    def __init__(self, settings: ExtenderSettings) -> None:
        self.settings = settings
        self._session: aiohttp.ClientSession | None = None
        self._resources = frozenset(settings.managed_resources)

    def concerns(self, pod: PodInfo) -> bool:
        return not self._resources or not self._resources.isdisjoint(pod.requests)

    async def filter(self, pod: PodInfo, candidates: Candidates) -> None:
        if not self.settings.filter_verb:
            return
        try:
            answer = await self._ask(self.settings.filter_verb, pod, candidates)
        except ExtenderError:
            if self.settings.ignorable:
                return
            raise
        names = _get(answer, "NodeNames")
        if names is None:
            names = [meta.name(n) for n in (_get(answer, "Nodes") or {}).get("items") or ()]
        failed = _get(answer, "FailedNodes") or {}
        for_good = _get(answer, "FailedAndUnresolvableNodes") or {}
        kept = set(names)
        pairs = list(zip(candidates.nodes, candidates.scores, strict=True))
        for name in (node.name for node, _ in pairs if node.name not in kept):
            reason = for_good.get(name) or failed.get(name) or "node(s) didn't pass an extender"
            candidates.diagnosis.verdicts[name] = reject(reason, resolvable=name not in for_good)
        candidates.nodes = [node for node, _ in pairs if node.name in kept]
        candidates.scores = [score for node, score in pairs if node.name in kept]

    async def prioritize(self, pod: PodInfo, candidates: Candidates) -> None:
        if not self.settings.prioritize_verb:
            return
        try:
            scores = await self._ask(self.settings.prioritize_verb, pod, candidates)
            by_host = {_get(s, "Host"): int(_get(s, "Score") or 0) for s in scores or ()}
        except (ExtenderError, ValueError, TypeError) as error:
            # As upstream: then the others' scores decide.
            log.warning("%s: %s", self.settings.prioritize_verb, error)
            return
        for number, node in enumerate(candidates.nodes):
            score = min(by_host.get(node.name, 0), _MAX_EXTENDER_SCORE)
            candidates.scores[number] += score * self.settings.weight * _SCALE

    async def consider(self, pod: PodInfo, candidates: Sequence[Candidate]) -> list[Candidate]:
        body: Object = {"Pod": _as_sent(pod)}
        if self.settings.node_cache_capable:
            body["NodeNameToMetaVictims"] = {
                each.node: {
                    "Pods": [{"UID": victim.uid} for victim in each.victims],
                    "NumPDBViolations": each.violations,
                }
                for each in candidates
            }
        else:
            body["NodeNameToVictims"] = {
                each.node: {
                    "Pods": [_as_sent(victim) for victim in each.victims],
                    "NumPDBViolations": each.violations,
                }
                for each in candidates
            }
        try:
            answer = await self._post(self.settings.preempt_verb, body)
            return self._left(_get(answer, "NodeNameToMetaVictims") or {}, candidates)
        except ExtenderError as error:
            if not self.settings.ignorable:
                raise
            log.warning("%s: %s", self.settings.preempt_verb, error)
            return list(candidates)

    def _left(
        self, answered: Mapping[str, Any], candidates: Sequence[Candidate]
    ) -> list[Candidate]:
        known = {each.node: each for each in candidates}
        left = []
        for node, found in answered.items():
            chosen = {_get(victim, "UID") for victim in _get(found, "Pods") or ()}
            before = known.get(node)
            victims = tuple(v for v in before.victims if v.uid in chosen) if before else ()
            if len(victims) < len(chosen) or not victims:
                raise ExtenderError(
                    f"extender {self.settings.url}: expected at least one victim pod on node "
                    f'"{node}", of those that it was told'
                )
            left.append(Candidate(node, victims, int(_get(found, "NumPDBViolations") or 0)))
        return left

    async def bind(self, pod: PodInfo, node: str) -> None:
        body = {
            "PodName": meta.name(pod.object),
            "PodNamespace": pod.namespace,
            "PodUID": pod.uid,
            "Node": node,
        }
        answer = await self._post(self.settings.bind_verb, body)
        if _get(answer, "Error"):
            raise ExtenderError(f"extender {self.settings.url}: {_get(answer, 'Error')}")

    async def _ask(self, verb: str, pod: PodInfo, candidates: Candidates) -> Any:
        body: Object = {"Pod": _as_sent(pod)}
        if self.settings.node_cache_capable:
            body["NodeNames"] = [node.name for node in candidates.nodes]
        else:
            items = [node.object for node in candidates.nodes]
            body["Nodes"] = {"apiVersion": "v1", "kind": "NodeList", "items": items}
        answer = await self._post(verb, body)
        if _get(answer, "Error"):
            raise ExtenderError(f"extender {self.settings.url}: {_get(answer, 'Error')}")
        return answer

    async def _post(self, verb: str, body: Object) -> Any:
        settings = self.settings
        url = f"{settings.url.rstrip('/')}/{verb}"
        headers = {"Content-Type": "application/json"}
        try:
            if self._session is None:
                self._session = aiohttp.ClientSession(
                    connector=aiohttp.TCPConnector(ssl=_secured(settings)),
                    timeout=aiohttp.ClientTimeout(total=settings.timeout),
                )
            async with self._session.post(url, data=orjson.dumps(body), headers=headers) as answer:
                if answer.status != 200:
                    raise ExtenderError(
                        f"failed {verb} with extender at URL {url}, code {answer.status}"
                    )
                return orjson.loads(await answer.read())
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise ExtenderError(f"extender {url}: {error or 'timed out'}") from error

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


def _secured(settings: ExtenderSettings) -> ssl.SSLContext | bool:
    if settings.insecure and not settings.certificate:
        return False
    if not settings.certificate_authority and not settings.certificate:
        return True
    context = ssl.create_default_context(cafile=settings.certificate_authority or None)
    if settings.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if settings.certificate:
        context.load_cert_chain(settings.certificate, settings.key or None)
    return context


def _as_sent(pod: PodInfo) -> Object:
    return {"apiVersion": "v1", "kind": "Pod", **pod.object}


def _get(answer: Any, name: str) -> Any:
    """A field as upstream's types write it, in either case of its first letter."""
    if not isinstance(answer, dict):
        return None
    return answer.get(name, answer.get(name[0].lower() + name[1:]))
