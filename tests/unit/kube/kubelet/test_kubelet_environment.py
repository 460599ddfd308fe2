"""Environment variables of containers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherry.kube.kubelet.environment import (
    ConfigError,
    PodFacts,
    container_environment,
    expand,
    field_value,
    resource_value,
    service_variables,
)

POD = {
    "metadata": {
        "name": "web",
        "namespace": "demo",
        "uid": "u-1",
        "labels": {"app": "web", "b": 'say "hi"'},
        "annotations": {"note": "x\ny"},
    },
    "spec": {"nodeName": "one", "serviceAccountName": "robot", "containers": []},
}
FACTS = PodFacts(("192.0.2.9",), ("10.244.0.7",), {"cpu": "4", "memory": "8Gi"})
OBJECTS = {
    ("ConfigMap", "settings"): {"colour": b"blue", "size": b"7"},
    ("Secret", "keys"): {"password": b"geheim"},
}


def environment(container, services=None):
    return container_environment(
        POD,
        {"name": "web", **container},
        FACTS,
        services=services or {},
        lookup=lambda kind, name: OBJECTS.get((kind, name)),
    )


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("$(A)", "1"),
        ("a$(A)b$(B)c", "a1b2c"),
        ("$(C)", "$(C)"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$A", "$A"),
        ("$(A", "$(A"),
        ("cost: 5$", "cost: 5$"),
        ("$($(A))", "$($(A))"),
    ],
)
def test_references_are_expanded_as_upstream_does(text, wanted):
    assert expand(text, {"A": "1", "B": "2"}) == wanted


@given(st.text(alphabet="$()Ax"))
def test_expansion_bears_any_text(text):
    expand(text, {"A": "1"})


def test_a_variable_may_refer_to_those_before_it_and_to_services():
    env = [{"name": "A", "value": "1"}, {"name": "B", "value": "$(A)-$(S)-$(LATER)"}]
    assert environment({"env": env}, {"S": "svc"})["B"] == "1-svc-$(LATER)"


def test_the_specs_own_variables_come_before_those_of_services():
    assert environment({"env": [{"name": "S", "value": "mine"}]}, {"S": "svc"})["S"] == "mine"


def test_values_from_config_maps_and_secrets():
    env = [
        {"name": "C", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "colour"}}},
        {"name": "P", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "password"}}},
    ]
    assert environment({"env": env}) == {"C": "blue", "P": "geheim"}


def test_whole_config_maps_with_a_prefix():
    found = environment({"envFrom": [{"prefix": "X_", "configMapRef": {"name": "settings"}}]})
    assert found == {"X_colour": "blue", "X_size": "7"}


def test_what_is_missing_is_an_error_in_upstreams_words_unless_it_is_optional():
    def refer(name, key, **more):
        reference = {"name": name, "key": key, **more}
        return {"env": [{"name": "C", "valueFrom": {"configMapKeyRef": reference}}]}

    with pytest.raises(ConfigError, match='configmap "none" not found'):
        environment(refer("none", "x"))
    with pytest.raises(ConfigError, match="couldn't find key x in ConfigMap demo/settings"):
        environment(refer("settings", "x"))
    assert environment(refer("none", "x", optional=True)) == {}
    assert environment(refer("settings", "x", optional=True)) == {}
    with pytest.raises(ConfigError, match='secret "none" not found'):
        environment({"envFrom": [{"secretRef": {"name": "none"}}]})


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("metadata.name", "web"),
        ("metadata.namespace", "demo"),
        ("metadata.uid", "u-1"),
        ("metadata.labels['app']", "web"),
        ("metadata.annotations['none']", ""),
        ("spec.nodeName", "one"),
        ("spec.serviceAccountName", "robot"),
        ("status.hostIP", "192.0.2.9"),
        ("status.podIP", "10.244.0.7"),
        ("status.podIPs", "10.244.0.7"),
        ("metadata.labels", 'app="web"\nb="say \\"hi\\""'),
        ("metadata.annotations", 'note="x\\ny"'),
    ],
)
def test_fields_of_the_pod(path, wanted):
    assert field_value(POD, path, FACTS) == wanted


@pytest.mark.parametrize(
    ("resource", "divisor", "wanted"),
    [
        ("limits.cpu", None, "1"),
        ("limits.cpu", "1m", "500"),
        ("requests.memory", "1Mi", "64"),
        ("requests.memory", "1k", "67109"),
        ("limits.memory", "1Gi", "8"),  # of the node, as the container has no limit
        ("requests.cpu", None, "0"),
    ],
)
def test_resources_are_rounded_up_in_units_of_the_divisor(resource, divisor, wanted):
    container = {
        "name": "web",
        "resources": {"limits": {"cpu": "500m"}, "requests": {"memory": "64Mi"}},
    }
    reference = {"resource": resource, **({"divisor": divisor} if divisor else {})}
    assert resource_value(POD, container, reference, FACTS) == wanted


def service(name, namespace="demo", address="10.96.0.5", ports=None):
    ports = ports or [{"port": 80, "protocol": "TCP"}]
    return {
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"clusterIP": address, "ports": ports},
    }


def test_services_are_told_in_both_old_forms():
    ports = [{"name": "web-ui", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}]
    found = service_variables([service("my-app", ports=ports)], "demo", links=True)
    assert found == {
        "MY_APP_SERVICE_HOST": "10.96.0.5",
        "MY_APP_SERVICE_PORT": "80",
        "MY_APP_SERVICE_PORT_WEB_UI": "80",
        "MY_APP_SERVICE_PORT_DNS": "53",
        "MY_APP_PORT": "tcp://10.96.0.5:80",
        "MY_APP_PORT_80_TCP": "tcp://10.96.0.5:80",
        "MY_APP_PORT_80_TCP_PROTO": "tcp",
        "MY_APP_PORT_80_TCP_PORT": "80",
        "MY_APP_PORT_80_TCP_ADDR": "10.96.0.5",
        "MY_APP_PORT_53_UDP": "udp://10.96.0.5:53",
        "MY_APP_PORT_53_UDP_PROTO": "udp",
        "MY_APP_PORT_53_UDP_PORT": "53",
        "MY_APP_PORT_53_UDP_ADDR": "10.96.0.5",
    }


def test_only_services_of_the_own_namespace_and_the_clusters_own_are_told():
    services = [
        service("kubernetes", "default", "10.96.0.1"),
        service("other", "elsewhere"),
        service("headless", address="None"),
        service("web"),
    ]
    assert "WEB_SERVICE_HOST" in service_variables(services, "demo", links=True)
    without = service_variables(services, "demo", links=False)
    assert without["KUBERNETES_SERVICE_HOST"] == "10.96.0.1"
    assert not any(name.startswith(("WEB", "OTHER", "HEADLESS")) for name in without)


FILES = {("config", "a.env"): b"A='1'", ("config", "bad"): b"A"}


def from_file(path, key="A", **more):
    reference = {"volumeName": "config", "path": path, "key": key, **more}
    return container_environment(
        POD,
        {"name": "web", "env": [{"name": "X", "valueFrom": {"fileKeyRef": reference}}]},
        FACTS,
        services={},
        lookup=lambda _kind, _name: None,
        read_file=lambda volume, path: FILES.get((volume, path)),
    )


def test_a_variable_may_come_from_a_file():
    assert from_file("a.env") == {"X": "1"}
    assert from_file("a.env", "B", optional=True) == {}
    assert from_file("none", optional=True) == {}


@pytest.mark.parametrize(
    ("path", "key", "optional", "text"),
    [
        ("a.env", "B", False, 'environment variable key "B" not found in file "a.env"'),
        ("none", "A", False, "couldn't parse env file: no file"),
        ("bad", "A", True, "couldn't parse env file: invalid environment variable format"),
    ],
)
def test_a_file_that_does_not_say_it_is_told(path, key, optional, text):
    with pytest.raises(ConfigError, match=text):
        from_file(path, key, optional=optional)
