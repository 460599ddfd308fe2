"""Tables of iptables as text."""

from wherry.net import iptables
from wherry.net.iptables import Change
from wherry.net.service_chains import closed


def test_a_change_is_one_transaction_a_table():
    change = Change(
        whole={("nat", "KUBE-A"): ("-j RETURN",), ("filter", "KUBE-B"): ()},
        cut=[(("nat", "PREROUTING"), "-j KUBE-OLD")],
        inserted=[(("nat", "PREROUTING"), "-j KUBE-A")],
        gone={("nat", "KUBE-OLD")},
    )
    assert change.script() == (
        "*nat\n:KUBE-OLD - [0:0]\n:KUBE-A - [0:0]\n-A KUBE-A -j RETURN\n"
        "-I PREROUTING -j KUBE-A\n-D PREROUTING -j KUBE-OLD\n-X KUBE-OLD\nCOMMIT\n"
        "*filter\n:KUBE-B - [0:0]\nCOMMIT\n"
    )
    assert Change().script() == ""


def test_comments_are_not_taken_for_rules():
    rule = '-d 10.0.0.1/32 -m comment --comment "to -j KUBE-X \\" -j" -m tcp -j DROP'
    assert iptables._target(rule) == "DROP"
    assert iptables._target("-j KUBE-SERVICES") == "KUBE-SERVICES"
    assert iptables.link_of(closed("wherry0p")) == "wherry0p"
    assert iptables.link_of("-d 10.0.0.1/32 -j DROP") == ""
