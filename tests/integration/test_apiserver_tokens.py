"""Tokens, audit and encryption at a real API server, by its real clients."""

from __future__ import annotations

import base64
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from apiserver_process import Finished, Server
from cryptography.hazmat.primitives.asymmetric import ec

POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "Metadata", "resources": [{"resources": ["secrets", "serviceaccounts/token"]}]},
        {"level": "RequestResponse", "resources": [{"resources": ["configmaps"]}]},
    ],
}
ENCRYPTION = {
    "apiVersion": "apiserver.config.k8s.io/v1",
    "kind": "EncryptionConfiguration",
    "resources": [
        {
            "resources": ["secrets"],
            "providers": [
                {
                    "aesgcm": {
                        "keys": [
                            {"name": "k1", "secret": base64.b64encode(bytes(range(32))).decode()}
                        ]
                    }
                },
                {"identity": {}},
            ],
        }
    ],
}
BOOTSTRAP = "abcdef.0123456789abcdef"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("tokens")
    (directory / "policy.yaml").write_text(json.dumps(POLICY))
    (directory / "encryption.yaml").write_text(json.dumps(ENCRYPTION))
    (directory / "tokens.csv").write_text('letmein,alice,7,"dev,ops"\n')
    running = Server(
        directory,
        "sqlite",
        f"--token-auth-file={directory / 'tokens.csv'}",
        f"--audit-policy-file={directory / 'policy.yaml'}",
        f"--audit-log-path={directory / 'audit.log'}",
        f"--encryption-provider-config={directory / 'encryption.yaml'}",
        f"--requestheader-client-ca-file={directory / 'pki' / 'ca.crt'}",
        "--requestheader-allowed-names=front-proxy-client",
    ).start()
    running.kubectl("create", "serviceaccount", "robot")
    yield running
    running.stop()


def as_token(server: Server, token: str, *arguments: str, ok: bool = True) -> Finished:
    """kubectl with nothing but a token."""
    path = server.directory / "token.conf"
    config = json.loads(server.kubeconfig().read_text())
    config["users"] = [{"name": "u", "user": {"token": token}}]
    path.write_text(json.dumps(config))
    return server.kubectl(*arguments, ok=ok, kubeconfig=path)


def ask(
    server: Server, path: str, cert: tuple[Path, Path] | None = None, **headers: str
) -> tuple[int, Any, dict[str, str]]:
    context = ssl.create_default_context(cafile=str(server.authority.certificate))
    if cert is not None:
        context.load_cert_chain(*cert)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(f"https://127.0.0.1:{server.port}{path}", headers=named)
    try:
        with urllib.request.urlopen(request, context=context, timeout=60) as answer:
            return answer.status, json.load(answer), dict(answer.headers)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error), dict(error.headers)


def whoami(server: Server, token: str) -> dict[str, Any]:
    out = as_token(server, token, "create", "--raw", WHOAMI, "-f", str(_review(server))).out
    return json.loads(out)["status"]["userInfo"]


WHOAMI = "/apis/authentication.k8s.io/v1/selfsubjectreviews"


def _review(server: Server) -> Path:
    path = server.directory / "review.json"
    path.write_text(
        json.dumps({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"})
    )
    return path


def test_kubectl_makes_a_token_that_is_good_for_what_was_granted(server: Server) -> None:
    token = server.kubectl("create", "token", "robot", "--duration=20m").out.strip()
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims["exp"] - claims["iat"] == 1200
    refused = as_token(server, token, "get", "configmaps", ok=False)
    assert (
        'User "system:serviceaccount:default:robot" cannot list resource "configmaps"'
        in refused.err
    )
    server.kubectl(
        *("create", "role", "reader", "--verb=get,list", "--resource=configmaps"),
    )
    server.kubectl(
        *("create", "rolebinding", "robot", "--role=reader", "--serviceaccount=default:robot")
    )
    as_token(server, token, "get", "configmaps")
    assert as_token(server, token, "get", "secrets", ok=False).code != 0
    short = server.kubectl("create", "token", "robot", "--duration=5m", ok=False)
    assert "may not specify a duration less than 10 minutes" in short.err


def test_a_token_may_be_bound_and_for_others(server: Server) -> None:
    server.kubectl("create", "secret", "generic", "bound")
    token = server.kubectl(
        *("create", "token", "robot", "--bound-object-kind=Secret", "--bound-object-name=bound")
    ).out.strip()
    assert whoami(server, token)["username"] == "system:serviceaccount:default:robot"
    server.kubectl("delete", "secret", "bound")
    assert ask(server, "/api/v1/pods", Authorization=f"Bearer {token}")[0] == 401
    other = server.kubectl("create", "token", "robot", "--audience=vault").out.strip()
    assert ask(server, "/api/v1/pods", Authorization=f"Bearer {other}")[0] == 401


def test_what_is_forged_or_over_is_nobody(server: Server) -> None:
    token = server.kubectl("create", "token", "robot").out.strip()
    claims = jwt.decode(token, options={"verify_signature": False})
    head, body, signature = token.split(".")
    key = ec.generate_private_key(ec.SECP256R1())
    none = base64.urlsafe_b64encode(b'{"alg":"none"}').rstrip(b"=").decode()
    for forged in (
        "nonsense",
        f"{head}.{body}.",
        f"{none}.{body}.",
        f"{none}.{body}.{signature}",
        f"{head}.{body}.{signature[:-4]}AAAA",
        jwt.encode(claims, key, "ES256", {"kid": jwt.get_unverified_header(token)["kid"]}),
        jwt.encode(claims, "x" * 32, "HS256"),
    ):
        code, status, _ = ask(server, "/api/v1/pods", Authorization=f"Bearer {forged}")
        assert (code, status["reason"]) == (401, "Unauthorized"), forged
        assert status["message"] == "Unauthorized"
    assert body not in server.log and signature not in server.log
    assert ask(server, "/version", Authorization=f"Bearer {token}")[0] == 200


def test_others_can_judge_the_tokens_by_themselves(server: Server) -> None:
    token = server.kubectl("create", "token", "robot", "--audience=vault").out.strip()
    found = json.loads(server.kubectl("get", "--raw", "/.well-known/openid-configuration").out)
    keys = json.loads(server.kubectl("get", "--raw", "/openid/v1/jwks").out)["keys"]
    kid = jwt.get_unverified_header(token)["kid"]
    (key,) = [jwt.PyJWK(each) for each in keys if each["kid"] == kid]
    claims = jwt.decode(
        token,
        key.key,
        algorithms=found["id_token_signing_alg_values_supported"],
        audience="vault",
        issuer=found["issuer"],
    )
    assert claims["sub"] == "system:serviceaccount:default:robot"


def test_tokens_outlive_the_server(server: Server) -> None:
    token = server.kubectl("create", "token", "robot").out.strip()
    server.stop()
    server.start()
    assert whoami(server, token)["username"] == "system:serviceaccount:default:robot"
    assert (server.directory / "sa.key").stat().st_mode & 0o777 == 0o600


def test_static_and_bootstrap_tokens(server: Server) -> None:
    alice = whoami(server, "letmein")
    assert alice["username"] == "alice" and alice["groups"] == ["dev", "ops", AUTHENTICATED]
    id, _, secret = BOOTSTRAP.partition(".")
    server.kubectl(
        *("create", "secret", "generic", f"bootstrap-token-{id}", "-n", "kube-system"),
        "--type=bootstrap.kubernetes.io/token",
        f"--from-literal=token-id={id}",
        f"--from-literal=token-secret={secret}",
        "--from-literal=usage-bootstrap-authentication=true",
    )
    found = whoami(server, BOOTSTRAP)
    assert found["username"] == "system:bootstrap:abcdef"
    assert found["groups"] == ["system:bootstrappers", AUTHENTICATED]


AUTHENTICATED = "system:authenticated"


def test_only_a_front_proxy_speaks_for_others(server: Server) -> None:
    headers = {"X_Remote_User": "alice", "X_Remote_Group": "system:masters"}
    pki = server.authority.directory
    proxy = (pki / "front-proxy.crt", pki / "front-proxy.key")
    assert ask(server, "/api/v1/nodes", proxy, **headers)[0] == 200
    eve = server.authority.issue("eve", "eve")
    assert ask(server, "/api/v1/nodes", eve, **headers)[0] == 403
    assert ask(server, "/api/v1/nodes", None, **headers)[0] == 403
    data = server.get("configmap", "extension-apiserver-authentication", "-n", "kube-system")
    assert json.loads(data["data"]["requestheader-allowed-names"]) == ["front-proxy-client"]


def test_the_audit_log_tells_who_did_what(server: Server) -> None:
    log = server.directory / "audit.log"
    server.kubectl("create", "configmap", "told", "--from-literal=a=1", "--as=jane", ok=False)
    server.kubectl("create", "configmap", "told", "--from-literal=a=1")
    server.kubectl("create", "secret", "generic", "quiet", "--from-literal=p=hunter2")
    events = [json.loads(line) for line in log.read_text().splitlines()]
    made = [
        e
        for e in events
        if e["verb"] == "create"
        and e["objectRef"]["resource"] == "configmaps"
        and e["userAgent"].startswith("kubectl")
    ]
    refused, created = made
    assert created["objectRef"]["name"] == "told"
    assert refused["impersonatedUser"]["username"] == "jane"
    assert refused["annotations"]["authorization.k8s.io/decision"] == "forbid"
    assert refused["responseStatus"]["code"] == 403
    assert created["user"]["username"] == "kubernetes-admin"
    assert created["requestObject"]["data"] == {"a": "1"}
    assert created["responseStatus"]["code"] == 201
    assert "hunter2" not in log.read_text()
    assert base64.b64encode(b"hunter2").decode() not in log.read_text()
    assert any(e["objectRef"].get("subresource") == "token" for e in events)
    _, _, headers = ask(server, "/api/v1/configmaps", server.admin, Audit_ID="my-own-id")
    assert headers["Audit-Id"] == "my-own-id"
    assert '"auditID":"my-own-id"' in log.read_text()
    assert ask(server, "/api/v1/configmaps", Authorization="Bearer no")[0] == 401
    last = json.loads(log.read_text().splitlines()[-1])
    assert last["responseStatus"]["code"] == 401 and last["user"] == {}


def test_secrets_lie_encrypted_on_the_disk(server: Server) -> None:
    server.kubectl("create", "secret", "generic", "hidden", "--from-literal=p=hunter2-on-disk")
    server.kubectl("create", "configmap", "open", "--from-literal=p=plain-on-disk")
    server.stop()
    disk = b"".join(path.read_bytes() for path in server.directory.glob("state.db*"))
    encoded = base64.b64encode(b"hunter2-on-disk")
    assert b"k8s:enc:aesgcm:v1:k1:" in disk and b"plain-on-disk" in disk
    assert encoded not in disk and b"hunter2-on-disk" not in disk
    server.start()
    secret = server.get("secret", "hidden")
    assert base64.b64decode(secret["data"]["p"]) == b"hunter2-on-disk"
