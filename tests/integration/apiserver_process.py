"""An API server of one's own: a process, its certificates, and kubectl pointed at it."""

from __future__ import annotations

import base64
import datetime
import ipaddress
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import direct
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ports import free_port

SOURCE = Path(__file__).parents[2] / "src"


class Authority:
    """A certificate authority that lives as long as a test."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name("test-ca")
        self._write("ca", self._sign(self._name, self._key, authority=True), self._key)

    @property
    def certificate(self) -> Path:
        return self.directory / "ca.crt"

    def issue(
        self, stem: str, user: str, *groups: str, hosts: tuple[str, ...] = ()
    ) -> tuple[Path, Path]:
        """A certificate for a user or a server on loopback, and by the names of ``hosts``: its
        paths, and its key's."""
        key = ec.generate_private_key(ec.SECP256R1())
        self._write(stem, self._sign(_name(user, *groups), key, hosts=hosts), key)
        return self.directory / f"{stem}.crt", self.directory / f"{stem}.key"

    def _sign(
        self,
        name: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        *,
        authority: bool = False,
        hosts: tuple[str, ...] = (),
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        names = [
            *map(x509.DNSName, ("localhost", *hosts)),
            x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
        ]
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .sign(self._key, hashes.SHA256())
        )

    def _write(
        self, stem: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey
    ) -> None:
        pem = serialization.Encoding.PEM
        (self.directory / f"{stem}.crt").write_bytes(certificate.public_bytes(pem))
        (self.directory / f"{stem}.key").write_bytes(
            key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )


def _name(common: str, *organizations: str) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, o) for o in organizations]
    return x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, common)])


@dataclass(frozen=True)
class Finished:
    """How kubectl ended."""

    code: int
    out: str
    err: str


class Server:
    """``python -m wherry.kube.apiserver`` on a free port; keeps its data and port over restarts.

    The port is none that the kernel gives to others while the server is down."""

    def __init__(self, directory: Path, store: str = "sqlite", *arguments: str) -> None:
        self.directory = directory
        self.arguments = arguments
        self.store = store
        self.authority = Authority(directory / "pki")
        self.authority.issue("server", "kube-apiserver")
        self.admin = self.authority.issue("admin", "kubernetes-admin", "system:masters")
        self.port = free_port()
        self.process: subprocess.Popen[str] | None = None
        self.kubeconfigs: dict[str, Path] = {}

    def start(self) -> Server:
        pki = self.authority.directory
        argv = [sys.executable, "-m", "wherry.kube.apiserver", "--data-dir", self.directory]
        argv += ["--store", self.store, "--port", str(self.port), "--client-ca", pki / "ca.crt"]
        argv += ["--tls-cert", pki / "server.crt", "--tls-key", pki / "server.key"]
        argv += ["--kubelet-client-certificate", self.admin[0], "--kubelet-client-key"]
        argv += [self.admin[1], "--kubelet-certificate-authority", pki / "ca.crt"]
        front = self.authority.issue("front-proxy", "front-proxy-client")
        argv += ["--proxy-client-cert-file", front[0], "--proxy-client-key-file", front[1]]
        argv += self.arguments
        self.process = subprocess.Popen(
            [str(argument) for argument in argv],
            stdout=subprocess.PIPE,
            stderr=(self.directory / "log").open("a"),
            env={**os.environ, "PYTHONPATH": str(SOURCE)},
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("listening on "), (self.directory / "log").read_text()
        self.port = int(line.split()[-1])
        return self

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(timeout=60)

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text()

    def kubeconfig(self, user: str = "kubernetes-admin", *groups: str) -> Path:
        """A kubeconfig of that user."""
        path = self.directory / f"{user.replace(':', '-')}.conf"
        if path not in self.kubeconfigs.values():
            stem = "admin" if user == "kubernetes-admin" else user.replace(":", "-")
            if stem != "admin":
                self.authority.issue(stem, user, *groups)
            pki = self.authority.directory
            path.write_text(
                json.dumps(
                    _kubeconfig(self.port, pki / "ca.crt", pki / f"{stem}.crt", pki / f"{stem}.key")
                )
            )
            self.kubeconfigs[user] = path
        return path

    def kubectl(
        self,
        *arguments: str,
        ok: bool = True,
        stdin: str | None = None,
        kubeconfig: Path | None = None,
        program: str = "kubectl",
    ) -> Finished:
        if "wait" in arguments and not any(each.startswith("--timeout") for each in arguments):
            arguments = (*arguments, "--timeout=110s")  # its own 30 s are for a quiet machine
        done = subprocess.run(
            [program, *arguments],
            env={
                **os.environ,
                "KUBECONFIG": str(kubeconfig or self.kubeconfig()),
                "HOME": str(self.directory),  # discovery is cached there
            },
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            timeout=300,  # for what hangs, not for what is slow
            check=False,
        )
        if ok:
            assert done.returncode == 0, f"kubectl {arguments}:\n{done.stdout}{done.stderr}"
        return Finished(done.returncode, done.stdout, done.stderr)

    def get(self, *arguments: str) -> Any:
        found = direct.read(self.kubeconfig(), arguments)
        return found or json.loads(self.kubectl("get", *arguments, "-o", "json").out)


def _kubeconfig(port: int, authority: Path, certificate: Path, key: Path) -> dict[str, Any]:
    def encoded(path: Path) -> str:
        return base64.b64encode(path.read_bytes()).decode()

    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": "c",
                "cluster": {
                    "server": f"https://127.0.0.1:{port}",
                    "certificate-authority-data": encoded(authority),
                },
            }
        ],
        "users": [
            {
                "name": "u",
                "user": {
                    "client-certificate-data": encoded(certificate),
                    "client-key-data": encoded(key),
                },
            }
        ],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "c",
    }
