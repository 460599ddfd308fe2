"""Tokens of service accounts in volumes: asked for, kept, renewed in time."""

import time
from datetime import UTC, datetime

import pytest
from fake_api import FakeAPI
from node_under_test import NodeUnderTest, container, make_pod

from wherry.kube.api import meta
from wherry.kube.api.errors import StatusError
from wherry.kube.client.client import Client
from wherry.kube.kubelet import tokens
from wherry.kube.kubelet.tokens import Tokens
from wherry.kube.kubelet.volumes import mounts

POD = {
    "metadata": {"name": "p", "namespace": "d", "uid": "u"},
    "spec": {"serviceAccountName": "robot"},
}


class Issuer:
    """Answers requests of tokens with a number and a life in seconds."""

    def __init__(self, api, life=1000.0):
        self.bodies = []
        self.life = life
        self.fault = None
        whole = api.request

        async def request(method, path, **rest):
            if not path.endswith("/token"):
                return await whole(method, path, **rest)
            if self.fault is not None:
                raise self.fault
            self.bodies.append((path, rest["body"]))
            until = datetime.fromtimestamp(clock() + self.life, UTC)
            status = {
                "token": f"token-{len(self.bodies)}",
                "expirationTimestamp": meta.format_time(until),
            }
            return {**rest["body"], "status": status}

        api.request = request


clock = time.time


class Clock:
    now = 1_000_000.0

    def time(self):
        return self.now


@pytest.fixture
def moment(monkeypatch):
    made = Clock()
    monkeypatch.setattr(tokens, "time", made)
    monkeypatch.setitem(globals(), "clock", made.time)
    return made


@pytest.fixture
def issuer():
    api = FakeAPI()
    made = Issuer(api)
    made.tokens = Tokens(Client(api))
    return made


async def test_a_token_is_bound_to_its_pod_and_kept_until_most_of_its_life_has_passed(
    issuer, moment
):
    source = {"path": "t", "audience": "vault", "expirationSeconds": 1000}
    assert await issuer.tokens.get(POD, source) == "token-1"
    path, body = issuer.bodies[0]
    assert path == "/api/v1/namespaces/d/serviceaccounts/robot/token"
    assert body["spec"] == {
        "audiences": ["vault"],
        "expirationSeconds": 1000,
        "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "p", "uid": "u"},
    }
    assert issuer.tokens.next_renewal("u") == moment.now + 800
    moment.now += 799
    assert await issuer.tokens.get(POD, source) == "token-1"
    moment.now += 2
    assert await issuer.tokens.get(POD, source) == "token-2"
    # Another audience is another token.
    assert await issuer.tokens.get(POD, {"path": "t"}) == "token-3"
    issuer.tokens.release("u")
    assert issuer.tokens.next_renewal("u") is None


async def test_a_long_token_is_renewed_after_a_day(issuer, moment):
    issuer.life = 100 * 86400.0
    await issuer.tokens.get(POD, {"path": "t"})
    assert issuer.tokens.next_renewal("u") == moment.now + 86400


async def test_the_old_one_is_good_while_nobody_answers_but_not_beyond_its_end(issuer, moment):
    await issuer.tokens.get(POD, {"path": "t"})
    issuer.fault = ConnectionError("gone")
    moment.now += 900
    assert await issuer.tokens.get(POD, {"path": "t"}) == "token-1"
    assert moment.now < issuer.tokens.next_renewal("u") < moment.now + 100
    moment.now += 100
    with pytest.raises(ConnectionError):
        await issuer.tokens.get(POD, {"path": "t"})
    issuer.fault = None
    assert await issuer.tokens.get(POD, {"path": "t"}) == "token-2"


async def test_an_account_that_is_not_there_is_told(issuer):
    issuer.fault = StatusError(404, "NotFound", 'serviceaccounts "robot" not found')
    with pytest.raises(StatusError, match="not found"):
        await issuer.tokens.get(POD, {"path": "t"})


async def test_the_file_of_a_pod_that_runs_is_renewed(tmp_path, monkeypatch):
    monkeypatch.setattr(mounts, "mount_tmpfs", lambda _place: None)
    async with NodeUnderTest(tmp_path) as node:
        issuer = Issuer(node.api, life=2.0)
        volume = {"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}
        mount = {"name": "t", "mountPath": "/t"}
        await node.run(make_pod(containers=[container(volumeMounts=[mount])], volumes=[volume]))
        pod = await node.until_ready()
        base = node.config.root_dir / "pods" / meta.uid(pod) / "volumes/kubernetes.io~projected"
        first = (base / "t/t").read_text()
        await node.until(lambda: (base / "t/t").read_text() != first)
        assert len(issuer.bodies) >= 2
