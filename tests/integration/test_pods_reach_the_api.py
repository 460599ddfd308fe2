"""What runs in a pod reaches the API by what it finds there; certificates are signed on request."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import CLIENTS, Instance, eventually
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

KUBECTL = CLIENTS / "kubectl-1.37"
MOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"


def client_pod(name: str, **spec: object) -> str:
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name},
            "spec": {
                "terminationGracePeriodSeconds": 0,
                "containers": [
                    {
                        "name": "c",
                        "image": "hello:1",
                        "command": ["sh", "-c", "trap 'exit 0' TERM; sleep 1000 & wait"],
                        "volumeMounts": [{"name": "tools", "mountPath": "/tools"}],
                    }
                ],
                "volumes": [{"name": "tools", "hostPath": {"path": str(KUBECTL.parent)}}],
                **spec,
            },
        }
    )


def test_a_client_in_a_pod_may_what_its_account_may(cluster: Instance, namespace: str) -> None:
    if not KUBECTL.exists():
        pytest.skip("kubectl 1.37 is not here")
    run = lambda *words, **more: cluster.kubectl("-n", namespace, *words, **more)  # noqa: E731
    run("apply", "-f", "-", stdin=client_pod("client"))
    run("wait", "pod/client", "--for=condition=Ready")
    inside = lambda *words, ok=True: run("exec", "client", "--", *words, ok=ok)  # noqa: E731
    assert inside("cat", f"{MOUNT}/namespace").out == namespace
    assert "BEGIN CERTIFICATE" in inside("cat", f"{MOUNT}/ca.crt").out

    refused = inside("/tools/kubectl-1.37", "get", "pods", ok=False)
    user = f"system:serviceaccount:{namespace}:default"
    assert f'User "{user}" cannot list resource "pods"' in refused.err
    run("create", "role", "reader", "--verb=get,list", "--resource=pods")
    run("create", "rolebinding", "r", "--role=reader", f"--serviceaccount={namespace}:default")
    assert "client" in inside("/tools/kubectl-1.37", "get", "pods").out
    assert inside("/tools/kubectl-1.37", "get", "secrets", ok=False).code != 0

    token = inside("cat", f"{MOUNT}/token").out
    run("delete", "pod", "client", "--now")
    again = _with_token(cluster, token, "get", "pods", "-n", namespace)
    assert again.returncode != 0 and "Unauthorized" in again.stderr + again.stdout


def test_a_pod_may_do_without(cluster: Instance, namespace: str) -> None:
    pod = client_pod("bare", automountServiceAccountToken=False)
    cluster.kubectl("-n", namespace, "apply", "-f", "-", stdin=pod)
    made = cluster.get("pod", "bare", "-n", namespace)
    assert [v["name"] for v in made["spec"]["volumes"]] == ["tools"]
    missing = client_pod("none", serviceAccountName="nobody")
    refused = cluster.kubectl("-n", namespace, "apply", "-f", "-", stdin=missing, ok=False)
    assert (
        f"error looking up service account {namespace}/nobody: "
        'serviceaccount "nobody" not found' in refused.err
    )


def test_a_secret_of_the_type_is_filled_with_a_token(cluster: Instance, namespace: str) -> None:
    # Controllers give a new namespace its account; a Secret for nobody's token is removed.
    account = ("-n", namespace, "get", "serviceaccount", "default", "--ignore-not-found")
    eventually(lambda: cluster.kubectl(*account).out)
    annotations = {"kubernetes.io/service-account.name": "default"}
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "token", "annotations": annotations},
        "type": "kubernetes.io/service-account-token",
    }
    cluster.kubectl("-n", namespace, "apply", "-f", "-", stdin=json.dumps(secret))
    data = eventually(lambda: cluster.get("secret", "token", "-n", namespace).get("data"))
    assert set(data) == {"token", "ca.crt", "namespace"}
    token = base64.b64decode(data["token"]).decode()
    shown = _with_token(cluster, token, "auth", "whoami", "-o", "json")
    username = json.loads(shown.stdout)["status"]["userInfo"]["username"]
    assert username == f"system:serviceaccount:{namespace}:default"


def test_a_certificate_is_asked_for_approved_and_good(
    cluster: Instance, namespace: str, tmp_path: Path
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())

    def ask(name: str, organization: str) -> str:
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization),
                x509.NameAttribute(NameOID.COMMON_NAME, "jane"),
            ]
        )
        request = x509.CertificateSigningRequestBuilder().subject_name(subject)
        pem = request.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        return json.dumps(
            {
                "apiVersion": "certificates.k8s.io/v1",
                "kind": "CertificateSigningRequest",
                "metadata": {"name": name},
                "spec": {
                    "request": base64.b64encode(pem).decode(),
                    "signerName": "kubernetes.io/kube-apiserver-client",
                    "expirationSeconds": 3600,
                    "usages": ["client auth"],
                },
            }
        )

    name = f"jane-{namespace}"
    refused = cluster.kubectl("create", "-f", "-", stdin=ask("x", "system:masters"), ok=False)
    assert "signer with system:masters group is not allowed" in refused.err
    cluster.kubectl("create", "-f", "-", stdin=ask(name, "dev"))
    assert cluster.kubectl("get", "csr", name).out.split()[-1] == "Pending"
    cluster.kubectl("certificate", "approve", name)
    pem = eventually(lambda: cluster.get("csr", name)["status"].get("certificate"))
    assert cluster.kubectl("get", "csr", name).out.split()[-1] == "Approved,Issued"

    (tmp_path / "c.crt").write_bytes(base64.b64decode(pem))
    (tmp_path / "c.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    credentials = (f"--client-certificate={tmp_path}/c.crt", f"--client-key={tmp_path}/c.key")
    shown = _bare(cluster, *credentials, "auth", "whoami", "-o", "json")
    info = json.loads(shown.stdout)["status"]["userInfo"]
    assert (info["username"], info["groups"]) == ("jane", ["dev", "system:authenticated"])
    cluster.kubectl("delete", "csr", name)


def _with_token(cluster: Instance, token: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return _bare(cluster, f"--token={token}", *arguments)


def _bare(cluster: Instance, *arguments: str) -> subprocess.CompletedProcess[str]:
    """kubectl with these credentials alone."""
    config = json.loads(Path(cluster.environment["KUBECONFIG"]).read_text())
    server = config["clusters"][0]["cluster"]["server"]
    program = str(KUBECTL) if KUBECTL.exists() else shutil.which("kubectl") or "kubectl"
    authority = f"--certificate-authority={cluster.data_dir / 'pki' / 'ca.crt'}"
    return subprocess.run(
        [program, "--kubeconfig=/dev/null", f"--server={server}", authority, *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_the_python_client_finds_the_cluster_from_inside(
    cluster: Instance, namespace: str, tmp_path: Path
) -> None:
    """`load_incluster_config`, with what a pod would find, by the address a pod would use."""
    kubernetes = pytest.importorskip("kubernetes")
    from kubernetes.config.incluster_config import InClusterConfigLoader

    run = lambda *words: cluster.kubectl("-n", namespace, *words).out  # noqa: E731
    run("create", "role", "reader", "--verb=get,list", "--resource=configmaps")
    run("create", "rolebinding", "r", "--role=reader", f"--serviceaccount={namespace}:default")
    # Controllers give a new namespace its account and the authority's certificate.
    eventually(lambda: run("get", "serviceaccount", "default", "--ignore-not-found"))
    (tmp_path / "token").write_text(run("create", "token", "default").strip())
    where = ("configmap", "kube-root-ca.crt", "-o", r"jsonpath={.data.ca\.crt}")
    authority = eventually(lambda: run("get", *where, "--ignore-not-found"))
    (tmp_path / "ca.crt").write_text(authority)
    address = cluster.get("service", "kubernetes", "-n", "default")["spec"]["clusterIP"]
    loader = InClusterConfigLoader(
        token_filename=str(tmp_path / "token"),
        cert_filename=str(tmp_path / "ca.crt"),
        environ={"KUBERNETES_SERVICE_HOST": address, "KUBERNETES_SERVICE_PORT": "443"},
    )
    configuration = kubernetes.client.Configuration()
    loader.load_and_set(configuration)
    core = kubernetes.client.CoreV1Api(kubernetes.client.ApiClient(configuration))
    names = [each.metadata.name for each in core.list_namespaced_config_map(namespace).items]
    assert "kube-root-ca.crt" in names
    with pytest.raises(kubernetes.client.ApiException) as failure:
        core.list_namespaced_secret(namespace)
    assert failure.value.status == 403
