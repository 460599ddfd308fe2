from containers_helper import make

from wherry.engine.container import identity


def test_a_container_knows_its_own_name_and_those_it_was_told():
    table = identity.hosts(["172.17.0.2"], "web", "example.org", [("db", "10.0.0.5")])
    assert table.splitlines()[0] == "127.0.0.1\tlocalhost"
    assert table.endswith("10.0.0.5\tdb\n172.17.0.2\tweb.example.org web\n")


def test_host_gateway_is_the_address_of_the_host():
    pairs = identity.extra_hosts(["a:host-gateway", "b=10.0.0.1", "c:::1"], "172.17.0.1")
    assert pairs == [("a", "172.17.0.1"), ("b", "10.0.0.1"), ("c", "::1")]


def test_name_servers_on_the_host_s_loopback_are_left_out():
    host = "# comment\nnameserver 127.0.0.53\nnameserver 10.0.0.2\nsearch a b\noptions edns0\n"
    assert identity.resolv_conf(host) == "nameserver 10.0.0.2\nsearch a b\noptions edns0\n"
    assert "127.0.0.53" in identity.resolv_conf(host, keep_loopback=True)


def test_without_a_usable_name_server_there_are_public_ones():
    assert identity.resolv_conf("nameserver ::1\n") == "nameserver 8.8.8.8\nnameserver 8.8.4.4\n"


def test_what_the_user_chose_replaces_what_the_host_has():
    text = identity.resolv_conf(
        "nameserver 10.0.0.2\nsearch a\n", servers=["1.1.1.1"], search=["."], options=["ndots:5"]
    )
    assert text == "nameserver 1.1.1.1\noptions ndots:5\n"


def test_the_files_keep_their_inodes_when_rewritten(tmp_path):
    container = make(home=tmp_path)
    identity.write(container, "172.17.0.1")
    before = container.file("hosts").stat().st_ino
    container.endpoints["bridge"].address = "172.17.0.9"
    identity.write(container, "172.17.0.1")
    assert container.file("hosts").stat().st_ino == before
    assert "172.17.0.9\t111111111111\n" in container.file("hosts").read_text()
    assert container.file("hostname").read_text() == "111111111111\n"
