import pytest

from wherry.engine.container import hosts_file
from wherry.engine.container.hosts_file import Record

OWN = Record("172.18.0.2", "web")


def test_a_file_has_the_usual_names_and_the_records():
    text = hosts_file.build([Record("10.0.0.5", "db"), OWN])
    assert text.splitlines()[0] == "127.0.0.1\tlocalhost"
    assert text.endswith("ff02::2\tip6-allrouters\n10.0.0.5\tdb\n172.18.0.2\tweb\n")


@pytest.mark.parametrize(
    ("hostname", "domainname", "names"),
    [
        ("web", "", "web"),
        ("web", "example.org", "web.example.org web"),
        ("a.b.c", "", "a.b.c a"),
        ("a.b", "c", "a.b.c a"),
    ],
)
def test_own_names(hostname, domainname, names):
    assert hosts_file.own_names(hostname, domainname) == names


def test_own_lines_follow_the_places_and_the_rest_stays():
    text = "127.0.0.1\tlocalhost\n172.18.0.2\tweb\n# mine\n1.2.3.4\tweb and more\n5.6.7.8 web"
    second = Record("172.19.0.2", "web")
    both = hosts_file.replaced(text, "web", [OWN, second])
    assert both == f"{text}\n172.19.0.2\tweb\n"
    assert hosts_file.replaced(both, "web", [OWN, second]) == both
    assert hosts_file.replaced(both, "web", [second]) == both.replace("172.18.0.2\tweb\n", "")
    assert "172." not in hosts_file.replaced(both, "web", [])
    assert hosts_file.replaced("", "web", [OWN]) == "172.18.0.2\tweb\n"


def test_a_linked_container_moves():
    text = "172.17.0.2\tdb 1234 store\nfd00::2\tdb 1234 store\n172.17.0.2\tdbx\n172.17.0.3\tme db\n"
    moved = hosts_file.moved(text, "db", "172.17.0.9")
    assert moved == text.replace("172.17.0.2\tdb 1234", "172.17.0.9\tdb 1234")
    assert "fd00::9\tdb 1234" in hosts_file.moved(text, "db", "fd00::9")
    assert hosts_file.moved(text, "nobody", "1.1.1.1") == text


def test_added_hosts_and_the_host_itself():
    wanted = ["a:host-gateway", "b=10.0.0.1", "c:::1", "d:[fd00::1]"]
    assert hosts_file.added_hosts(wanted, ["172.17.0.1", "fd00::1"]) == [
        Record("172.17.0.1", "a"),
        Record("fd00::1", "a"),
        Record("10.0.0.1", "b"),
        Record("::1", "c"),
        Record("fd00::1", "d"),
    ]
