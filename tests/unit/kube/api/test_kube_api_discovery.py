import pytest

from wherry.kube.api import discovery
from wherry.kube.api.resources import RESOURCES

SERVED = discovery.Discovery(RESOURCES)


def entry(group_version: str, name: str) -> dict:
    listed = SERVED.resource_list(group_version)
    assert listed is not None
    return next(e for e in listed["resources"] if e["name"] == name)


def test_the_version_is_that_of_the_schemas():
    version = discovery.version()
    assert version["gitVersion"] == f"v{version['major']}.{version['minor']}.0"
    assert version["platform"].startswith("linux/")
    assert int(version["gitCommit"], 16) == 0, "hexadecimal, as conformance wants it"


def test_the_core_has_one_version():
    document = discovery.api_versions("10.0.0.1:6443")
    assert document["versions"] == ["v1"]
    assert document["serverAddressByClientCIDRs"][0]["serverAddress"] == "10.0.0.1:6443"


def test_groups_are_listed_in_upstreams_order_with_their_preferred_version():
    document = SERVED.api_groups()
    names = [group["name"] for group in document["groups"]]
    assert names.index("apps") < names.index("coordination.k8s.io")
    assert names.index("coordination.k8s.io") < names.index("discovery.k8s.io")
    assert "" not in names
    apps = SERVED.api_group("apps")
    assert apps is not None and apps["kind"] == "APIGroup"
    assert apps["preferredVersion"] == {"groupVersion": "apps/v1", "version": "v1"}
    assert SERVED.api_group("frob") is None


def test_newer_and_more_stable_versions_come_first():
    versions = ["v1beta1", "foo", "v1", "v2alpha1", "v2", "v1alpha1", "a1", "v1beta2", "v10"]
    ranked = ["v10", "v2", "v1", "v1beta2", "v1beta1", "v2alpha1", "v1alpha1", "a1", "foo"]
    assert discovery.by_preference(versions) == tuple(ranked)


def test_a_resource_is_listed_as_upstream_lists_it():
    assert entry("apps/v1", "deployments") == {
        "name": "deployments",
        "singularName": "deployment",
        "namespaced": True,
        "kind": "Deployment",
        "verbs": [
            "create", "delete", "deletecollection", "get", "list", "patch", "update", "watch",
        ],
        "shortNames": ["deploy"],
        "categories": ["all"],
        "storageVersionHash": "8aSe+NMegvE=",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("pods/status", {"kind": "Pod", "verbs": ["get", "patch", "update"]}),
        ("pods/log", {"kind": "Pod", "verbs": ["get"]}),
        ("pods/exec", {"kind": "PodExecOptions", "verbs": ["create", "get"]}),
        ("pods/binding", {"kind": "Binding", "verbs": ["create"]}),
        (
            "pods/eviction",
            {"group": "policy", "version": "v1", "kind": "Eviction", "verbs": ["create"]},
        ),
        ("namespaces/finalize", {"kind": "Namespace", "verbs": ["update"]}),
        (
            "replicationcontrollers/scale",
            {
                "group": "autoscaling",
                "version": "v1",
                "kind": "Scale",
                "verbs": ["get", "patch", "update"],
            },
        ),
        (
            "nodes/proxy",
            {
                "kind": "NodeProxyOptions",
                "verbs": ["create", "delete", "get", "patch", "update"],
            },
        ),
    ],
)
def test_a_subresource_is_listed_with_what_it_holds(name: str, expected: dict):
    found = entry("v1", name)
    assert {k: v for k, v in found.items() if k not in ("name", "singularName", "namespaced")} == (
        expected
    )


def test_a_version_that_is_not_served_has_no_list():
    assert SERVED.resource_list("apps/v2") is None


def test_the_aggregated_form_tells_the_same_as_the_lists():
    for root in ("api", "apis"):
        for item in SERVED.aggregated(root)["items"]:
            group = item["metadata"].get("name", "")
            for version in item["versions"]:
                gv = f"{group}/{version['version']}" if group else version["version"]
                listed = SERVED.resource_list(gv)
                assert listed is not None
                names = {e["name"]: (e["kind"], e["verbs"]) for e in listed["resources"]}
                told = {}
                for resource in version["resources"]:
                    kind = resource["responseKind"]["kind"]
                    told[resource["resource"]] = (kind, resource["verbs"])
                    for sub in resource.get("subresources", []):
                        name = f"{resource['resource']}/{sub['subresource']}"
                        told[name] = (sub["responseKind"]["kind"], sub["verbs"])
                assert told == names


def test_every_resource_is_discovered():
    listed = [SERVED.resource_list(gv) for gv in SERVED.group_versions]
    names = {(e["name"], d["groupVersion"]) for d in listed if d for e in d["resources"]}
    assert {(r.plural, r.api_version) for r in RESOURCES} <= names


@pytest.mark.parametrize(
    ("accept", "version"),
    [
        ("application/json", None),
        ("", None),
        ("*/*", None),
        (discovery.MEDIA_TYPES["v2"], "v2"),
        (
            "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,"
            "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,"
            "application/json",
            "v2",
        ),
        (
            "application/vnd.kubernetes.protobuf;g=apidiscovery.k8s.io;v=v2;as=x, "
            "application/json; g=apidiscovery.k8s.io; v=v2beta1; as=APIGroupDiscoveryList",
            "v2beta1",
        ),
        ("application/json;g=apidiscovery.k8s.io;v=v3;as=APIGroupDiscoveryList", None),
        ("application/json," + discovery.MEDIA_TYPES["v2"], None),
    ],
)
def test_the_accept_header_chooses_the_form(accept: str, version: str | None):
    assert discovery.aggregated_version(accept) == version


def test_both_versions_of_the_aggregated_form_differ_only_in_name():
    newer, older = SERVED.aggregated("apis"), SERVED.aggregated("apis", "v2beta1")
    assert older["apiVersion"] == "apidiscovery.k8s.io/v2beta1"
    assert newer["items"] == older["items"]
