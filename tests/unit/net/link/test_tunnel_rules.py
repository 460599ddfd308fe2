from wherry.net.link.tunnel_rules import no_rules, rules


def test_each_family_has_a_table_that_knows_its_own_range() -> None:
    text = rules("t", "tunnel", "10.244.0.0/16,fd00:10:244::/56")
    ipv4, ipv6 = text.split("table ip6 t")
    assert ipv4.startswith("table ip t")
    assert 'oifname "tunnel" ip saddr != 10.244.0.0/16 masquerade' in ipv4
    assert 'oifname "tunnel" ip6 saddr != fd00:10:244::/56 masquerade' in ipv6
    assert "10.244" not in ipv6


def test_no_rules_can_be_said_twice() -> None:
    for family in ("ip", "ip6"):
        # Made before it is deleted, as nft refuses to delete what is not there.
        assert f"table {family} t\ndelete table {family} t\n" in no_rules("t")
