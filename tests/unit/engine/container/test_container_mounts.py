import pytest

from wherry.engine.container.mounts import mount_points, parse_bind, parse_tmpfs
from wherry.engine.errors import BadParameter, NotImplementedByEngine


def test_a_bind_has_a_source_a_destination_and_a_mode():
    point = parse_bind("/data//x/:/srv/:ro,rslave")
    assert (point.source, point.destination) == ("/data/x", "/srv")
    assert (point.writable, point.propagation, point.mode) == (False, "rslave", "ro,rslave")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("/a:/b:ro:x", "invalid volume specification: '/a:/b:ro:x'"),
        ("/a:", "invalid volume specification: '/a:'"),
        ("/a:/", "invalid volume specification: '/a:/': destination can't be '/'"),
        ("/a:/b:fast", "invalid mode: fast"),
    ],
)
def test_malformed_binds_are_refused(text, message):
    with pytest.raises(BadParameter) as caught:
        parse_bind(text)
    assert caught.value.message == message


def test_a_bind_to_a_relative_path_is_refused():
    with pytest.raises(BadParameter, match="mount path must be absolute"):
        parse_bind("/a:b")


def test_named_volumes_say_that_they_are_not_there():
    with pytest.raises(NotImplementedByEngine):
        parse_bind("data:/srv")


def points(**host):
    exists = host.pop("exists", lambda path: True)
    return mount_points({"Binds": None, **host}, exists=exists)


def test_outer_mounts_come_before_inner_ones():
    found = points(Binds=["/a:/srv/www/x", "/b:/srv"], Tmpfs={"/tmp": ""})
    assert [point.destination for point in found] == ["/srv", "/tmp", "/srv/www/x"]


def test_one_destination_takes_one_mount():
    with pytest.raises(BadParameter, match="Duplicate mount point: /srv"):
        points(Binds=["/a:/srv", "/b:/srv/"])


def test_mount_does_not_create_its_source_but_v_does():
    mounts = [{"Type": "bind", "Source": "/nope", "Target": "/x"}]
    with pytest.raises(BadParameter) as caught:
        points(Mounts=mounts, exists=lambda path: False)
    assert caught.value.message == (
        'invalid mount config for type "bind": bind source path does not exist: /nope'
    )
    assert points(Binds=["/nope:/x"], exists=lambda path: False)


def test_a_tmpfs_is_safe_unless_told_otherwise():
    assert parse_tmpfs("/t", "").options == ["noexec", "nosuid", "nodev"]
    assert parse_tmpfs("/t", "exec,size=64m").options == ["nosuid", "nodev", "exec", "size=64m"]
