import pytest

from wherry.engine.errors import BadParameter, EngineError
from wherry.engine.volume import local
from wherry.engine.volume.volume import Volume


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"foo": "bar"}, 'invalid option: "foo"'),
        ({"type": "tmpfs"}, 'missing required option: "device"'),
        ({"device": "tmpfs"}, 'missing required option: "type"'),
        ({"o": "ro"}, 'missing required option: "device"'),
        ({"size": "1m"}, "quota size requested but no quota support"),
        ({"size": "bad"}, "invalid size: 'bad'"),
    ],
)
def test_options_are_judged(options, message):
    with pytest.raises(BadParameter) as caught:
        local.check_options(options)
    assert caught.value.message == message


def test_complete_options_are_taken():
    local.check_options({"type": "nfs", "o": "addr=1.2.3.4,rw", "device": ":/x", "size": "0"})


@pytest.fixture
def mounted(monkeypatch):
    calls = []
    monkeypatch.setattr(local.mount_options, "mount", lambda *call: calls.append(call))
    monkeypatch.setattr(local, "_address", lambda name: "10.0.0.7")
    return calls


def mount(tmp_path, **options):
    local.mount(Volume("v1", tmp_path, options=options))


def test_the_server_of_a_network_file_system_is_looked_up(tmp_path, mounted):
    mount(tmp_path, type="nfs", o="addr=nas.home,rw", device=":/export")
    mount(tmp_path, type="nfs", o="addr=10.1.2.3", device=":/export")
    mount(tmp_path, type="cifs", o="username=x", device="//nas.home/share")
    mount(tmp_path, type="ext4", o="addr=nas.home", device="/dev/x")
    path = str(tmp_path / "_data")
    assert mounted == [
        (":/export", path, "nfs", "addr=10.0.0.7,rw"),
        (":/export", path, "nfs", "addr=10.1.2.3"),
        ("//10.0.0.7/share", path, "cifs", "username=x"),
        ("/dev/x", path, "ext4", "addr=nas.home"),
    ]


def test_a_password_is_not_told(tmp_path, monkeypatch):
    def refuse(*call):
        raise local.mount_options.MountError("mount x, data: password=secret,a=b: nope")

    monkeypatch.setattr(local.mount_options, "mount", refuse)
    with pytest.raises(EngineError) as caught:
        mount(tmp_path, type="ext4", o="password=secret", device="/dev/x")
    assert caught.value.message == (
        "failed to mount local volume: mount x, data: password=********,a=b: nope"
    )
