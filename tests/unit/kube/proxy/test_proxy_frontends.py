"""What a Service and its slices make reachable."""

from wherry.kube.proxy.frontends import frontends
from wherry.net.service_map import Backend, Frontend


def service(**spec):
    spec = {
        "clusterIP": "10.96.0.10",
        "ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
        **spec,
    }
    return {"metadata": {"name": "web", "namespace": "default"}, "spec": spec}


def endpoint(address, node="one", **conditions):
    return {
        "addresses": [address],
        "nodeName": node,
        "conditions": {"ready": True, **conditions},
    }


def slice_of(*endpoints, port=8080, name="http", protocol="TCP", family="IPv4"):
    return {
        "addressType": family,
        "ports": [{"name": name, "port": port, "protocol": protocol}],
        "endpoints": list(endpoints),
    }


def test_ready_endpoints_of_all_slices_answer_in_a_stable_order():
    slices = [slice_of(endpoint("10.244.0.3")), slice_of(endpoint("10.244.0.2"))]
    assert frontends(service(), slices, node_name="one") == {
        Frontend("tcp", 80, "10.96.0.10"): Backend((("10.244.0.2", 8080), ("10.244.0.3", 8080)))
    }


def test_a_service_without_endpoints_still_has_its_address():
    assert frontends(service(), [], node_name="one") == {
        Frontend("tcp", 80, "10.96.0.10"): Backend()
    }


def test_terminating_endpoints_answer_only_where_no_other_does():
    going = endpoint("10.244.0.2", ready=False, serving=True, terminating=True)
    (backend,) = frontends(service(), [slice_of(going)], node_name="one").values()
    assert backend.endpoints == (("10.244.0.2", 8080),)
    slices = [slice_of(going, endpoint("10.244.0.3"))]
    (backend,) = frontends(service(), slices, node_name="one").values()
    assert backend.endpoints == (("10.244.0.3", 8080),)


def test_unready_endpoints_do_not_answer():
    slices = [slice_of(endpoint("10.244.0.2", ready=False, serving=False))]
    (backend,) = frontends(service(), slices, node_name="one").values()
    assert backend.endpoints == ()


def test_ports_are_matched_by_name_and_protocol():
    both = service(
        ports=[
            {"name": "dns", "port": 53, "protocol": "UDP"},
            {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
        ]
    )
    slices = [slice_of(endpoint("10.244.0.2"), port=5353, name="dns", protocol="UDP")]
    assert frontends(both, slices, node_name="one") == {
        Frontend("udp", 53, "10.96.0.10"): Backend((("10.244.0.2", 5353),)),
        Frontend("tcp", 53, "10.96.0.10"): Backend(),
    }


def test_headless_and_external_name_services_and_those_of_other_proxies_are_left_alone():
    assert frontends(service(clusterIP="None"), [], node_name="one") == {}
    assert frontends(service(type="ExternalName"), [], node_name="one") == {}
    other = service()
    other["metadata"]["labels"] = {"service.kubernetes.io/service-proxy-name": "mine"}
    assert frontends(other, [], node_name="one") == {}


def test_a_node_port_hides_its_clients_unless_only_local_endpoints_may_answer():
    slices = [slice_of(endpoint("10.244.0.2", node="one"), endpoint("10.244.1.2", node="two"))]
    port = {"name": "http", "port": 80, "protocol": "TCP", "nodePort": 30080}
    open_to_all = frontends(service(ports=[port]), slices, node_name="one")
    assert open_to_all[Frontend("tcp", 30080)] == Backend(
        (("10.244.0.2", 8080), ("10.244.1.2", 8080)), masquerade=True
    )
    local = frontends(service(ports=[port], externalTrafficPolicy="Local"), slices, node_name="one")
    assert local[Frontend("tcp", 30080)] == Backend((("10.244.0.2", 8080),))
    assert len(local[Frontend("tcp", 80, "10.96.0.10")].endpoints) == 2


def test_internal_traffic_policy_local_keeps_to_the_node():
    slices = [slice_of(endpoint("10.244.1.2", node="two"))]
    (backend,) = frontends(service(internalTrafficPolicy="Local"), slices, node_name="one").values()
    assert backend.endpoints == ()


def test_external_and_load_balancer_addresses_answer_too():
    balanced = service(externalIPs=["192.0.2.7"])
    balanced["status"] = {"loadBalancer": {"ingress": [{"ip": "192.0.2.8"}]}}
    result = frontends(balanced, [slice_of(endpoint("10.244.0.2"))], node_name="one")
    for address in ("192.0.2.7", "192.0.2.8"):
        assert result[Frontend("tcp", 80, address)].masquerade


def test_client_affinity_has_upstreams_default_time():
    (backend,) = frontends(service(sessionAffinity="ClientIP"), [], node_name="one").values()
    assert backend.affinity == 10800


def test_addresses_of_the_other_family_are_passed_over():
    slices = [slice_of(endpoint("fd00::2"), family="IPv6")]
    dual = service(clusterIPs=["10.96.0.10", "fd00::10"])
    assert frontends(dual, slices, node_name="one") == {
        Frontend("tcp", 80, "10.96.0.10"): Backend()
    }
