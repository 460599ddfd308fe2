"""The API server as a whole: what it is made of, and in which order that starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from wherry.kube.api.account_tokens import split_user_name
from wherry.kube.api.catalogue import Catalogue
from wherry.kube.api.resources import EVENTS, IP_ADDRESSES, SERVICE_CIDRS, SERVICES
from wherry.kube.apiserver import bootstrap
from wherry.kube.apiserver.admission import Admission, AdmissionOptions, Context
from wherry.kube.apiserver.admission.policies.checking import PolicyChecks
from wherry.kube.apiserver.aggregation.aggregator import Aggregator
from wherry.kube.apiserver.aggregation.remote import FrontProxy
from wherry.kube.apiserver.allocation.pools import first_address
from wherry.kube.apiserver.allocation.repair import Repair
from wherry.kube.apiserver.allocation.services import Allocations
from wherry.kube.apiserver.audit.config import Audit
from wherry.kube.apiserver.audit.log import AuditLog
from wherry.kube.apiserver.authn import MASTERS, discovery, known, published
from wherry.kube.apiserver.authn.assembly import assemble
from wherry.kube.apiserver.authn.config import Authentication
from wherry.kube.apiserver.authn.users import service_account_groups
from wherry.kube.apiserver.authz import AuthorizationOptions
from wherry.kube.apiserver.authz.options import build
from wherry.kube.apiserver.cache import Cache
from wherry.kube.apiserver.chain import Chain
from wherry.kube.apiserver.documents import Documents
from wherry.kube.apiserver.expiry import Expiry
from wherry.kube.apiserver.extensions.definitions import Definitions
from wherry.kube.apiserver.fairness import Fairness
from wherry.kube.apiserver.flow_schemas import DanglingSchemas
from wherry.kube.apiserver.health import Check
from wherry.kube.apiserver.http import Front, tls_context
from wherry.kube.apiserver.local import LocalTransport
from wherry.kube.apiserver.membership import Membership
from wherry.kube.apiserver.metrics import Metrics
from wherry.kube.apiserver.outward import Outward
from wherry.kube.apiserver.proxying.carrier import Carrier
from wherry.kube.apiserver.proxying.places import KubeletClient, Kubelets
from wherry.kube.apiserver.proxying.subresource import Proxies
from wherry.kube.apiserver.registry.backend import Backend
from wherry.kube.apiserver.registry.components import Components
from wherry.kube.apiserver.request import User
from wherry.kube.apiserver.streams import Streams
from wherry.kube.store.types import Store

SELF = known("system:apiserver", (MASTERS,))


_STARTED = (
    "crd-informer-synced",
    "start-system-namespaces-controller",
    "rbac/bootstrap-roles",
    "scheduling/bootstrap-system-priority-classes",
    "priority-and-fairness-config-producer",
    "bootstrap-controller",
    "kube-apiserver-autoregistration",
)
"""What `APIServer.open` has done, by the names of upstream's hooks."""


@dataclass(frozen=True)
class APIServerConfig:
    """What an API server is told.

    ``advertise_address``: where pods reach it; ``listen_host`` None: all addresses. ``tokens`` are
    static bearer tokens. Without ``kubelet_ca`` any kubelet is believed. ``proxy_client_cert`` is
    what aggregated API servers are shown. ``event_ttl`` is how long
    Events are kept, in seconds.
    """

    advertise_address: str
    port: int
    service_cidr: str
    tls_cert: Path
    tls_key: Path
    client_ca: Path | None = None
    kubelet_client_cert: Path | None = None
    kubelet_client_key: Path | None = None
    kubelet_ca: Path | None = None
    proxy_client_cert: Path | None = None
    proxy_client_key: Path | None = None
    listen_host: str | None = None
    tokens: Mapping[str, User] = field(default_factory=dict)
    anonymous: bool = True
    event_ttl: float = 3600.0
    admission: AdmissionOptions = field(default_factory=AdmissionOptions)
    authentication: Authentication = field(default_factory=Authentication)
    authorization: AuthorizationOptions = field(default_factory=AuthorizationOptions)
    audit: Audit | None = None
    encryption: Path | None = None


class APIServer:
    """Serves the Kubernetes API from a store.

    `open` reads the store, after which `transport` works; `serve` opens the network.
    """

    def __init__(self, config: APIServerConfig, store: Store) -> None:
        self._config = config
        if config.encryption is not None:
            from wherry.kube.apiserver import encryption
            from wherry.kube.store.encrypted import EncryptedStore

            store = EncryptedStore(store, encryption.read(config.encryption))
        self._opened = self._closing = False
        self.catalogue = Catalogue()
        self._cache = Cache(store, self.catalogue.served.resources)
        self.catalogue.listen(lambda before, now: self._cache.hold(before.resources, now.resources))
        self._allocations = Allocations(config.service_cidr)
        self._backend = backend = Backend(store, self._cache, self._allocations, self.catalogue)
        identities = assemble(
            config.authentication,
            self._cache,
            tokens=config.tokens,
            anonymous=config.anonymous,
            client_ca=config.client_ca,
        )
        self._identities = backend.identities = identities
        self.components = backend.components = Components(self._cache, self._store_fault)
        self._expiry = Expiry(backend.records(EVENTS), config.event_ttl)
        self._carrier = Carrier()
        self._aggregator = Aggregator(
            self.catalogue,
            self._cache,
            self._carrier,
            FrontProxy(config.proxy_client_cert, config.proxy_client_key),
        )
        metrics = Metrics(self.catalogue, self._cache, self._aggregator.services)
        host = config.advertise_address
        place = f"[{host}]:{config.port}" if ":" in host else f"{host}:{config.port}"
        documents = Documents(
            self.catalogue,
            place,
            checks=(
                Check("ping", lambda: ""),
                Check("log", lambda: ""),
                Check("etcd", self._store_fault),
                Check("etcd-readiness", self._store_fault, ready_only=True),
                Check("informer-sync", self._cache_fault, ready_only=True),
                *(Check(f"poststarthook/{name}", self._start_fault) for name in _STARTED),
                Check("autoregister-completion", self._aggregator.registration_fault),
                Check("shutdown", self._shutdown_fault, ready_only=True),
            ),
            published=discovery.published(
                identities.service_accounts.keys,
                identities.service_accounts.issuer,
                config.authentication.jwks_uri or f"https://{place}{discovery.KEY_SET}",
            ),
            elsewhere=self._aggregator.fetched,
            metrics=metrics,
        )
        authorizer, self._follow_roles = build(config.authorization, self._cache)
        self.authorizer = backend.authorizer = authorizer
        backend.admission = Admission(
            Context(
                self._cache,
                self.catalogue,
                authorizer,
                backend,
                self.transport,
                config.admission.configuration,
            ),
            config.admission,
        )
        self._chain = Chain(authorizer, backend, documents, self._aggregator.front)
        self._audit_log: AuditLog | None = None
        if config.audit is not None:
            self._chain.auditor, self._audit_log = config.audit.open()
        self._dangling = DanglingSchemas(self._cache, self.transport(SELF))
        self._repair = Repair(self._cache, self.transport(SELF), config.service_cidr.split(","))
        self._membership: Membership | None = None
        if not ip_address(config.advertise_address).is_loopback:  # nobody else reaches that
            member = config.advertise_address, config.port
            self._membership = Membership(store, self.transport(SELF), member)
        self._definitions = Definitions(self.catalogue, self._cache, self.transport(SELF))
        self._policy_checks = PolicyChecks(self.catalogue, self._cache, self.transport(SELF))
        kubelets = Kubelets(
            self._cache,
            KubeletClient(config.kubelet_client_cert, config.kubelet_client_key, config.kubelet_ca),
        )
        self._fairness = Fairness(self._cache)
        self._front = Front(
            self._chain,
            identities.authenticator,
            Outward(
                Streams(self._cache, kubelets),
                Proxies(self._cache, kubelets, self._carrier),
                self._aggregator.front,
            ),
            self._fairness,
            metrics,
        )

    async def open(self) -> None:
        """Read the store and make what every cluster has."""
        await self._cache.open()
        self._follow_roles()
        self._definitions.follow()
        self._definitions.start()
        self._policy_checks.follow()
        self._aggregator.follow()
        self._allocations.follow(
            *(self._cache.of(resource) for resource in (SERVICES, IP_ADDRESSES, SERVICE_CIDRS))
        )
        self._expiry.follow(self._cache.of(EVENTS))
        await bootstrap.reconcile(
            self.transport(SELF),
            first_address(self._config.service_cidr.split(",")[0]),
            self._config.service_cidr,
            self._config.port,
            published.config_map(self._config.client_ca, self._config.authentication),
        )
        if self._membership is not None:
            await self._membership.join()
        self._dangling.start()
        self._repair.start()
        self._opened = True
        self._aggregator.start(self.transport(SELF))
        self._fairness.follow()

    def mount(self, namespace: str, service: str, address: tuple[str, int]) -> None:
        """Reach the aggregated server behind that Service at ``address`` as long as there is no
        Service of that name. Call it before `open`."""
        self._aggregator.remotes.mounted[namespace, service] = address

    async def serve(self) -> int:
        """Listen, and return the port. Raises OSError where that is taken."""
        config = self._config
        proxy = config.authentication.request_header
        proxies = proxy.client_ca if proxy else None
        context = tls_context(
            str(config.tls_cert),
            str(config.tls_key),
            [str(path) for path in (config.client_ca, proxies) if path],
        )
        return await self._front.listen(config.listen_host, config.port, context)

    async def close(self) -> None:
        """End what is under way; the store stays open."""
        self._closing = True
        if self._membership is not None:
            await self._membership.leave()
        await self._dangling.close()
        await self._repair.close()
        self._cache.end_watches()
        await self._front.close()
        await self._aggregator.close()
        await self._carrier.close()
        await self._identities.close()
        await self._definitions.close()
        await self._policy_checks.close()
        await self._backend.callouts.close()
        await self._expiry.close()
        await self.authorizer.close()
        await self._cache.close()
        if self._audit_log is not None:
            self._audit_log.close()

    def transport(self, user: User | str) -> LocalTransport:
        """The API in memory, for a user (a name alone is one without groups, or a service account
        in its)."""
        if isinstance(user, str):
            account = split_user_name(user)
            user = known(user, service_account_groups(account[0]) if account else ())
        return LocalTransport(self._chain, user)

    def _start_fault(self) -> str:
        return "" if self._opened else "not finished"

    def _shutdown_fault(self) -> str:
        return "process is shutting down" if self._closing else ""

    def _store_fault(self) -> str:
        return "" if self._cache.following else "the store's watch has ended"

    def _cache_fault(self) -> str:
        return "" if self._cache.revision else "the store has not been read"
