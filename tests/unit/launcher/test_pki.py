"""Everyone gets a certificate that the authority signed, and a kubeconfig that carries it."""

from __future__ import annotations

import base64
import json
import stat
from pathlib import Path

import pytest
from cryptography import x509

from wherry.launcher import instance as instances
from wherry.launcher import pki
from wherry.launcher.instance import Instance


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Instance:
    monkeypatch.setattr(instances, "RUN_ROOT", tmp_path / "run")
    made = instances.open_or_create(tmp_path / "data")
    pki.ensure(made)
    return made


def test_the_server_certificate_names_the_service_and_the_machine(instance: Instance) -> None:
    certificate = x509.load_pem_x509_certificate((instance.pki / "apiserver.crt").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "kubernetes.default.svc" in names.get_values_for_type(x509.DNSName)
    addresses = {str(address) for address in names.get_values_for_type(x509.IPAddress)}
    assert {"127.0.0.1", instance.service_range.replace(".0/16", ".1")} <= addresses


def test_every_certificate_is_signed_by_the_authority(instance: Instance) -> None:
    authority = x509.load_pem_x509_certificate((instance.pki / "ca.crt").read_bytes())
    for path in instance.pki.glob("*.crt"):
        x509.load_pem_x509_certificate(path.read_bytes()).verify_directly_issued_by(authority)


def test_keys_and_kubeconfigs_are_for_the_owner_alone(instance: Instance) -> None:
    for path in [*instance.pki.glob("*.key"), *instance.data_dir.glob("*.conf")]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_the_administrators_kubeconfig_is_of_group_masters(instance: Instance) -> None:
    config = json.loads(instance.kubeconfig.read_text())
    pem = base64.b64decode(config["users"][0]["user"]["client-certificate-data"])
    subject = x509.load_pem_x509_certificate(pem).subject.rfc4514_string()
    assert subject == "CN=kubernetes-admin,O=system:masters"


def test_what_is_there_is_kept(instance: Instance) -> None:
    before = instance.kubeconfig.read_bytes()
    pki.ensure(instance)
    assert instance.kubeconfig.read_bytes() == before
