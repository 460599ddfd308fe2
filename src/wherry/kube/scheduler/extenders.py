"""Extenders: services of the user's own that filter, score and bind by HTTP
(https://github.com/kubernetes/design-proposals-archive/blob/main/scheduling/scheduler_extender.md).
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from typing import Any

import aiohttp
import orjson

from wherry.kube.api import meta
from wherry.kube.client.transport import Object
from wherry.kube.scheduler.algorithm import Candidates, Unfit, message
from wherry.kube.scheduler.config import ExtenderSettings
from wherry.kube.scheduler.framework import Diagnosis, reject
from wherry.kube.scheduler.snapshot import PodInfo

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
        """Leave out the nodes that an extender rejects, and add its scores."""
        failed: dict[str, str] = {}
        for extender in self._all:
            if candidates.nodes and extender.concerns(pod):
                await extender.narrow(pod, candidates, failed)
        candidates.rejected = failed

    def unfit(self, candidates: Candidates, total: int) -> Unfit:
        """What is said where they have left no node."""
        verdicts = {node: reject(why) for node, why in candidates.rejected.items()}
        diagnosis = Diagnosis(dict(verdicts))
        return Unfit(message(total, diagnosis), diagnosis, candidates.cycle)

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

    async def narrow(self, pod: PodInfo, candidates: Candidates, failed: dict[str, str]) -> None:
        settings = self.settings
        try:
            if settings.filter_verb:
                answer = await self._ask(settings.filter_verb, pod, candidates)
                if _get(answer, "Error"):
                    raise ExtenderError(str(_get(answer, "Error")))
                self._keep(answer, candidates, failed)
            if settings.prioritize_verb and candidates.nodes:
                scores = await self._ask(settings.prioritize_verb, pod, candidates)
                by_host = {_get(s, "Host"): int(_get(s, "Score") or 0) for s in scores}
                for number, node in enumerate(candidates.nodes):
                    score = min(by_host.get(node.name, 0), _MAX_EXTENDER_SCORE)
                    candidates.scores[number] += score * settings.weight * _SCALE
        except (aiohttp.ClientError, TimeoutError, ValueError, ExtenderError) as error:
            if not settings.ignorable:
                raise ExtenderError(f"extender {settings.url}: {error}") from error

    def _keep(self, answer: Any, candidates: Candidates, failed: dict[str, str]) -> None:
        names = _get(answer, "NodeNames")
        if names is None:
            names = [meta.name(n) for n in (_get(answer, "Nodes") or {}).get("items") or ()]
        reasons = {**(_get(answer, "FailedNodes") or {})}
        reasons.update(_get(answer, "FailedAndUnresolvableNodes") or {})
        kept = set(names)
        pairs = list(zip(candidates.nodes, candidates.scores, strict=True))
        for node, _ in pairs:
            if node.name not in kept:
                failed[node.name] = reasons.get(node.name) or "node(s) didn't pass an extender"
        candidates.nodes = [node for node, _ in pairs if node.name in kept]
        candidates.scores = [score for node, score in pairs if node.name in kept]

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
        body: Object = {"Pod": {"apiVersion": "v1", "kind": "Pod", **pod.object}}
        if self.settings.node_cache_capable:
            body["NodeNames"] = [node.name for node in candidates.nodes]
        else:
            items = [node.object for node in candidates.nodes]
            body["Nodes"] = {"apiVersion": "v1", "kind": "NodeList", "items": items}
        return await self._post(verb, body)

    async def _post(self, verb: str, body: Object) -> Any:
        if self._session is None:
            authority = self.settings.certificate_authority
            secured = ssl.create_default_context(cafile=authority) if authority else True
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=secured),
                timeout=aiohttp.ClientTimeout(total=self.settings.timeout),
            )
        url = f"{self.settings.url.rstrip('/')}/{verb}"
        headers = {"Content-Type": "application/json"}
        async with self._session.post(url, data=orjson.dumps(body), headers=headers) as answer:
            if answer.status != 200:
                raise ExtenderError(f"{verb}: status {answer.status}")
            return orjson.loads(await answer.read())

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


def _get(answer: Any, name: str) -> Any:
    """A field as upstream's types write it, in either case of its first letter."""
    if not isinstance(answer, dict):
        return None
    return answer.get(name, answer.get(name[0].lower() + name[1:]))
