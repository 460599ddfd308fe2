import pytest
from containers_helper import make

from wherry.engine.container import identity
from wherry.engine.container.container import Endpoint
from wherry.engine.container.hosts_file import Record


@pytest.fixture
def root(tmp_path):
    """A host's root directory."""
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/hosts").write_text("127.0.0.1 localhost here\n")
    (root / "etc/resolv.conf").write_text("nameserver 127.0.0.1\nnameserver 10.0.0.2\n# x\n")
    return root


def container(tmp_path, **options):
    made = make(home=tmp_path, **options)
    made.endpoints = {"bridge": Endpoint("bridge", address="172.17.0.2", address6="fd00::2")}
    return made


def read(made, name):
    return made.file(name).read_text()


def test_the_files_keep_their_inodes_when_rewritten(tmp_path, root):
    made = container(tmp_path)
    identity.write(made, root=root)
    before = made.file("hosts").stat().st_ino
    made.endpoints["bridge"].address = "172.17.0.9"
    identity.write(made, root=root)
    assert made.file("hosts").stat().st_ino == before
    assert "172.17.0.9\t111111111111\nfd00::2\t111111111111\n" in read(made, "hosts")
    assert read(made, "hostname") == "111111111111\n"


def test_hosts_has_what_the_user_added_then_links_then_its_own(tmp_path, root):
    made = container(
        tmp_path,
        config={"Hostname": "web", "Domainname": "example.org"},
        host={"ExtraHosts": ["me:host-gateway"]},
    )
    identity.write(
        made, gateways=["172.17.0.1"], linked=[Record("172.17.0.3", "db store")], root=root
    )
    assert read(made, "hosts").endswith(
        "172.17.0.1\tme\n172.17.0.3\tdb store\n"
        "172.17.0.2\tweb.example.org web\nfd00::2\tweb.example.org web\n"
    )
    assert read(made, "hostname") == "web\n"


def test_on_the_host_s_network_the_host_s_files_are_copied(tmp_path, root):
    made = container(tmp_path, host={"NetworkMode": "host"})
    made.endpoints = {}
    identity.write(made, root=root)
    assert read(made, "hosts") == (root / "etc/hosts").read_text()
    assert read(made, "resolv.conf") == (root / "etc/resolv.conf").read_text()


def test_unless_the_user_chose_something(tmp_path, root):
    made = container(
        tmp_path,
        host={"NetworkMode": "host", "ExtraHosts": ["a:1.2.3.4"], "DnsSearch": ["example.org"]},
    )
    made.endpoints = {}
    identity.write(made, root=root)
    assert read(made, "hosts").endswith("1.2.3.4\ta\n")
    assert "here" not in read(made, "hosts")
    assert read(made, "resolv.conf") == (
        "nameserver 127.0.0.1\nnameserver 10.0.0.2\nsearch example.org\n"
    )


def test_servers_on_the_host_s_loopback_are_ours_to_ask(tmp_path, root):
    made = container(tmp_path)
    identity.write(made, root=root)
    assert read(made, "resolv.conf") == "nameserver 10.0.0.2\n"
    identity.write(made, name_server="127.0.0.11", root=root)
    assert read(made, "resolv.conf") == "nameserver 127.0.0.11\noptions ndots:0\n"


def test_a_running_container_follows_its_networks(tmp_path, root):
    made = container(tmp_path)
    identity.write(made, root=root)
    made.endpoints["front"] = Endpoint("front", address="172.18.0.2")
    identity.follow(made, "127.0.0.11", root)
    assert "172.17.0.2\t111111111111\nfd00::2\t111111111111\n172.18.0.2\t111111111111\n" in read(
        made, "hosts"
    )
    assert read(made, "resolv.conf") == "nameserver 127.0.0.11\noptions ndots:0\n"
    del made.endpoints["bridge"]
    identity.follow(made, "127.0.0.11", root)
    assert "172.17.0.2" not in read(made, "hosts")


def test_what_somebody_has_written_stays(tmp_path, root):
    made = container(tmp_path)
    identity.write(made, root=root)
    made.file("resolv.conf").write_text("nameserver 9.9.9.9\n")
    made.file("hosts").write_text("1.1.1.1 mine\n")
    identity.follow(made, "127.0.0.11", root)
    assert read(made, "resolv.conf") == "nameserver 9.9.9.9\n"
    assert read(made, "hosts") == (
        "1.1.1.1 mine\n172.17.0.2\t111111111111\nfd00::2\t111111111111\n"
    )
    identity.write(made, root=root)
    assert read(made, "resolv.conf") == "nameserver 10.0.0.2\n"


def test_links_of_a_running_container_move_and_go(tmp_path, root):
    made = container(tmp_path)
    identity.write(made, linked=[Record("172.17.0.3", "db store")], root=root)
    identity.linked_moved(made, "db", ["172.17.0.8"])
    assert "172.17.0.8\tdb store\n" in read(made, "hosts")
    identity.linked_gone(made, "db")
    assert "db" not in read(made, "hosts")
