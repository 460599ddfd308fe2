from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from apiserver_harness import API, config, config_map

from wherry.kube.api.errors import StatusError
from wherry.kube.apiserver.audit.config import Audit, from_flags
from wherry.kube.apiserver.audit.log import AuditLog
from wherry.kube.apiserver.audit.policy import BadPolicy, parse
from wherry.kube.apiserver.authn import known
from wherry.kube.apiserver.flags import read
from wherry.kube.apiserver.request import NO_QUERY, parse_request
from wherry.kube.apiserver.server import SELF, APIServer

ALICE = known("alice", ("dev",))
HEAD = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy"}


def level(rule: dict[str, Any], method: str, path: str, user: Any = ALICE) -> str:
    policy = parse({**HEAD, "rules": [{"level": "Request", **rule}]})
    return policy.judge(user, parse_request(method, path, NO_QUERY)).level


POD = "/api/v1/namespaces/ns/pods/web"


@pytest.mark.parametrize(
    ("rule", "fits"),
    [
        ({}, True),
        ({"users": ["alice"]}, True),
        ({"users": ["bob"]}, False),
        ({"userGroups": ["dev"]}, True),
        ({"userGroups": ["ops"]}, False),
        ({"verbs": ["get", "list"]}, True),
        ({"verbs": ["list"]}, False),
        ({"namespaces": ["ns"]}, True),
        ({"namespaces": ["other"]}, False),
        ({"resources": [{"group": ""}]}, True),
        ({"resources": [{"group": "apps"}]}, False),
        ({"resources": [{"resources": ["pods"]}]}, True),
        ({"resources": [{"resources": ["pods/log"]}]}, False),
        ({"resources": [{"resources": ["*"]}]}, True),
        ({"resources": [{"resources": ["pods"], "resourceNames": ["web"]}]}, True),
        ({"resources": [{"resources": ["pods"], "resourceNames": ["db"]}]}, False),
        ({"nonResourceURLs": ["*"]}, False),
    ],
)
def test_a_rule_fits_what_it_is_about(rule: dict[str, Any], fits: bool) -> None:
    assert (level(rule, "GET", POD) == "Request") is fits


def test_subresources_and_paths() -> None:
    for name, fits in (("pods/log", True), ("pods/*", True), ("*/log", True), ("pods", False)):
        rule = {"resources": [{"resources": [name]}]}
        assert (level(rule, "GET", f"{POD}/log") == "Request") is fits, name
    for url, fits in (("/healthz*", True), ("/healthz", False), ("*", True), ("/h*", True)):
        assert (level({"nonResourceURLs": [url]}, "GET", "/healthz/etcd") == "Request") is fits
    assert level({"resources": [{"group": ""}]}, "GET", "/healthz") == "None"
    assert level({"users": ["alice"]}, "GET", POD, None) == "None"


def test_the_first_rule_that_fits_says_and_none_is_silence() -> None:
    rules = [{"level": "None", "users": ["alice"]}, {"level": "Metadata", "verbs": ["get"]}]
    policy = parse({**HEAD, "rules": rules, "omitStages": ["RequestReceived"]})
    get, delete = (parse_request(method, POD, NO_QUERY) for method in ("GET", "DELETE"))
    assert policy.judge(ALICE, get).level == "None"
    assert policy.judge(known("bob"), get).level == "Metadata"
    assert policy.judge(known("bob"), get).omit_stages == {"RequestReceived"}
    assert policy.judge(known("bob"), delete).level == "None"


@pytest.mark.parametrize(
    ("document", "why"),
    [
        ([], "a mapping"),
        ({"kind": "Policy"}, 'of version ""'),
        ({**HEAD}, "0 rules"),
        ({**HEAD, "rules": [3]}, r"rules\[0\]"),
        ({**HEAD, "rules": [{"level": "All"}]}, 'Unsupported value: "All"'),
        ({**HEAD, "rules": [{"level": "None", "user": ["x"]}]}, 'unknown field "user"'),
        ({**HEAD, "rules": [{"level": "None", "users": "x"}]}, "wrong type"),
        ({**HEAD, "rules": [{"level": "None", "omitStages": ["x"]}]}, "is no stage"),
        ({**HEAD, "rules": [{"level": "None", "nonResourceURLs": ["x"]}]}, "must begin with"),
        (
            {**HEAD, "rules": [{"level": "None", "nonResourceURLs": ["/"], "namespaces": ["x"]}]},
            "both regular resources and non-resource URLs",
        ),
        (
            {**HEAD, "rules": [{"level": "None", "resources": [{"resourceNames": ["x"]}]}]},
            "requires at least one resource",
        ),
    ],
)
def test_a_policy_that_cannot_be_followed_is_refused(document: Any, why: str) -> None:
    with pytest.raises(BadPolicy, match=why):
        parse(document)


# --- the events -----------------------------------------------------------------------------------


@pytest.fixture
async def audited(tmp_path: Path, store: Any) -> Any:
    policy = tmp_path / "policy.yaml"
    rules = [
        {"level": "None", "users": ["system:apiserver"], "verbs": ["get", "list", "watch"]},
        {"level": "Metadata", "resources": [{"resources": ["secrets"]}]},
        {"level": "RequestResponse", "omitManagedFields": True},
    ]
    policy.write_text(json.dumps({**HEAD, "rules": rules}))
    log = tmp_path / "audit.log"
    server = APIServer(config(tmp_path, audit=Audit(policy, str(log))), store)
    await server.open()
    log.write_text("")
    yield server, log
    await server.close()


def events(log: Path) -> list[dict[str, Any]]:
    """Those of the test: the server itself goes on with what every cluster has."""
    told = [json.loads(line) for line in log.read_text().splitlines()]
    return [e for e in told if e["objectRef"]["resource"] in ("configmaps", "secrets")]


async def test_a_write_is_told_with_what_was_asked_and_answered(audited: Any) -> None:
    server, log = audited
    api = API(server.transport(SELF))
    await api("POST", "configmaps", config_map("c", a="1"))
    received, complete = events(log)
    assert received["stage"] == "RequestReceived" and complete["stage"] == "ResponseComplete"
    assert received["auditID"] == complete["auditID"]
    assert complete["verb"] == "create" and complete["user"]["username"] == SELF.name
    assert complete["objectRef"] == {
        "resource": "configmaps",
        "namespace": "default",
        "name": "c",
        "apiVersion": "v1",
    }
    assert complete["responseStatus"] == {"metadata": {}, "code": 201}
    assert complete["requestObject"]["data"] == {"a": "1"}
    assert complete["responseObject"]["metadata"]["uid"]
    assert "managedFields" not in complete["responseObject"]["metadata"]
    assert complete["annotations"]["authorization.k8s.io/decision"] == "allow"
    assert "requestObject" not in received


async def test_of_a_secret_only_what_the_policy_says_is_told(audited: Any) -> None:
    server, log = audited
    api = API(server.transport(SELF))
    await api("POST", "secrets", {"metadata": {"name": "s"}, "stringData": {"p": "hunter2"}})
    assert "hunter2" not in log.read_text() and "aHVudGVyMg" not in log.read_text()
    assert [event["level"] for event in events(log)] == ["Metadata", "Metadata"]


async def test_a_refusal_is_told(audited: Any) -> None:
    server, log = audited
    api = API(server.transport("eve"))
    with pytest.raises(StatusError):
        await api("GET", "secrets/s")
    refused = events(log)[-1]
    assert refused["responseStatus"]["code"] == 403
    assert refused["annotations"]["authorization.k8s.io/decision"] == "forbid"
    await API(server.transport(SELF))("GET", "configmaps")
    assert len(events(log)) == 2  # the policy keeps silent about it


# --- the log ------------------------------------------------------------------------------------


def test_a_large_log_is_put_aside(tmp_path: Path) -> None:
    log = AuditLog(str(tmp_path / "audit.log"), max_size=1, max_backups=2)
    log._limit = 100
    for number in range(50):
        log.write({"n": number, "x": "y" * 60})
    log.close()
    files = sorted(tmp_path.glob("audit*.log"))
    assert len(files) <= 3 + 1 and all(file.stat().st_mode & 0o777 == 0o600 for file in files)
    assert json.loads((tmp_path / "audit.log").read_text().splitlines()[-1])["n"] == 49


def test_a_log_that_cannot_be_written_stops_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(monotonic=lambda: 5.0)  # the machine has just started
    monkeypatch.setattr("wherry.kube.apiserver.audit.log.time", clock)
    log = AuditLog(str(tmp_path / "audit.log"))
    os.close(log._descriptor)
    log._descriptor = os.open("/dev/full", os.O_WRONLY)
    for _ in range(3):
        log.write({"n": 1})
    assert caplog.text.count("cannot be written") == 1


def test_options(tmp_path: Path) -> None:
    assert from_flags(read([])) is None
    policy = tmp_path / "p.yaml"
    policy.write_text(json.dumps({**HEAD, "rules": [{"level": "Metadata"}]}))
    given = [f"audit-policy-file={policy}", "audit-log-path=-", "audit-log-maxage=3"]
    told = from_flags(read(given))
    assert told is not None and (told.log, told.max_age, told.max_size) == ("-", 3, 100)
    with pytest.raises(ValueError, match="negative"):
        from_flags(read([*given, "audit-log-maxsize=-1"]))
    policy.write_text("{")
    with pytest.raises(BadPolicy):
        from_flags(read(given))
