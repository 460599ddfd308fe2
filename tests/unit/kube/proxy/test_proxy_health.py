"""What is told of the proxy and of Services."""

import json

from wherry.kube.proxy.health import Health

SERVICE = {"metadata": {"name": "web", "namespace": "a"}}


def test_a_service_is_well_here_while_it_has_endpoints_here():
    health = Health()
    health.applied()
    health.serve("a/web", SERVICE, 31000, 2)
    answer = health.health_check("a/web")
    assert answer.status == 200
    assert answer.headers["X-Load-Balancing-Endpoint-Weight"] == "2"
    assert json.loads(answer.body) == {
        "service": {"namespace": "a", "name": "web"},
        "localEndpoints": 2,
        "serviceProxyHealthy": True,
    }
    health.serve("a/web", SERVICE, 31000, 0)
    assert health.health_check("a/web").status == 503


def test_the_proxy_is_well_once_rules_are_there_and_while_the_node_stays():
    health = Health()
    assert health.healthz("/healthz").status == 503
    health.applied()
    told = json.loads(health.healthz("/healthz").body)
    assert set(told) == {"lastUpdated", "currentTime", "nodeEligible"}
    assert health.healthz("/healthz").status == 200
    taint = {"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}
    health.node({"metadata": {"name": "one"}, "spec": {"taints": [taint]}})
    assert health.healthz("/healthz").status == 503
    assert health.healthz("/livez").status == 200
    assert health.healthz("/elsewhere").status == 404


def test_rules_that_are_late_are_told(monkeypatch):
    health = Health()
    health.applied()
    health.queued()
    assert health.well
    monkeypatch.setattr("wherry.kube.proxy.health.TIMEOUT", 0)
    assert not health.well
    health.applied()
    assert health.well
