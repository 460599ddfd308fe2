"""What a Service and its slices make reachable."""

from itertools import permutations

from wherry.kube.proxy.ports import Place, health_check, ports

HERE = Place("one", "east")


def service(**spec):
    spec = {
        "clusterIP": "10.96.0.10",
        "ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
        **spec,
    }
    return {"metadata": {"name": "web", "namespace": "default"}, "spec": spec}


def balanced(*addresses, **spec):
    made = service(type="LoadBalancer", **spec)
    made["status"] = {"loadBalancer": {"ingress": [{"ip": ip} for ip in addresses]}}
    return made


def endpoint(address, node="one", hints=None, **conditions):
    made = {
        "addresses": [address],
        "nodeName": node,
        "conditions": {"ready": True, **conditions},
    }
    if hints:
        made["hints"] = {kind: [{"name": n} for n in names] for kind, names in hints.items()}
    return made


def slice_of(*endpoints, port=8080, name="http", protocol="TCP", family="IPv4"):
    return {
        "addressType": family,
        "ports": [{"name": name, "port": port, "protocol": protocol}],
        "endpoints": list(endpoints),
    }


NODE_PORT = [{"name": "http", "port": 80, "protocol": "TCP", "nodePort": 30080}]
GOING = {"ready": False, "serving": True, "terminating": True}
NEAR_AND_FAR = [slice_of(endpoint("10.244.0.2"), endpoint("10.244.1.2", node="two"))]


def only(*args, place=HERE):
    (port,) = ports(*args, place)
    return port


def addresses(endpoints):
    return [address for address, _ in endpoints]


def test_ready_endpoints_of_all_slices_answer_in_a_stable_order():
    slices = [slice_of(endpoint("10.244.0.3")), slice_of(endpoint("10.244.0.2"))]
    port = only(service(), slices)
    assert port.inside == (("10.244.0.2", 8080), ("10.244.0.3", 8080))
    assert (port.name, port.cluster_ip, port.port) == ("default/web:http", "10.96.0.10", 80)


def test_a_service_without_endpoints_still_has_its_address():
    port = only(service(), [])
    assert port.inside == () and not port.inside_elsewhere


def test_terminating_endpoints_answer_only_where_no_other_does():
    going = endpoint("10.244.0.2", **GOING)
    assert addresses(only(service(), [slice_of(going)]).inside) == ["10.244.0.2"]
    slices = [slice_of(going, endpoint("10.244.0.3"))]
    assert addresses(only(service(), slices).inside) == ["10.244.0.3"]


def test_an_endpoint_that_terminates_serves_on_unless_it_says_that_it_does_not():
    for serving, count in ((None, 1), (True, 1), (False, 0)):
        going = endpoint("10.244.0.2", **(GOING | {"serving": serving}))
        if serving is None:
            del going["conditions"]["serving"]
        assert len(only(service(), [slice_of(going)]).inside) == count


def test_of_an_endpoint_in_several_slices_the_order_in_which_they_came_does_not_matter():
    far, here = endpoint("10.244.0.2", node="two"), endpoint("10.244.0.2")
    east, west = (endpoint("10.244.0.3", hints={"forZones": [z]}) for z in ("east", "west"))
    other = endpoint("10.244.0.4", hints={"forZones": ["east"]})
    for listed in ([far, here], [east, west, other]):
        slices = [
            {**slice_of(one), "metadata": {"name": f"web-{number}"}}
            for number, one in enumerate(listed)
        ]
        wanted = only(service(ports=NODE_PORT, externalTrafficPolicy="Local"), slices)
        assert "10.244.0.2" not in str(listed) or addresses(wanted.outside) == ["10.244.0.2"]
        for order in permutations(slices):
            local = service(ports=NODE_PORT, externalTrafficPolicy="Local")
            assert only(local, list(order)) == wanted


def test_a_local_policy_prefers_an_endpoint_here_that_terminates_to_none():
    slices = [slice_of(endpoint("10.244.0.2", **GOING), endpoint("10.244.1.2", node="two"))]
    port = only(service(ports=NODE_PORT, externalTrafficPolicy="Local"), slices)
    assert addresses(port.outside) == ["10.244.0.2"]
    assert addresses(port.inside) == ["10.244.1.2"]


def test_unready_endpoints_do_not_answer_and_unknown_ones_do():
    assert only(service(), [slice_of(endpoint("10.244.0.2", ready=False))]).inside == ()
    assert only(service(), [slice_of(endpoint("10.244.0.2", ready=None))]).inside


def test_ports_are_matched_by_name_and_protocol():
    both = service(
        ports=[
            {"name": "dns", "port": 53, "protocol": "UDP"},
            {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
        ]
    )
    slices = [slice_of(endpoint("10.244.0.2"), port=5353, name="dns", protocol="UDP")]
    found = {port.protocol: port.inside for port in ports(both, slices, HERE)}
    assert found == {"udp": (("10.244.0.2", 5353),), "tcp": ()}


def test_headless_and_external_name_services_and_those_of_other_proxies_are_left_alone():
    assert ports(service(clusterIP="None"), [], HERE) == []
    assert ports(service(type="ExternalName"), [], HERE) == []
    for label in ("service-proxy-name", "headless"):
        labels = {f"service.kubernetes.io/{label}": "mine"}
        other = service()
        other["metadata"]["labels"] = labels
        assert ports(other, [], HERE) == []
        slice_ = {**slice_of(endpoint("10.244.0.2")), "metadata": {"labels": labels}}
        assert only(service(), [slice_]).inside == ()


def test_a_node_port_hides_its_clients_unless_only_local_endpoints_may_answer():
    port = only(service(ports=NODE_PORT), NEAR_AND_FAR)
    assert port.node_port == 30080 and port.masquerade and port.everywhere == ()
    assert addresses(port.outside) == ["10.244.0.2", "10.244.1.2"]
    port = only(service(ports=NODE_PORT, externalTrafficPolicy="Local"), NEAR_AND_FAR)
    assert not port.masquerade
    assert addresses(port.outside) == ["10.244.0.2"]
    assert addresses(port.everywhere) == addresses(port.inside) == ["10.244.0.2", "10.244.1.2"]


def test_a_local_policy_without_endpoints_here_says_nothing_to_clients_of_others():
    far = [slice_of(endpoint("10.244.1.2", node="two"))]
    port = only(service(internalTrafficPolicy="Local"), far)
    assert port.inside == () and port.inside_elsewhere
    port = only(service(ports=NODE_PORT, externalTrafficPolicy="Local"), far)
    assert port.outside == () and port.outside_elsewhere and port.everywhere


def test_external_and_load_balancer_addresses_answer_too():
    port = only(balanced("192.0.2.8", externalIPs=["192.0.2.7"]), NEAR_AND_FAR)
    assert port.outer_addresses == ("192.0.2.7", "192.0.2.8")
    assert len(port.outside) == 2


def test_a_balancer_that_is_a_proxy_itself_keeps_its_address():
    made = balanced("192.0.2.8")
    made["status"]["loadBalancer"]["ingress"][0]["ipMode"] = "Proxy"
    assert only(made, NEAR_AND_FAR).outer_addresses == ()


def test_source_ranges_hold_for_their_family_and_allow_nobody_of_the_other():
    port = only(balanced("192.0.2.8", loadBalancerSourceRanges=["10.0.0.0/8", "fd00::/8"]), [])
    assert port.sources == ("10.0.0.0/8",)
    port = only(balanced("192.0.2.8", loadBalancerSourceRanges=["fd00::/8"]), [])
    assert port.sources == ("0.0.0.0/32",)
    assert only(balanced("192.0.2.8"), []).sources == ()


def test_client_affinity_has_upstreams_default_time():
    assert only(service(sessionAffinity="ClientIP"), []).affinity == 10800
    config = {"clientIP": {"timeoutSeconds": 5}}
    made = service(sessionAffinity="ClientIP", sessionAffinityConfig=config)
    assert only(made, []).affinity == 5


def test_both_families_are_served_by_endpoints_of_their_own():
    slices = [
        slice_of(endpoint("10.244.0.2")),
        slice_of(endpoint("fd00::2"), family="IPv6"),
    ]
    dual = service(clusterIPs=["10.96.0.10", "fd00::10"], externalIPs=["2001:db8::1"])
    four, six = ports(dual, slices, HERE)
    assert (four.family, addresses(four.inside), four.external_ips) == ("ip", ["10.244.0.2"], ())
    assert (six.family, addresses(six.inside)) == ("ip6", ["fd00::2"])
    assert six.external_ips == ("2001:db8::1",)


def test_endpoints_meant_for_this_zone_are_taken_where_all_say_for_whom_they_are():
    east = endpoint("10.244.0.2", hints={"forZones": ["east"]})
    west = endpoint("10.244.1.2", hints={"forZones": ["west"]})
    slices = [slice_of(east, west)]
    assert addresses(only(service(), slices).inside) == ["10.244.0.2"]
    assert len(only(service(), slices, place=Place("one", "north")).inside) == 2
    assert len(only(service(), slices, place=Place("one")).inside) == 2
    slices = [slice_of(east, west, endpoint("10.244.2.2"))]
    assert len(only(service(), slices).inside) == 3


def test_endpoints_meant_for_this_node_come_before_those_for_its_zone():
    own = endpoint("10.244.0.2", hints={"forZones": ["east"], "forNodes": ["one"]})
    near = endpoint("10.244.1.2", hints={"forZones": ["east"], "forNodes": ["two"]})
    slices = [slice_of(own, near)]
    assert addresses(only(service(), slices).inside) == ["10.244.0.2"]
    assert len(only(service(), slices, place=Place("three", "east")).inside) == 2


def test_hints_do_not_concern_policies_that_keep_to_the_node():
    slices = [
        slice_of(
            endpoint("10.244.0.2", hints={"forZones": ["west"]}),
            endpoint("10.244.1.2", node="two", hints={"forZones": ["east"]}),
        )
    ]
    assert addresses(only(service(internalTrafficPolicy="Local"), slices).inside) == ["10.244.0.2"]
    assert addresses(only(service(), slices).inside) == ["10.244.1.2"]


def test_balancers_ask_where_the_policy_is_local_and_hear_of_ready_endpoints_here():
    slices = [
        slice_of(endpoint("10.244.0.2"), endpoint("10.244.0.3", **GOING)),
        slice_of(endpoint("10.244.1.2", node="two")),
    ]
    made = balanced("192.0.2.8", externalTrafficPolicy="Local", healthCheckNodePort=31000)
    assert health_check(made, slices, "one") == (31000, 1)
    assert health_check(made, slices, "three") == (31000, 0)
    assert health_check(balanced("192.0.2.8"), slices, "one") == (0, 0)
