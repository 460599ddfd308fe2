"""The other authorizers, and how a server's are put together."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from wherry.kube.api.errors import StatusError
from wherry.kube.apiserver.authn import known
from wherry.kube.apiserver.authz.abac import load
from wherry.kube.apiserver.authz.authorizer import Authorizer
from wherry.kube.apiserver.authz.decision import Decision
from wherry.kube.apiserver.authz.modes import AlwaysAllow, AlwaysDeny
from wherry.kube.apiserver.authz.options import (
    AuthorizationOptions,
    add_flags,
    build,
    from_flags,
)
from wherry.kube.apiserver.authz.webhook import Webhook
from wherry.kube.apiserver.request import NO_QUERY, RequestInfo, User, parse_request

BOB = known("bob", ("dev",))
ROOT = User("root", ("system:masters",))
POD = parse_request("GET", "/api/v1/namespaces/a/pods/p", NO_QUERY)
Object = dict[str, Any]


def authorizer(*sources: Any) -> Authorizer:
    return Authorizer(sources, rbac=None)  # type: ignore[arg-type]


async def test_the_first_who_decides_decides() -> None:
    assert (await authorizer(AlwaysDeny(), AlwaysAllow()).authorize(BOB, POD)).allowed
    refused = await authorizer(AlwaysDeny(), AlwaysDeny()).authorize(BOB, POD)
    assert refused == Decision(reason="Everything is forbidden.\nEverything is forbidden.")
    assert (await authorizer(AlwaysDeny()).authorize(ROOT, POD)).allowed
    with pytest.raises(StatusError, match=r'namespace "a": Everything is forbidden\.$'):
        await authorizer(AlwaysDeny()).check(BOB, POD)


def test_what_is_said_is_no_markup() -> None:
    from wherry.kube.apiserver.authz import refusal

    error = refusal(known("<b>&"), parse_request("GET", "/x", NO_QUERY))
    assert error.message == 'forbidden: User "&lt;b&gt;&amp;" cannot get path "/x"'


# --- options --------------------------------------------------------------------------------------


def options(*arguments: str) -> AuthorizationOptions:
    parser = argparse.ArgumentParser()
    add_flags(parser)
    return from_flags(parser.parse_args(arguments))


def test_options_are_upstreams(tmp_path: Path) -> None:
    assert options().modes == ("Node", "RBAC")
    told = options(
        "--authorization-mode=Webhook,RBAC", "--authorization-webhook-cache-authorized-ttl=1m30s"
    )
    assert (told.modes, told.authorized_ttl) == (("Webhook", "RBAC"), 90)


@pytest.mark.parametrize(
    ("modes", "why"),
    [
        ("RBAC,RBAC", "has mode specified twice"),
        ("Some", 'authorization-mode "Some" is not a valid mode'),
        ("Webhook", "authorization config file not passed"),
        ("ABAC", "authorization policy file not passed"),
        ("", "at least one"),
    ],
)
def test_options_that_make_no_sense(modes: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        build(options(f"--authorization-mode={modes}"), None)  # type: ignore[arg-type]


# --- ABAC -----------------------------------------------------------------------------------------


def policy(**spec: object) -> str:
    version = "abac.authorization.kubernetes.io/v1beta1"
    return json.dumps({"apiVersion": version, "kind": "Policy", "spec": spec})


def test_policies_allow_what_they_say(tmp_path: Path) -> None:
    file = tmp_path / "policies"
    lines = [
        "# who may what",
        policy(user="bob", namespace="a", resource="pods", apiGroup="", readonly=True),
        "",
        policy(group="dev", nonResourcePath="/x/*"),
    ]
    file.write_text("\n".join(lines))
    policies = load(file)

    def allowed(method: str, path: str, user: User = BOB) -> bool:
        return policies.decide(user, parse_request(method, path, NO_QUERY)).allowed

    assert allowed("GET", "/api/v1/namespaces/a/pods/p")
    assert not allowed("DELETE", "/api/v1/namespaces/a/pods/p")
    assert not allowed("GET", "/api/v1/namespaces/b/pods/p")
    assert not allowed("GET", "/api/v1/namespaces/a/pods/p", known("eve"))
    assert allowed("GET", "/x/y") and not allowed("GET", "/y")
    assert policies.decide(known("eve"), POD).reason == "No policy matched."
    rules, _ = policies.rules_for(BOB, "a")
    assert [str(rule) for rule in rules] == [
        '{APIGroups:[""], Resources:["pods"], Verbs:["get" "list" "watch"]}'
    ]


@pytest.mark.parametrize("line", ["{", "[]", '{"kind": "Policy"}', policy(readonly="yes")])
def test_a_file_of_something_else_is_refused(tmp_path: Path, line: str) -> None:
    file = tmp_path / "policies"
    file.write_text(f"{policy(user='bob')}\n{line}")
    with pytest.raises(ValueError, match="line 2"):
        load(file)


# --- webhook --------------------------------------------------------------------------------------


class Answering:
    """The webhook's other end."""

    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)
        self.asked: list[Object] = []

    async def request(self, method: str, path: str, *, body: Object, **_: object) -> Object:
        self.asked.append(body)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return {"status": answer}

    async def close(self) -> None: ...


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def webhook(tmp_path: Path, end: Answering, version: str = "v1") -> tuple[Webhook, Clock]:
    file, clock = tmp_path / "webhook.conf", Clock()
    cluster = {"name": "c", "cluster": {"server": "http://127.0.0.1:1/authorize"}}
    context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
    file.write_text(
        json.dumps(
            {
                "clusters": [cluster],
                "contexts": [context],
                "users": [{"name": "u", "user": {}}],
                "current-context": "c",
            }
        )
    )
    made = Webhook(
        file, version, authorized_ttl=300, unauthorized_ttl=30, backoff=(0.0,), clock=clock
    )
    made._transport = end  # type: ignore[assignment]
    return made, clock


async def test_a_webhook_is_asked_and_its_answer_kept(tmp_path: Path) -> None:
    end = Answering({"allowed": False, "reason": "no"}, {"allowed": True}, {"allowed": False})
    hook, clock = webhook(tmp_path, end)
    assert await hook.ask(BOB, POD) == Decision(reason="no")
    assert end.asked[0] == {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "metadata": {},
        "spec": {
            "user": "bob",
            "groups": ["dev", "system:authenticated"],
            "resourceAttributes": {
                "namespace": "a",
                "verb": "get",
                "version": "v1",
                "resource": "pods",
                "name": "p",
            },
        },
    }
    clock.now = 29
    assert not (await hook.ask(BOB, POD)).allowed
    clock.now = 31
    assert (await hook.ask(BOB, POD)).allowed and hook.decide(BOB, POD).allowed
    clock.now = 330
    assert (await hook.ask(BOB, POD)).allowed
    clock.now = 332
    assert not (await hook.ask(BOB, POD)).allowed
    assert len(end.asked) == 3


async def test_its_old_version_and_its_selectors(tmp_path: Path) -> None:
    end = Answering({"allowed": True}, {"allowed": True})
    old, _ = webhook(tmp_path, end, "v1beta1")
    await old.ask(BOB, RequestInfo("GET", "/x", "get"))
    assert end.asked[0]["spec"]["group"] == ["dev", "system:authenticated"]
    assert end.asked[0]["spec"]["nonResourceAttributes"] == {"path": "/x", "verb": "get"}
    new, _ = webhook(tmp_path, end)
    selecting = RequestInfo(
        "", "", "list", True, "", "v1", "pods", field_selector="a=b", label_selector="c in (d,e),f"
    )
    await new.ask(BOB, selecting)
    assert end.asked[1]["spec"]["resourceAttributes"] == {
        "verb": "list",
        "version": "v1",
        "resource": "pods",
        "fieldSelector": {"requirements": [{"key": "a", "operator": "In", "values": ["b"]}]},
        "labelSelector": {
            "requirements": [
                {"key": "c", "operator": "In", "values": ["d", "e"]},
                {"key": "f", "operator": "Exists"},
            ]
        },
    }


async def test_a_webhook_that_does_not_answer_has_no_opinion(tmp_path: Path) -> None:
    gone = ConnectionError("nobody there")
    hook, _ = webhook(tmp_path, Answering(gone, {"allowed": True}))
    assert (await hook.ask(BOB, POD)).allowed  # at the second attempt
    hook, _ = webhook(tmp_path, Answering(gone, gone))
    both = authorizer(hook, AlwaysAllow())
    assert (await both.authorize(BOB, POD)).allowed
    hook, _ = webhook(tmp_path, Answering({"allowed": True, "denied": True}))
    assert (await authorizer(hook, AlwaysAllow()).authorize(BOB, POD)).denied
