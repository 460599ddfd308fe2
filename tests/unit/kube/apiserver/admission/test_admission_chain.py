from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from wherry.kube.api.resources import NODES, PODS
from wherry.kube.apiserver.admission import MUTATING, ORDER, VALIDATING, AdmissionOptions
from wherry.kube.apiserver.admission.attributes import Attributes
from wherry.kube.apiserver.admission.configuration import read_configuration
from wherry.kube.apiserver.admission.connecting import connection
from wherry.kube.apiserver.admission.plugin import EVERYTHING, Chain, Plugin, on
from wherry.kube.apiserver.authn import known
from wherry.kube.apiserver.request import NO_QUERY, parse_query, parse_request

USER = known("alice")


def attributes(
    operation: Any = "CREATE", resource: Any = PODS, subresource: str = ""
) -> Attributes:
    return Attributes(operation, resource, subresource, "default", "web", USER)


@pytest.mark.parametrize("table", [MUTATING, VALIDATING])
def test_both_tables_keep_the_order_of_upstream(table: tuple[Plugin, ...]) -> None:
    names = [plugin.name for plugin in table]
    assert names == sorted(names, key=ORDER.index)


async def test_a_plugin_sees_only_the_writes_of_its_rules() -> None:
    seen: list[str] = []

    def plugin(name: str, *rules: Any) -> Plugin:
        return Plugin(name, lambda a, c: seen.append(name), rules)

    context: Any = None
    chain = Chain(
        (
            plugin("pods", on("CREATE UPDATE", PODS)),
            plugin("below", on("CREATE", PODS, subresources=("eviction",))),
            plugin("all", EVERYTHING),
        ),
        context,
    )
    await chain(attributes())
    await chain(attributes("DELETE"))
    await chain(attributes(subresource="eviction"))
    await chain(attributes(resource=NODES))
    assert seen == ["pods", "all", "all", "below", "all", "all"]


async def test_what_was_taken_is_given_back_last_first() -> None:
    given: list[int] = []
    a = attributes()
    for number in (1, 2):

        async def undo(number: int = number) -> None:
            given.append(number)

        a.undo.append(undo)
    await a.fail()
    await a.fail()
    assert given == [2, 1]


def test_plugins_are_switched_by_name() -> None:
    options = AdmissionOptions(enable=("AlwaysPullImages",), disable=("Priority",))
    options.check(ORDER)
    assert options.wants("AlwaysPullImages", default=False)
    assert not options.wants("Priority", default=True)
    assert options.wants("LimitRanger", default=True)
    assert not options.wants("EventRateLimit", default=False)
    with pytest.raises(ValueError, match='enable-admission-plugins plugin "Magic" is unknown'):
        AdmissionOptions(enable=("Magic",)).check(ORDER)
    with pytest.raises(ValueError, match=r"Priority in .* overlapped"):
        AdmissionOptions(("Priority",), ("Priority",)).check(ORDER)


def test_plugins_are_configured_in_one_file_or_several(tmp_path: Path) -> None:
    (tmp_path / "quota.yaml").write_text("limitedResources: []\n")
    file = tmp_path / "admission.yaml"
    file.write_text(
        "apiVersion: apiserver.config.k8s.io/v1\n"
        "kind: AdmissionConfiguration\n"
        "plugins:\n"
        "- name: PodSecurity\n"
        "  configuration: {defaults: {enforce: baseline}}\n"
        "- {name: ResourceQuota, path: quota.yaml}\n"
    )
    assert read_configuration(file) == {
        "PodSecurity": {"defaults": {"enforce": "baseline"}},
        "ResourceQuota": {"limitedResources": []},
    }
    file.write_text("kind: Pod")
    with pytest.raises(ValueError, match="AdmissionConfiguration"):
        read_configuration(file)
    with pytest.raises(ValueError, match="unable to read admission control configuration"):
        read_configuration(tmp_path / "none.yaml")


def test_a_connection_is_known_by_its_options() -> None:
    path = "/api/v1/namespaces/default/pods/web"
    query = parse_query("command=ls&command=-l&stdin=true&container=c")
    seen = connection(USER, parse_request("POST", f"{path}/exec", query), query)
    assert (seen.operation, seen.subresource, seen.name) == ("CONNECT", "exec", "web")
    assert seen.object == {
        "kind": "PodExecOptions",
        "apiVersion": "v1",
        "metadata": {},
        "stdin": True,
        "stdout": True,
        "stderr": True,
        "container": "c",
        "command": ["ls", "-l"],
    }
    ports = parse_query("ports=80&ports=81")
    seen = connection(USER, parse_request("POST", f"{path}/portforward", ports), ports)
    assert seen.new["ports"] == [80, 81]
    node = parse_request("GET", "/api/v1/nodes/n1/proxy/metrics", NO_QUERY)
    assert connection(USER, node, NO_QUERY).new["path"] == "metrics"
