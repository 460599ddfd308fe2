"""Who may do what, as people find out: kubectl of users with few rights, on a server alone."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from apiserver_process import Finished, Server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("access")).start()
    yield running
    assert running.stop() == 0
    assert "Traceback" not in running.log


def as_bob(server: Server, *arguments: str, ok: bool = True) -> Finished:
    return server.kubectl(*arguments, ok=ok, kubeconfig=server.kubeconfig("bob", "dev"))


def test_a_role_is_made_and_bound_and_holds(server: Server) -> None:
    server.kubectl("create", "configmap", "seen", "--from-literal=a=b")
    refused = as_bob(server, "get", "configmap", "seen", ok=False)
    assert refused.err == (
        'Error from server (Forbidden): configmaps "seen" is forbidden: User "bob" cannot get '
        'resource "configmaps" in API group "" in the namespace "default"\n'
    )
    server.kubectl("create", "role", "reader", "--verb=get,list", "--resource=configmaps")
    server.kubectl("create", "rolebinding", "reader", "--role=reader", "--group=dev")
    assert "seen" in as_bob(server, "get", "configmaps").out
    assert as_bob(server, "get", "configmaps", "-A", ok=False).code == 1
    server.kubectl("create", "clusterrole", "everywhere", "--verb=list", "--resource=configmaps")
    server.kubectl("create", "clusterrolebinding", "bob", "--clusterrole=everywhere", "--user=bob")
    as_bob(server, "get", "configmaps", "-A")
    server.kubectl("delete", "clusterrolebinding", "bob")
    assert as_bob(server, "get", "configmaps", "-A", ok=False).code == 1


def test_can_i_and_who_am_i(server: Server) -> None:
    server.kubectl("create", "role", "lister", "--verb=list", "--resource=services")
    server.kubectl("create", "rolebinding", "lister", "--role=lister", "--user=bob")
    assert as_bob(server, "auth", "can-i", "list", "services").out == "yes\n"
    no = as_bob(server, "auth", "can-i", "delete", "nodes", ok=False)
    assert (no.code, no.out) == (1, "no\n")
    listed = as_bob(server, "auth", "can-i", "--list").out
    assert "selfsubjectreviews.authentication.k8s.io" in listed
    assert any(line.split() == ["services", "[]", "[]", "[list]"] for line in listed.splitlines())
    assert server.kubectl("auth", "can-i", "*", "*", "-A").out == "yes\n"
    asked = ("auth", "can-i", "list", "services", "--as=bob")
    assert server.kubectl(*asked).out == "yes\n"
    assert server.kubectl(*asked, "--as=eve", ok=False).out == "no\n"
    me = json.loads(as_bob(server, "auth", "whoami", "-o", "json").out)
    assert me["status"]["userInfo"]["username"] == "bob"
    assert me["status"]["userInfo"]["groups"] == ["dev", "system:authenticated"]


def test_impersonation_is_a_right(server: Server) -> None:
    refused = as_bob(server, "get", "pods", "--as=eve", "--as-group=ops", ok=False)
    assert (
        'users "eve" is forbidden: User "bob" cannot impersonate resource "users" in API group "" '
        "at the cluster scope"
    ) in refused.err
    made = ("create", "clusterrole", "actor", "--verb=impersonate", "--resource=users,groups")
    server.kubectl(*made)
    server.kubectl("create", "clusterrolebinding", "actor", "--clusterrole=actor", "--user=bob")
    who = ("auth", "whoami", "-o", "json", "--as=eve", "--as-group=ops")
    me = json.loads(as_bob(server, *who).out)["status"]["userInfo"]
    assert (me["username"], me["groups"]) == ("eve", ["ops", "system:authenticated"])
    refused = as_bob(server, "get", "pods", "--as=eve", "--as-uid=7", ok=False)
    assert 'uids.authentication.k8s.io "7" is forbidden' in refused.err
    robot = "--as=system:serviceaccount:default:robot"
    refused = as_bob(server, "get", "pods", robot, ok=False)
    assert 'serviceaccounts "robot" is forbidden' in refused.err
    me = json.loads(server.kubectl("auth", "whoami", "-o", "json", robot).out)
    assert "system:serviceaccounts:default" in me["status"]["userInfo"]["groups"]


def test_nobody_gives_what_he_does_not_have(server: Server) -> None:
    server.kubectl(
        "create",
        "role",
        "granter",
        "--verb=create,get",
        "--resource=roles.rbac.authorization.k8s.io,rolebindings.rbac.authorization.k8s.io",
    )
    server.kubectl("create", "rolebinding", "granter", "--role=granter", "--user=bob")
    refused = as_bob(
        server, "create", "role", "more", "--verb=get,list", "--resource=secrets", ok=False
    )
    assert refused.code == 1
    assert (
        'roles.rbac.authorization.k8s.io "more" is forbidden: user "bob" (groups=["dev" '
        '"system:authenticated"]) is attempting to grant RBAC permissions not currently held:\n'
        '{APIGroups:[""], Resources:["secrets"], Verbs:["get" "list"]}'
    ) in refused.err
    bind = ("create", "rolebinding", "more", "--clusterrole=cluster-admin", "--user=bob")
    assert "is attempting to grant RBAC permissions" in as_bob(server, *bind, ok=False).err


ROLES = """
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reconciled, namespace: default}
rules:
- {apiGroups: [""], resources: [pods], verbs: [get]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: reconciled, namespace: default}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: reconciled}
subjects:
- {apiGroup: rbac.authorization.k8s.io, kind: User, name: zoe}
"""


def test_kubectl_reconciles_roles(server: Server) -> None:
    done = server.kubectl("auth", "reconcile", "-f", "-", stdin=ROLES).out
    assert "role.rbac.authorization.k8s.io/reconciled reconciled" in done
    wider = ROLES.replace("verbs: [get]", "verbs: [list]")
    server.kubectl("auth", "reconcile", "-f", "-", stdin=wider)
    rules = server.get("role", "reconciled")["rules"]
    assert sorted(verb for rule in rules for verb in rule["verbs"]) == ["get", "list"]
    assert server.kubectl("auth", "can-i", "list", "pods", "--as=zoe").out == "yes\n"


def test_a_binding_keeps_its_role(server: Server) -> None:
    server.kubectl("create", "rolebinding", "fixed", "--clusterrole=view", "--user=zoe")
    patch = json.dumps({"roleRef": {"name": "edit"}})
    refused = server.kubectl("patch", "rolebinding", "fixed", "-p", patch, ok=False)
    assert "cannot change roleRef" in refused.err


def test_a_kubelet_sees_what_its_pods_need(server: Server) -> None:
    kubelet = server.kubeconfig("system:node:n1", "system:nodes")
    server.kubectl("create", "secret", "generic", "needed", "--from-literal=a=b")
    server.kubectl("create", "serviceaccount", "default", ok=False)
    refused = server.kubectl("get", "secret", "needed", ok=False, kubeconfig=kubelet)
    assert "no relationship found between node 'n1' and this object" in refused.err
    volumes = [{"name": "v", "secret": {"secretName": "needed"}}]
    pod: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "needy"},
        "spec": {
            "nodeName": "n1",
            "containers": [{"name": "c", "image": "i"}],
            "volumes": volumes,
        },
    }
    server.kubectl("apply", "-f", "-", stdin=json.dumps(pod))
    server.kubectl("get", "secret", "needed", kubeconfig=kubelet)
    refused = server.kubectl("get", "pods", "-A", ok=False, kubeconfig=kubelet)
    assert "can only list/watch pods with spec.nodeName field selector" in refused.err
    own = "--field-selector=spec.nodeName=n1"
    assert "needy" in server.kubectl("get", "pods", "-A", own, kubeconfig=kubelet).out


def test_the_python_client_is_refused_in_its_own_words(server: Server) -> None:
    kubernetes = pytest.importorskip("kubernetes")
    api = kubernetes.config.new_client_from_config(str(server.kubeconfig("bob", "dev")))
    with pytest.raises(kubernetes.client.ApiException) as failure:
        kubernetes.client.CoreV1Api(api).list_node()
    assert failure.value.status == 403
    status = json.loads(failure.value.body)
    assert (status["kind"], status["reason"]) == ("Status", "Forbidden")
    assert status["details"] == {"kind": "nodes"}
    review = kubernetes.client.V1SelfSubjectAccessReview(
        spec=kubernetes.client.V1SelfSubjectAccessReviewSpec(
            resource_attributes=kubernetes.client.V1ResourceAttributes(
                verb="list", resource="nodes"
            )
        )
    )
    access = kubernetes.client.AuthorizationV1Api(api)
    assert not access.create_self_subject_access_review(review).status.allowed


# --- other authorizers ----------------------------------------------------------------------------


class Judge(http.server.ThreadingHTTPServer):
    """An authorization webhook: allows ``bob`` to list, denies ``eve``."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Judging)
        self.asked: list[Any] = []
        self.thread = threading.Thread(target=self.serve_forever, daemon=True)
        self.thread.start()


class _Judging(http.server.BaseHTTPRequestHandler):
    server: Judge

    def do_POST(self) -> None:
        review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(review)
        spec = review["spec"]
        verb = spec.get("resourceAttributes", {}).get("verb")
        status = {
            "allowed": spec["user"] == "bob" and verb == "list",
            "denied": spec["user"] == "eve",
            "reason": "the judge says so",
        }
        body = json.dumps({**review, "status": status}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


def test_a_webhook_judges(tmp_path: Path) -> None:
    judge = Judge()
    config = {
        "clusters": [
            {"name": "c", "cluster": {"server": f"http://127.0.0.1:{judge.server_port}/judge"}}
        ],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "c",
    }
    file = tmp_path / "webhook.conf"
    file.write_text(json.dumps(config))
    options = (
        "--authorization-mode=Webhook,RBAC",
        f"--authorization-webhook-config-file={file}",
        "--authorization-webhook-version=v1",
    )
    server = Server(tmp_path / "server", "sqlite", *options).start()
    try:
        as_bob(server, "get", "nodes")
        refused = as_bob(server, "get", "node", "n", ok=False)
        assert refused.err.endswith("at the cluster scope: the judge says so\n")
        eve = server.kubeconfig("eve")
        refused = server.kubectl("get", "--raw", "/version", ok=False, kubeconfig=eve)
        assert "the judge says so" in refused.err  # denied, although a role allows it
        assert judge.asked[0]["spec"]["groups"] == ["dev", "system:authenticated"]
    finally:
        server.stop()
        judge.shutdown()
        judge.server_close()


def test_everybody_may_everything(tmp_path: Path) -> None:
    server = Server(tmp_path / "server", "sqlite", "--authorization-mode=AlwaysAllow").start()
    try:
        as_bob(server, "get", "nodes")
        as_bob(server, "create", "namespace", "mine")
    finally:
        server.stop()
