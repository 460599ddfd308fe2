"""Tables of iptables as text."""

from wherry.net.service.iptables import programs
from wherry.net.service.iptables.chains import closed
from wherry.net.service.iptables.programs import Change


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
    assert programs._target(rule) == "DROP"
    assert programs._target("-j KUBE-SERVICES") == "KUBE-SERVICES"
    assert programs.link_of(closed("wherry0p")) == "wherry0p"
    assert programs.link_of("-d 10.0.0.1/32 -j DROP") == ""
