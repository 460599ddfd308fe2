"""Keeps this node's rules as the cluster's NetworkPolicies say.

Pods and namespaces are followed from the first policy on: a cluster without policies pays nothing
for them, and has no rule. What is in the kernel stays in force when this process ends, and is
replaced in one transaction when the next one knows the cluster.

The kubelet tells each pod's addresses as soon as it has them (``cover``), and starts no container
before they are covered; from the API they would come only after the first packet. Covered is a pod
when every policy that was written before is in force, which the watch alone would not promise: the
pod may have come quicker. What ran already when this process began is known from the runtime.

Pods that need no API (static ones) wait for its answer only while one may come: without it they
start under the policies that are known, and those that are not are in force as soon as they are.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from wherry.kube.api import meta, pods
from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import NAMESPACES, NETWORK_POLICIES, PODS
from wherry.kube.client.backoff import Backoff
from wherry.kube.client.informer import Informer, SharedInformers
from wherry.kube.network_policy.elements import Pod
from wherry.kube.network_policy.model import Model
from wherry.kube.network_policy.policies import read_or_close
from wherry.net.link import links
from wherry.net.nftables.nft import NftError, Runner
from wherry.net.policy_table import PolicyTable, remove_table

log = logging.getLogger(__name__)

Object = dict[str, Any]

_PATIENCE = 10.0  # seconds for which those who need no answer wait for one


@dataclass(frozen=True, slots=True)
class Running:
    """A pod that the runtime has on the pod network."""

    namespace: str
    name: str
    uid: str
    ips: tuple[str, ...]


async def _nothing_runs() -> Sequence[Running]:
    return ()


@dataclass(slots=True)
class _Told:
    """What the kubelet, or the runtime, has told of a pod of this node."""

    pod: Object
    ips: tuple[str, ...]
    covered: bool = False


class Enforcer:
    """The NetworkPolicies of a cluster, on one node.

    Args:
        informers: those of the process; whoever gives them starts and stops them.
        nft: applies nftables scripts.
        table: the nftables table that is ours alone.
        node_name: whose pods are judged here.
        running: what the runtime has at present.
        families: the versions of IP that pods have addresses of.
        name_server: will be where the cluster's name server is on this node.
    """

    def __init__(
        self,
        informers: SharedInformers,
        nft: Runner,
        *,
        table: str,
        node_name: str,
        running: Callable[[], Awaitable[Sequence[Running]]] = _nothing_runs,
        families: tuple[int, ...] = (4,),
        name_server: asyncio.Future[tuple[str, ...]] | None = None,
    ) -> None:
        self._client = informers.client
        self._informers = informers
        self._running = running
        self._node_name = node_name
        self._model = Model(families)
        self._table = PolicyTable(nft, table)
        self._policies = informers.informer(NETWORK_POLICIES)
        self._pods: Informer | None = None
        self._told: dict[str, _Told] = {}
        self._owners: dict[str, str] = {}  # of addresses that were told
        self._changed = asyncio.Event()
        self._waiting: list[asyncio.Future[None]] = []
        self._reading = asyncio.Lock()
        self._reads: dict[str, asyncio.Task[None]] = {}  # by namespace, not yet begun
        self._unanswered = asyncio.Event()  # the last of them was not
        self._knowing = False  # the cluster's rules are, or were, in force
        self._standing = True  # a former process may have left a table
        if name_server is not None:
            name_server.add_done_callback(self._name_server_known)

    async def run(self) -> None:
        """Keep the rules current until cancelled; they stay in force afterwards."""
        self._policies.add_handlers(
            on_add=self._policy_changed,
            on_update=lambda _old, new: self._policy_changed(new),
            on_delete=lambda policy: self._set_policy(policy, gone=True),
        )
        await self._policies.wait_synced()
        self._changed.set()
        backoff = Backoff(0.1, 30)
        while True:
            await self._changed.wait()
            self._changed.clear()
            waiting, self._waiting = self._waiting, []
            try:
                await self._apply()
            except NftError as error:
                self._waiting += waiting
                delay = backoff.next()
                log.error("network policies were refused, again in %.1f s: %s", delay, error)
                await asyncio.sleep(delay)
                self._changed.set()
                continue
            backoff.reset()
            self._knowing = True
            for future in waiting:
                if not future.done():
                    future.set_result(None)

    @staticmethod
    async def teardown(nft: Runner, *, table: str) -> None:
        """Take away what an enforcer leaves in the kernel; no error where there is nothing."""
        await remove_table(nft, table)

    async def _apply(self) -> None:
        if not self._model.has_policies:
            self._model.take_touched()
            if self._standing:
                await self._table.remove()
                self._standing = False
            return
        if self._pods is None:
            await self._follow()
        self._standing = True
        await self._table.apply(self._model.rules, self._model.take_touched())

    async def _follow(self) -> None:
        """From now on, know all pods and namespaces."""
        if not links.bridge_netfilter():
            log.error(
                "the kernel passes nothing that is bridged through the rules (no br_netfilter): "
                "NetworkPolicies cannot judge what pods of this node send each other"
            )
        namespaces = self._informers.informer(NAMESPACES)
        namespaces.add_handlers(
            on_add=self._namespace_changed,
            on_update=lambda _old, new: self._namespace_changed(new),
            on_delete=lambda namespace: self._model.set_namespace(meta.name(namespace), None),
        )
        self._pods = followed = self._informers.informer(PODS)
        followed.add_handlers(
            on_add=self._pod_changed,
            on_update=lambda _old, new: self._pod_changed(new),
            on_delete=self._pod_changed,
        )
        for key in self._told:
            self._refresh(key)
        await namespaces.wait_synced()
        await followed.wait_synced()
        for found in await self._running():
            key = f"{found.namespace}/{found.name}"
            known = followed.get(found.namespace, found.name)
            if known is not None and meta.uid(known) == found.uid and key not in self._told:
                self._hold(key, known, found.ips)

    # ---- what the cluster says

    def _name_server_known(self, where: asyncio.Future[tuple[str, ...]]) -> None:
        if not where.cancelled():
            self._model.set_name_server(where.result())
            self._look()

    def _policy_changed(self, policy: Object) -> None:
        self._set_policy(policy, gone=False)

    def _set_policy(self, policy: Object, *, gone: bool) -> None:
        key = meta.key(policy)
        if gone:
            self._model.set_policy(key, None)
        else:
            said, unreadable = read_or_close(policy)
            if unreadable is not None:
                log.error(
                    "network policy %s cannot be read, so its pods are cut off: %r", key, unreadable
                )
            self._model.set_policy(key, said)
        self._changed.set()

    def _namespace_changed(self, namespace: Object) -> None:
        self._model.set_namespace(meta.name(namespace), meta.labels(namespace))
        self._look()

    def _pod_changed(self, pod: Object) -> None:
        self._refresh(meta.key(pod))

    def _look(self) -> None:
        if self._model.pending:
            self._changed.set()

    def _refresh(self, key: str) -> None:
        """Have the model know a pod as it is now, once pods are followed."""
        if self._pods is None:
            return
        namespace, _, name = key.partition("/")
        told, known = self._told.get(key), self._pods.get(namespace, name)
        pod = known
        if told is not None and (known is None or meta.uid(known) != meta.uid(told.pod)):
            pod = told.pod
        if pod is None:
            self._model.set_pod(key, None)
        else:
            ips = told.ips if told is not None else pods.addresses(pod)
            local = pod["spec"].get("nodeName") == self._node_name or told is not None
            # An address that a pod of this node was given is that pod's, whoever had it before.
            own = tuple(ip for ip in ips if self._owners.get(ip, key) == key)
            self._model.set_pod(key, _facts(pod, own, local=local))
        self._look()

    # ---- what the kubelet says

    async def cover(self, pod: Object, ips: Sequence[str], *, alone: bool = False) -> None:
        """A pod of this node has addresses ``ips``; returns when the rules know them.

        Until then no container of it may be started. May be repeated, which costs nothing. For a
        pod that is to run ``alone``, without the API, the rules are those that are known where the
        API does not answer.
        """
        key = meta.key(pod)
        told = self._told.get(key)
        if told is None or told.ips != tuple(ips) or meta.uid(told.pod) != meta.uid(pod):
            if told is not None:
                self.uncover(told.pod)
            told = self._hold(key, pod, ips)
        if told.covered:
            return
        heard = await self._heard(meta.namespace(pod), alone=alone)
        if heard or self._knowing:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            self._changed.set()
            await future
        told.covered = heard

    def _hold(self, key: str, pod: Object, ips: Sequence[str]) -> _Told:
        """A pod of this node has addresses ``ips``, whoever the API says has them."""
        former = {self._owners[ip] for ip in ips if ip in self._owners}
        told = self._told[key] = _Told(pod, tuple(ips))
        self._owners.update(dict.fromkeys(ips, key))
        for other in (*former, *self._holders(ips), key):
            self._refresh(other)
        return told

    async def _heard(self, namespace: str, *, alone: bool) -> bool:
        """Return once all policies that a namespace has by now are known; or, for a pod ``alone``,
        False when nobody answers.

        Those who ask while an answer is awaited share the next one.
        """
        task = self._reads.get(namespace)
        if task is None:
            task = self._reads[namespace] = asyncio.create_task(self._read(namespace))
        if alone:
            silence = asyncio.create_task(self._unanswered.wait())
            try:
                await asyncio.wait(
                    (task, silence), timeout=_PATIENCE, return_when=asyncio.FIRST_COMPLETED
                )
            finally:
                silence.cancel()
            if not task.done():
                return False
        await asyncio.shield(task)
        return True

    async def _read(self, namespace: str) -> None:
        async with self._reading:
            del self._reads[namespace]
            backoff = Backoff(0.02, 5)
            while True:
                try:
                    answer = await self._client.list(NETWORK_POLICIES, namespace)
                    self._unanswered.clear()
                    break
                except (StatusError, ConnectionError, TimeoutError) as error:
                    delay = backoff.next()
                    log.debug("policies of %s, again in %.1f s: %s", namespace, delay, error)
                    self._unanswered.set()
                    await asyncio.sleep(delay)
        await asyncio.gather(*(self._policies.reached(policy) for policy in answer["items"]))

    def _holders(self, ips: Sequence[str]) -> Iterator[str]:
        """Pods of this node that, as the API has it, still hold one of ``ips``."""
        for pod in self._pods.list() if self._pods is not None else ():
            here = pod["spec"].get("nodeName") == self._node_name
            if here and not set(ips).isdisjoint(pods.addresses(pod)):
                yield meta.key(pod)

    def uncover(self, pod: Object) -> None:
        """Nothing is left of a pod; its addresses may become another's."""
        key = meta.key(pod)
        told = self._told.get(key)
        if told is None or meta.uid(told.pod) != meta.uid(pod):
            return
        del self._told[key]
        for ip in told.ips:
            if self._owners.get(ip) == key:
                del self._owners[ip]
        self._refresh(key)


def _facts(pod: Object, ips: tuple[str, ...], *, local: bool) -> Pod | None:
    """What matters of a pod; None for one of the host's network, or that has ended."""
    spec = pod["spec"]
    if not ips or spec.get("hostNetwork") or pods.is_finished(pod):
        return None
    ports = tuple(
        (port["name"], (port.get("protocol") or "TCP").lower(), port["containerPort"])
        for container in pods.lasting_containers(spec)
        for port in container.get("ports") or ()
        if port.get("name")
    )
    return Pod(meta.namespace(pod), meta.labels(pod), ips, local, ports)
