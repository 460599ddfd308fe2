import ssl

import pytest

from wherry.launcher import docker_tcp
from wherry.launcher.instance import Instance, InstanceError
from wherry.launcher.pki import names_of


def instance(tmp_path, tcp):
    return Instance(tmp_path, 3, "box", "192.0.2.7", 6446, 10253, tcp)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("127.0.0.1:2376", "127.0.0.1:2376"),
        ("tcp://box.example:1234", "box.example:1234"),
        ("0.0.0.0", "0.0.0.0:2376"),
        ("[::1]:99", "[::1]:99"),
        ("off", ""),
    ],
)
def test_addresses(text, kept):
    assert docker_tcp.normalise(text) == kept


@pytest.mark.parametrize("text", [":2376", "a:b", "a:0", "a:70000", "http://a:1", "::1:99"])
def test_addresses_that_are_none(text):
    with pytest.raises(InstanceError, match="is not HOST:PORT"):
        docker_tcp.normalise(text)


@pytest.mark.parametrize(
    ("tcp", "host"),
    [
        ("0.0.0.0:2376", "tcp://127.0.0.1:2376"),
        ("[::]:2376", "tcp://[::1]:2376"),
        ("box:1", "tcp://box:1"),
    ],
)
def test_clients_here_reach_it(tmp_path, tcp, host):
    assert docker_tcp.client_host(instance(tmp_path, tcp)) == host


def test_off_is_off(tmp_path):
    assert docker_tcp.address(instance(tmp_path, "")) is None
    docker_tcp.ensure(instance(tmp_path, ""))
    assert not list(tmp_path.iterdir())
    with pytest.raises(InstanceError, match="turns it on"):
        docker_tcp.client_host(instance(tmp_path, ""))


def test_keys_are_private_and_for_the_names_it_has(tmp_path):
    one = instance(tmp_path, "10.1.2.3:2376")
    docker_tcp.ensure(one)
    places = docker_tcp.keys(one)
    first = (places.directory / "server.crt").read_bytes()
    assert names_of(first) == {"localhost", "box", "127.0.0.1", "::1", "192.0.2.7", "10.1.2.3"}
    for name in ("ca.pem", "cert.pem", "key.pem"):
        assert (places.client / name).stat().st_mode & 0o777 == 0o600
    assert places.client.stat().st_mode & 0o777 == 0o700
    context = ssl.create_default_context(cafile=places.client / "ca.pem")
    context.load_cert_chain(places.client / "cert.pem", places.client / "key.pem")

    docker_tcp.ensure(one)
    assert (places.directory / "server.crt").read_bytes() == first
    docker_tcp.ensure(instance(tmp_path, "other.example:2376"))
    assert "other.example" in names_of((places.directory / "server.crt").read_bytes())
