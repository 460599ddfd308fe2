"""What follows from policies, pods and namespaces, held against what the API's text says.

``judged`` reads the rules as nftables would; ``permitted`` is NetworkPolicy's own meaning, written
down without any of the machinery.
"""

from __future__ import annotations

import copy
import ipaddress
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from wherry.kube.api.selectors import EVERYTHING, labels_from_object
from wherry.kube.network_policy.elements import Pod
from wherry.kube.network_policy.model import Model
from wherry.kube.network_policy.policies import read
from wherry.net.policy_table import PolicyTable, Rules

NAMESPACES = ("red", "blue")
VALUES = ("a", "b")
OUTSIDE = "192.0.2.7"


# ---- strategies

labels = st.dictionaries(st.sampled_from(("app", "tier")), st.sampled_from(VALUES), max_size=2)


@st.composite
def selectors(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from(("all", "equal", "in", "exists", "absent")))
    if kind == "all":
        return {}
    if kind == "equal":
        return {"matchLabels": draw(labels)}
    key = draw(st.sampled_from(("app", "tier")))
    if kind == "in":
        return {"matchExpressions": [{"key": key, "operator": "In", "values": ["a"]}]}
    operator = "Exists" if kind == "exists" else "DoesNotExist"
    return {"matchExpressions": [{"key": key, "operator": operator}]}


ports = st.one_of(
    st.just({"protocol": "TCP"}),
    st.just({"port": 80}),
    st.just({"port": 53, "protocol": "UDP"}),
    st.just({"port": 80, "endPort": 90, "protocol": "TCP"}),
    st.just({"port": "web", "protocol": "TCP"}),
)


@st.composite
def peers(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from(("pods", "namespaces", "both", "block", "except")))
    if kind == "block":
        return {"ipBlock": {"cidr": draw(st.sampled_from(("192.0.2.0/24", "10.0.0.0/28")))}}
    if kind == "except":
        return {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["192.0.2.0/30", "10.0.0.0/30"]}}
    peer = {}
    if kind in ("pods", "both"):
        peer["podSelector"] = draw(selectors())
    if kind in ("namespaces", "both"):
        peer["namespaceSelector"] = draw(selectors())
    return peer


def rules(side: str) -> st.SearchStrategy[list[dict[str, Any]]]:
    rule = st.fixed_dictionaries(
        {}, optional={side: st.lists(peers(), max_size=2), "ports": st.lists(ports, max_size=2)}
    )
    return st.lists(rule, max_size=2)


@st.composite
def policies(draw: st.DrawFn) -> dict[str, Any]:
    spec: dict[str, Any] = {"podSelector": draw(selectors())}
    spec["policyTypes"] = draw(st.sampled_from((["Ingress"], ["Egress"], ["Ingress", "Egress"])))
    spec["ingress"], spec["egress"] = draw(rules("from")), draw(rules("to"))
    namespace = draw(st.sampled_from(NAMESPACES))
    return {"metadata": {"namespace": namespace, "name": ""}, "spec": spec}


@st.composite
def pods(draw: st.DrawFn) -> Pod:
    number = draw(st.integers(1, 14))
    named = draw(st.sampled_from(((), (("web", "tcp", 8080),), (("web", "tcp", 80),))))
    return Pod(
        draw(st.sampled_from(NAMESPACES)),
        draw(labels),
        (f"10.0.0.{number}",),
        local=draw(st.booleans()),
        ports=named,
    )


changes = st.lists(
    st.one_of(
        st.tuples(st.just("pod"), st.sampled_from("pqrs"), st.none() | pods()),
        st.tuples(st.just("policy"), st.sampled_from("xyz"), st.none() | policies()),
        st.tuples(st.just("namespace"), st.sampled_from(NAMESPACES), st.none() | labels),
    ),
    max_size=14,
)


class World:
    """The last state of everything, and the model that has heard each change."""

    def __init__(self) -> None:
        self.model = Model()
        self.pods: dict[str, Pod] = {}
        self.policies: dict[str, dict[str, Any]] = {}
        self.namespaces: dict[str, dict[str, str]] = {}

    def change(self, kind: str, key: str, value: Any) -> None:
        if kind == "pod":
            # A pod stays in its namespace, and no two have an address at once.
            key = f"{value.namespace}/{key}" if value else f"red/{key}"
            if value and any(p.ips == value.ips for k, p in self.pods.items() if k != key):
                return
            self._put(self.pods, key, value)
            self.model.set_pod(key, value)
        elif kind == "policy":
            key = f"{value['metadata']['namespace'] if value else 'red'}/{key}"
            self._put(self.policies, key, value)
            self.model.set_policy(key, read(named(value, key)) if value else None)
        else:
            self._put(self.namespaces, key, value)
            self.model.set_namespace(key, value)

    @staticmethod
    def _put(where: dict[str, Any], key: str, value: Any) -> None:
        where.pop(key, None)
        if value is not None:
            where[key] = value


def named(policy: dict[str, Any], key: str) -> dict[str, Any]:
    return {**policy, "metadata": {**policy["metadata"], "name": key.partition("/")[2]}}


# ---- nftables, as far as the rules go


def judged(rules: Rules, client: str, server: str, protocol: str, port: int) -> bool:
    if f"{client} . {server}" in rules.sets["itself4"]:
        return True
    for side, address in (("egress4", client), ("ingress4", server)):
        combination = rules.sets[side].get(address)
        if combination is not None and not any(
            _passes(allow, rules, client if allow.ingress else server, server, protocol, port)
            for chain in rules.combinations[combination]
            for allow in rules.policies[chain]
        ):
            return False
    return True


def _passes(allow: Any, rules: Rules, peer: str, server: str, protocol: str, port: int) -> bool:
    return (
        (not allow.peers or _within(peer, rules.sets[allow.peers]))
        and (not allow.protocol or allow.protocol == protocol)
        and (not allow.ports or any(a <= port <= b for a, b in allow.ports))
        and (not allow.named or f"{server} . {port}" in rules.sets[allow.named])
    )


def _within(address: str, elements: dict[str, str]) -> bool:
    return any(ipaddress.ip_address(address) in ipaddress.ip_network(e) for e in elements)


# ---- NetworkPolicy, as the API describes it


def permitted(world: World, client: str, server: str, protocol: str, port: int) -> bool:
    if client == server:
        return True
    by_ip = {pod.ips[0]: pod for pod in world.pods.values()}
    asking, answering = by_ip.get(client), by_ip.get(server)
    return _side(world, "Egress", "to", asking, answering, server, answering, protocol, port) and (
        _side(world, "Ingress", "from", answering, asking, client, answering, protocol, port)
    )


def _side(
    world: World,
    kind: str,
    peers: str,
    pod: Pod | None,
    other: Pod | None,
    address: str,
    answering: Pod | None,
    protocol: str,
    port: int,
) -> bool:
    if pod is None or not pod.local:
        return True
    isolating = [
        policy
        for policy in world.policies.values()
        if kind in policy["spec"]["policyTypes"]
        and policy["metadata"]["namespace"] == pod.namespace
        and labels_from_object(policy["spec"]["podSelector"]).matches(pod.labels)
    ]
    return not isolating or any(
        _peers(world, rule.get(peers), policy["metadata"]["namespace"], other, address)
        and _ports(rule.get("ports"), answering, protocol, port)
        for policy in isolating
        for rule in policy["spec"][kind.lower()]
    )


def _peers(world: World, listed: Any, own: str, other: Pod | None, address: str) -> bool:
    if not listed:
        return True
    for peer in listed:
        if "ipBlock" in peer:
            where = ipaddress.ip_address(address)
            if where in ipaddress.ip_network(peer["ipBlock"]["cidr"]) and not any(
                where in ipaddress.ip_network(e) for e in peer["ipBlock"].get("except", ())
            ):
                return True
            continue
        if other is None:
            continue
        if "namespaceSelector" in peer:
            found = world.namespaces.get(other.namespace)
            selector = labels_from_object(peer["namespaceSelector"])
            if selector != EVERYTHING and (found is None or not selector.matches(found)):
                continue
        elif other.namespace != own:
            continue
        if labels_from_object(peer.get("podSelector", {})).matches(other.labels):
            return True
    return False


def _ports(listed: Any, answering: Pod | None, protocol: str, port: int) -> bool:
    if not listed:
        return True
    for wanted in listed:
        if wanted.get("protocol", "TCP").lower() != protocol:
            continue
        number = wanted.get("port")
        if number is None:
            return True
        if isinstance(number, str):
            if answering and (number, protocol, port) in answering.ports:
                return True
        elif number <= port <= wanted.get("endPort", number):
            return True
    return False


# ---- what holds


@settings(max_examples=120, deadline=None)
@given(changes)
def test_connections_are_judged_as_the_policies_say(history: list[Any]) -> None:
    world = World()
    for change in history:
        world.change(*change)
    addresses = [OUTSIDE, "192.0.2.1", *(pod.ips[0] for pod in world.pods.values())]
    for client in addresses:
        for server in addresses:
            for protocol, port in (("tcp", 80), ("tcp", 85), ("tcp", 8080), ("udp", 53)):
                connection = client, server, protocol, port
                assert judged(world.model.rules, *connection) == permitted(world, *connection)


@settings(max_examples=100, deadline=None)
@given(changes)
def test_a_history_leads_to_the_same_rules_as_its_outcome(history: list[Any]) -> None:
    world = World()
    for change in history:
        world.change(*change)
    anew = Model()
    for name, found in world.namespaces.items():
        anew.set_namespace(name, found)
    for key, policy in world.policies.items():
        anew.set_policy(key, read(named(policy, key)))
    for key, pod in world.pods.items():
        anew.set_pod(key, pod)
    assert world.model.rules == anew.rules


@settings(max_examples=100, deadline=None)
@given(changes, st.lists(st.integers(0, 14), max_size=4))
def test_what_is_touched_is_enough_to_follow(history: list[Any], pauses: list[int]) -> None:
    """A copy that is changed where the model says so is the model's state in the end."""
    world, table = World(), PolicyTable(None, "t")  # type: ignore[arg-type]
    table.replace(world.model.rules)
    world.model.take_touched()
    for number, change in enumerate(history):
        world.change(*change)
        if number in pauses:
            table.change(world.model.rules, world.model.take_touched())
    table.change(world.model.rules, world.model.take_touched())
    assert table._held == world.model.rules


def policy(name: str, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"namespace": "red", "name": name}, "spec": {"podSelector": {}, **spec}}


def test_without_policies_nothing_is_kept() -> None:
    model = Model()
    model.set_namespace("red", {})
    model.set_pod("red/p", Pod("red", {"app": "a"}, ("10.0.0.1",), local=True))
    made = policy("x", ingress=[{"from": [{"podSelector": {}}]}], policyTypes=["Ingress"])
    model.set_policy("red/x", read(made))
    assert model.rules.policies and model.rules.sets["ingress4"]
    model.set_policy("red/x", None)
    assert model.rules == Rules()


def test_names_of_ports_hold_for_pods_of_namespaces_not_heard_of_yet() -> None:
    model = Model()
    model.set_pod("red/p", Pod("red", {}, ("10.0.0.1",), local=True))
    made = policy("x", egress=[{"ports": [{"port": "web"}]}], policyTypes=["Egress"])
    model.set_policy("red/x", read(made))
    model.set_pod("blue/p", Pod("blue", {}, ("10.0.0.2",), ports=(("web", "tcp", 8080),)))
    assert judged(model.rules, "10.0.0.1", "10.0.0.2", "tcp", 8080)


def test_policies_of_pods_that_are_elsewhere_cost_nothing() -> None:
    model = Model()
    model.set_pod("red/p", Pod("red", {"app": "a"}, ("10.0.0.1",)))
    model.set_policy("red/x", read(policy("x", ingress=[{"from": [{"podSelector": {}}]}])))
    assert model.rules == Rules()


def test_two_versions_of_ip_have_sets_of_their_own() -> None:
    model = Model((4, 6))
    model.set_pod("red/p", Pod("red", {}, ("10.0.0.1", "fd00::1"), local=True))
    blocks = {"ipBlock": {"cidr": "fd00::/64", "except": ["fd00::8/125"]}}
    made = policy("x", ingress=[{"from": [{"podSelector": {}}, blocks]}])
    model.set_policy("red/x", read(made))
    sets = model.rules.sets
    assert list(sets["ingress4"]) == ["10.0.0.1"] and list(sets["ingress6"]) == ["fd00::1"]
    by_kind = {name.partition("-")[0]: elements for name, elements in sets.items()}
    assert list(by_kind["peers4"]) == ["10.0.0.1"] and list(by_kind["peers6"]) == ["fd00::1"]
    assert "fd00::/125" in by_kind["blocks6"] and "fd00::8/125" not in by_kind["blocks6"]


def test_a_policy_without_types_judges_what_it_has_rules_for() -> None:
    assert read(policy("x")).egress is None
    assert read(policy("x")).ingress == ()
    assert read(policy("x", egress=[{}])).egress is not None


def test_what_is_read_does_not_change_the_object() -> None:
    made = policy("x", ingress=[{"from": [{"podSelector": {}}], "ports": [{"port": 80}]}])
    before = copy.deepcopy(made)
    read(made)
    assert made == before


def test_the_name_server_is_judged_as_a_pod() -> None:
    """It is one of kube-system, to whoever selects it by the labels that it has elsewhere."""
    world = World()
    world.change("namespace", "kube-system", {"kubernetes.io/metadata.name": "kube-system"})
    world.change("pod", "p", Pod("red", {}, ("10.0.0.1",), local=True))
    world.model.set_name_server(("10.0.0.254", "fd00::254"))
    system = {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}
    labels = {"matchLabels": {"k8s-app": "kube-dns"}}
    for peer, ports, let in (
        ({"namespaceSelector": system, "podSelector": labels}, [], ("udp", "tcp")),
        ({"namespaceSelector": system}, [{"port": "dns", "protocol": "UDP"}], ("udp",)),
        ({"podSelector": labels}, [], ()),
    ):
        spec = {"podSelector": {}, "policyTypes": ["Egress"]}
        egress = [{"to": [peer], "ports": ports}]
        metadata = {"namespace": "red", "name": ""}
        world.change("policy", "x", {"metadata": metadata, "spec": {**spec, "egress": egress}})
        rules = world.model.rules
        found = {p for p in ("udp", "tcp") if judged(rules, "10.0.0.1", "10.0.0.254", p, 53)}
        assert found == {*let}
        assert set(rules.sets["names4"]) == {"10.0.0.254"}
        assert set(rules.sets["names6"]) == {"fd00::254"}
