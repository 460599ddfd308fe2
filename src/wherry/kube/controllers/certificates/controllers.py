"""The three controllers of CertificateSigningRequests.

Upstream: pkg/controller/certificates.
"""

from __future__ import annotations

import base64
from datetime import datetime, timedelta

from wherry.kube.api import meta
from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import CERTIFICATE_SIGNING_REQUESTS as REQUESTS
from wherry.kube.api.resources import NODES
from wherry.kube.client.transport import Object
from wherry.kube.controllers.base import Context, Controller, now
from wherry.kube.controllers.certificates import requests
from wherry.kube.controllers.certificates.requests import Unfit
from wherry.kube.controllers.certificates.signing import Authority

_REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
_SETTLED = ("NotFound", "Conflict")


class _RequestController(Controller):
    """Keys are requests."""

    workers = 1

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.requests = self.watch(REQUESTS)
        self.requests.add_handlers(on_add=self.enqueue, on_update=self.enqueue_update)

    async def sync(self, key: str) -> None:
        csr = self.requests.get(None, key)
        if csr is None or meta.is_deleting(csr):
            return
        try:
            await self.handle(csr)
        except StatusError as error:
            if error.reason not in _SETTLED:  # what it is now, is looked at next
                raise

    async def handle(self, csr: Object) -> None:
        raise NotImplementedError


def questions(csr: Object, node: Object | None = None) -> list[tuple[str, str]]:
    """The rights of which one is enough to have the request approved: the subresource that whoever
    asked may create, and what it then is. None where it is not for us to decide. ``node`` is the
    Node whose server's certificate it is about."""
    return [] if requests.is_decided(csr) else requests.recognised(csr, node)


def approved(csr: Object, what: str) -> Object:
    """The status with which the request is approved."""
    condition = {
        "type": "Approved",
        "status": "True",
        "reason": "AutoApproved",
        "message": f"Auto approving {what} after SubjectAccessReview.",
    }
    status = csr.get("status") or {}
    return {**status, "conditions": [*(status.get("conditions") or ()), condition]}


def answered(csr: Object, authority: Authority | None, now: datetime) -> Object | None:
    """The status with the certificate, or with why there is none; None where nothing is to be done.

    Raises:
        OSError, ValueError: the authority's files cannot be read.
    """
    status, held = csr.get("status") or {}, requests.conditions(csr)
    signer = requests.SIGNERS.get(csr["spec"].get("signerName", ""))
    if authority is None or signer is None or status.get("certificate"):
        return None
    if "Approved" not in held or {"Denied", "Failed"} & set(held):
        return None
    spec = csr["spec"]
    usages = spec.get("usages") or []
    try:
        request = requests.parse(csr)
        signer(request, frozenset(usages))
        pem = authority.sign(request, usages, spec.get("expirationSeconds"), now)
    except Unfit as error:
        failed = {
            "type": "Failed",
            "status": "True",
            "reason": "SignerValidationFailure",
            "message": str(error),
            "lastUpdateTime": meta.format_time(now),
        }
        return {**status, "conditions": [*(status.get("conditions") or ()), failed]}
    return {**status, "certificate": base64.b64encode(pem).decode()}


class ApprovingController(_RequestController):
    """Approves what kubelets and nodes' proxies ask for, if whoever asked may have it.

    Upstream approves a kubelet's client certificate alone. What a node needs besides, it gets by
    rights that ``wherry token create`` gives: a certificate for the kubelet's server, for the
    addresses that the node has, and the proxy's as a client.
    """

    name = "certificatesigningrequest-approving-controller"
    account = "certificate-controller"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.nodes = self.watch(NODES)
        self.nodes.add_handlers(on_add=self._node, on_update=lambda _, new: self._node(new))

    def _node(self, node: Object) -> None:
        """A request for its server may have come before it."""
        user = f"system:node:{meta.name(node)}"
        for csr in self.requests.list():
            spec = csr["spec"]
            waits = spec.get("username") == user and not requests.is_decided(csr)
            if waits and spec.get("signerName") == requests.KUBELET_SERVING:
                self.enqueue(csr)

    async def handle(self, csr: Object) -> None:
        name = requests.serving_node(csr)
        node = None if name is None else self.nodes.get(None, name)
        for subresource, what in questions(csr, node):
            if await self._may(csr["spec"], subresource):
                written = await self.client.update(
                    REQUESTS, {**csr, "status": approved(csr, what)}, subresource="approval"
                )
                await self.seen(REQUESTS, written)
                return

    async def _may(self, spec: Object, subresource: str) -> bool:
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": spec.get("username", ""),
                "uid": spec.get("uid", ""),
                "groups": spec.get("groups") or [],
                "extra": spec.get("extra") or {},
                "resourceAttributes": {
                    "group": REQUESTS.group,
                    "resource": REQUESTS.plural,
                    "verb": "create",
                    "subresource": subresource,
                    "version": "*",
                },
            },
        }
        answer = await self.client.transport.request("POST", _REVIEWS, body=review)
        return bool((answer.get("status") or {}).get("allowed"))


class SigningController(_RequestController):
    """Signs what was approved, for the signers that are ours."""

    name = "certificatesigningrequest-signing-controller"
    account = "certificate-controller"

    async def handle(self, csr: Object) -> None:
        status = answered(csr, self.options.authority, now())
        if status is not None:
            written = await self.client.update_status(REQUESTS, {**csr, "status": status})
            await self.seen(REQUESTS, written)


_KEPT = timedelta(hours=1)  # a request that was decided
_PENDING = timedelta(hours=24)


def leaves_at(csr: Object) -> datetime:
    """When a request has had its time: an hour after it was issued, denied or has failed, a day
    after it was made where nothing happened, and not after the end of its certificate."""
    made = meta.creation_time(csr)
    assert made is not None
    held = requests.conditions(csr)
    certificate = (csr.get("status") or {}).get("certificate")
    ends = [made + _PENDING] if not held else []
    for kind, condition in held.items():
        if kind in ("Denied", "Failed") or (kind == "Approved" and certificate):
            when = condition.get("lastUpdateTime") or condition.get("lastTransitionTime")
            ends.append((meta.parse_time(when) if when else made) + _KEPT)
        elif kind == "Approved":
            ends.append(made + _PENDING)
    if certificate:
        ends += _certificate_end(certificate)
    return min(ends, default=made + _PENDING)


def _certificate_end(certificate: str) -> list[datetime]:
    from cryptography import x509

    try:
        found = x509.load_pem_x509_certificate(base64.b64decode(certificate))
    except ValueError:
        return []
    return [found.not_valid_after_utc]


class CleaningController(_RequestController):
    """Removes requests that have had their time."""

    name = "certificatesigningrequest-cleaner-controller"
    account = "certificate-controller"

    async def handle(self, csr: Object) -> None:
        left = (leaves_at(csr) - now()).total_seconds()
        if left > 0:
            self.queue.add_after(meta.name(csr), left)
            return
        await self.client.delete(REQUESTS, meta.name(csr), uid=meta.uid(csr))
