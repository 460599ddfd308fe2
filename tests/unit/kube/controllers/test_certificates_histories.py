"""Requests for certificates over random histories: people approve and deny, rights come and go, the
controllers look at old copies, and the clock runs on. Nobody gets a certificate who should not."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_controllers_certificates import KUBELET, request

from wherry.kube.api import meta
from wherry.kube.client.transport import Object
from wherry.kube.controllers.certificates import requests
from wherry.kube.controllers.certificates.controllers import (
    answered,
    approved,
    leaves_at,
    questions,
)
from wherry.kube.controllers.certificates.signing import Authority

START = datetime.now(UTC).replace(microsecond=0)
NODE = "system:node:n1"
PEMS = {
    kind: base64.b64encode(made.public_bytes(serialization.Encoding.PEM)).decode()
    for kind, made in {
        "node": request(NODE),
        "person": request("jane", "dev"),
        "serving": request(NODE, "system:nodes", "n1"),
    }.items()
} | {"broken": base64.b64encode(b"no request at all").decode()}

REQUESTS = st.fixed_dictionaries(
    {
        "request": st.sampled_from(sorted(PEMS)).map(PEMS.__getitem__),
        "signerName": st.sampled_from([*requests.SIGNERS, "example.com/another"]),
        "username": st.sampled_from([NODE, "system:node:n2", "jane"]),
        "usages": st.sampled_from([list(KUBELET), ["client auth"], ["server auth"]]),
        "expirationSeconds": st.sampled_from([600, 7200, 10**9]),
    }
)
ACTS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "approver",
                "approver",
                "signer",
                "signer",
                "cleaner",
                "look",
                "look",
                "approve",
                "deny",
                "grant",
                "withdraw",
                "wait",
            ]
        ),
        st.integers(0, 90),
    ),
    max_size=40,
)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    from wherry.launcher import pki

    home: Path = tmp_path_factory.mktemp("authority")
    pki.Authority(home)
    return Authority(home / "ca.crt", home / "ca.key", days=365)


class History:
    def __init__(self, spec: Object, authority: Authority) -> None:
        self.authority = authority
        metadata = {"name": "r", "creationTimestamp": meta.format_time(START)}
        self.now = START
        self.csr: Object | None = {"metadata": metadata, "spec": spec}
        self.copy = self.csr
        """What the controllers' informer shows."""
        self.rights: set[str] = set()
        self.by_people: set[str] = set()

    # -- actors

    def write(self, seen: Object, status: Object) -> None:
        """As the API server: refused unless nobody wrote since it was seen."""
        if self.csr is not seen:
            return
        before = (seen.get("status") or {}).get("certificate")
        assert before is None or status.get("certificate") == before, "it was made twice"
        self.csr = {**seen, "status": status}
        self.check()

    def decide(self, kind: str) -> None:
        """A person does."""
        if self.csr is None or {"Approved", "Denied"} & requests.conditions(self.csr).keys():
            return
        self.by_people.add(kind)
        when = meta.format_time(self.now)
        condition = {"type": kind, "status": "True", "lastUpdateTime": when}
        status = self.csr.get("status") or {}
        held = [*(status.get("conditions") or ()), condition]
        self.csr = {**self.csr, "status": {**status, "conditions": held}}

    def approver(self) -> None:
        if self.copy is None:
            return
        for right, what in questions(self.copy):
            if right in self.rights:
                spec = self.copy["spec"]
                assert spec["signerName"] == requests.KUBELET_CLIENT
                assert spec["request"] == PEMS["node"]
                assert right != "selfnodeclient" or spec["username"] == NODE
                self.write(self.copy, approved(self.copy, what))
                return

    def signer(self) -> None:
        if self.copy is None:
            return
        status = answered(self.copy, self.authority, self.now)
        if status is not None:
            self.write(self.copy, status)

    def cleaner(self) -> None:
        if self.copy is None or self.csr is None or leaves_at(self.copy) > self.now:
            return
        held = requests.conditions(self.csr)
        age = self.now - START
        assert age >= timedelta(minutes=10), "no certificate ends and nothing is old so soon"
        if not held:
            assert age >= timedelta(hours=24)
        self.csr = None  # what is gone cannot come back to life

    def act(self, what: str, number: int) -> None:
        match what:
            case "approve":
                self.decide("Approved")
            case "deny":
                self.decide("Denied")
            case "grant":
                self.rights.add(("nodeclient", "selfnodeclient")[number % 2])
            case "withdraw":
                self.rights.clear()
            case "wait":
                self.now += timedelta(minutes=number)
            case "look":
                self.copy = self.csr
            case _:
                getattr(self, what)()

    # -- what holds

    def check(self) -> None:
        csr = self.csr
        if csr is None:
            return
        spec, held = csr["spec"], requests.conditions(csr)
        types = [c["type"] for c in csr["status"].get("conditions") or ()]
        assert len(types) == len(set(types)), "each is said once"
        assert not {"Approved", "Denied"} <= held.keys()
        certificate = csr["status"].get("certificate")
        if certificate is None:
            return
        assert "Approved" in held and "Failed" not in held
        assert spec["signerName"] in requests.SIGNERS
        made = x509.load_pem_x509_certificate(base64.b64decode(certificate))
        asked = requests.parse(csr)
        assert made.subject == asked.subject
        assert made.public_key() == asked.public_key()
        lasts = timedelta(seconds=min(spec["expirationSeconds"], 365 * 86400))
        assert made.not_valid_after_utc <= self.now + lasts
        assert not made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(spec=REQUESTS, acts=ACTS)
def test_only_what_was_approved_and_fits_is_signed_and_once(
    authority: Authority, spec: Object, acts: list[tuple[str, int]]
) -> None:
    history = History(spec, authority)
    for what, number in acts:
        history.act(what, number)
        history.check() if history.csr and "status" in history.csr else None
    if history.csr is None:
        return
    for _ in range(3):  # whoever looks again and again comes to an end
        for what in ("look", "approver", "look", "signer", "look"):
            history.act(what, 0)
    settled = history.csr
    assert not questions(settled) or not history.rights & {r for r, _ in questions(settled)}
    assert answered(settled, authority, history.now) is None
    held, status = requests.conditions(settled), settled.get("status") or {}
    if "Denied" in held:
        assert "certificate" not in status and "Failed" not in held
    elif "Approved" in held and spec["signerName"] in requests.SIGNERS:
        assert ("certificate" in status) != ("Failed" in held), "every approval has its answer"
    elif "Approved" not in held:
        assert not status.get("conditions")
    if "Approved" in held and not history.by_people:
        assert spec["signerName"] == requests.KUBELET_CLIENT
    assert leaves_at(settled) <= history.now + timedelta(days=2)
    history.now = max(leaves_at(settled), history.now)
    history.act("cleaner", 0)
    assert history.csr is None, "nothing stays for ever"
