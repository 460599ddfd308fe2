"""Services as chains of iptables."""

import re
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from wherry.net.service.iptables.chains import Names, frame, jumps, part
from wherry.net.service.iptables.programs import Listed
from wherry.net.service.iptables.tables import IptablesServices
from wherry.net.service.ports import ServicePort

NAMES = Names()
PODS = ["10.244.0.0/16"]
TWO = (("10.244.0.2", 8080), ("10.244.0.3", 8080))
WEB = ServicePort("default/web:http", "tcp", 80, "10.96.0.10", inside=TWO)


def rules(served):
    made = part(NAMES, served, PODS)
    return "\n".join(
        f"{table} {name} {rule}"
        for where in (made.chains, made.shared)
        for (table, name), some in where.items()
        for rule in some
    )


def test_chains_are_called_as_upstream_calls_them():
    # Of kube-proxy's own tests: namespace/name:port and protocol, hashed.
    served = ServicePort("ns1/svc1:p80", "tcp", 80, "172.30.0.41", inside=(("10.180.0.1", 80),))
    text = rules(served)
    assert "KUBE-SVC-XPGD46QRK7WJZT7O" in text
    assert "KUBE-SEP-SXIVWICOYRO3J4NJ" in text


def test_endpoints_are_drawn_at_random_with_equal_chances():
    text = rules(replace(WEB, inside=(*TWO, ("10.244.0.4", 8080))))
    assert re.findall(r"--probability (\S+)", text) == ["0.33333333349", "0.50000000000"]


def test_affinity_is_remembered_by_the_endpoints_chains():
    text = rules(replace(WEB, affinity=60))
    assert (
        text.count("--rcheck --seconds 60 --reap") == 2
        and text.count("--set ") == 2
        and text.count("--mask 255.255.255.255 --rsource") == 4
    )


def test_without_endpoints_clients_are_refused_or_another_node_is_waited_for():
    assert "--reject-with tcp-reset" in rules(replace(WEB, inside=()))
    assert "-j DROP" in rules(replace(WEB, inside=(), inside_elsewhere=True))


def test_a_balancers_address_is_for_its_ranges_only():
    served = replace(WEB, outside=TWO, balancer_ips=("192.0.2.1",), sources=("198.51.100.0/24",))
    text = rules(served)
    assert re.search(r"nat KUBE-FW-\S+ -s 198.51.100.0/24 .* -j KUBE-EXT-", text)
    assert re.search(r"filter KUBE-PROXY-FIREWALL -d 192.0.2.1/32 .* -j DROP", text)
    assert not re.search(r"KUBE-SERVICES -d 192.0.2.1/32 .* -j KUBE-EXT", text)


def test_a_local_policy_leaves_this_nodes_endpoints_to_strangers_alone():
    served = replace(WEB, outside=TWO[:1], everywhere=TWO, masquerade=False, node_port=30080)
    text = rules(served)
    svl = Names().service("SVL", served)
    assert re.search(rf"KUBE-EXT-\S+ -j {svl}$", text, re.MULTILINE)
    assert re.search(r"KUBE-EXT-\S+ -s 10.244.0.0/16 .* -j KUBE-SVC-", text)


def test_what_belongs_to_no_connection_is_not_forwarded_where_the_kernel_is_strict():
    chain = ("filter", "KUBE-FORWARD")
    drop = "-m conntrack --ctstate INVALID -j DROP"
    strict, liberal = (frame(NAMES, "ip", [], liberal=each)[chain] for each in (False, True))
    assert strict == (drop, *liberal) and drop not in liberal


ENDPOINTS = st.lists(st.integers(2, 6), max_size=3, unique=True).map(
    lambda numbers: tuple((f"10.244.0.{n}", 8080) for n in sorted(numbers))
)
PORTS = st.builds(
    ServicePort,
    st.sampled_from(["a/1", "a/2", "a/3"]),
    st.sampled_from(["tcp", "udp"]),
    st.just(80),
    st.sampled_from(["10.96.0.1", "10.96.0.2"]),
    inside=ENDPOINTS,
    outside=ENDPOINTS,
    everywhere=ENDPOINTS,
    outside_elsewhere=st.booleans(),
    balancer_ips=st.sampled_from([(), ("192.0.2.1",)]),
    sources=st.sampled_from([(), ("198.51.100.0/24",)]),
    node_port=st.sampled_from([0, 30001]),
    affinity=st.sampled_from([0, 60]),
    masquerade=st.booleans(),
)
WANTED = st.lists(PORTS, max_size=4).map(lambda ports: {p.key: p for p in ports})


def applied(chains, change):
    """What the kernel makes of ``change``; its rules must be there, and lead somewhere."""
    result = {chain: list(rules) for chain, rules in chains.items()}
    for chain, some in change.whole.items():
        result[chain] = list(some)
    for chain in change.gone:
        result[chain] = []
    for chain, rule in change.added:
        result[chain].append(rule)
    for chain, rule in change.inserted:
        result[chain].insert(0, rule)
    for chain, rule in change.cut:
        result[chain].remove(rule)
    for chain in change.gone:
        del result[chain]
    for (table, _), some in result.items():
        for rule in some:
            target = rule.rsplit("-j ", 1)[1].split()[0]
            assert not target.startswith("KUBE-") or (table, target) in result, rule
    return result


def meaning(chains):
    """Where order does not matter there is none."""
    return {
        chain: sorted(rules) if not re.match(r"KUBE-(SVC|SVL|EXT|FW|SEP)-", chain[1]) else rules
        for chain, rules in chains.items()
    }


@given(WANTED, WANTED)
def test_a_change_ends_where_a_fresh_start_does(first, second):
    tables = IptablesServices(NAMES, services=["10.96.0.0/16"], pods=PODS)
    hooks = {chain: [] for chain in jumps(NAMES)}
    begun = applied(hooks, tables._whole("ip", first, Listed()))
    changes = {**dict.fromkeys(first.keys() - second.keys()), **second}
    changed = applied(begun, tables._difference(first, changes))
    fresh = applied(hooks, tables._whole("ip", second, Listed()))
    assert meaning(changed) == meaning(fresh)
    ours = {chain: rules for chain, rules in begun.items() if NAMES.has(chain[1])}
    listed = Listed(set(ours), dict(begun))
    taken_over = applied(begun, tables._whole("ip", second, listed))
    assert taken_over == fresh
    last = frame(NAMES, "ip", [])["nat", "KUBE-SERVICES"][-1]
    assert changed["nat", "KUBE-SERVICES"][-1] == last
