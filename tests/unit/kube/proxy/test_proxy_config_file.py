"""KubeProxyConfiguration."""

import pytest

from wherry.kube.proxy.config_file import Settings, parse

HEAD = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n"


def test_without_a_word_the_mode_is_nftables():
    assert parse("") == Settings() == parse(HEAD) == parse(HEAD + "mode: ''\n")


def test_what_is_acted_upon_is_read_and_the_rest_is_taken():
    text = HEAD + (
        "mode: iptables\nclusterCIDR: 10.0.0.0/8\niptables: {masqueradeAll: true}\n"
        "healthzBindAddress: 0.0.0.0:10256\nmetricsBindAddress: '[::1]:10249'\n"
    )
    assert parse(text) == Settings("iptables", ("0.0.0.0", 10256), ("::1", 10249))


def test_how_tcp_is_tracked_is_left_as_it_is_unless_the_file_says_otherwise():
    assert not parse(HEAD + "conntrack: {tcpBeLiberal: false, min: 0}\n").tcp_be_liberal
    assert parse(HEAD + "conntrack: {tcpBeLiberal: true}\n") == Settings(tcp_be_liberal=True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (HEAD + "mode: ipvs\n", 'mode: Invalid value: "ipvs": must be nftables, iptables'),
        (HEAD + "healthzBindAddress: here\n", 'Invalid value: "here": must be IP:port'),
        (HEAD + "conntrack: {tcpBeLiberal: 'yes'}\n", "must be true or false"),
        (HEAD + "conntrack: all\n", 'conntrack: Invalid value: "all": must be a mapping'),
        ("kind: Pod\napiVersion: v1\n", "no kind 'Pod' is registered"),
        ("- a\n", "is no mapping"),
        ("a: [\n", "is no YAML"),
    ],
)
def test_what_is_wrong_is_said(text, said):
    with pytest.raises(ValueError, match="the proxy's configuration") as caught:
        parse(text)
    assert said in str(caught.value)
