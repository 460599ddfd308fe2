from pathlib import Path
from types import SimpleNamespace

import pytest

from wherry.engine.container.container import MountPoint
from wherry.engine.container.mount_options import decode_mounts
from wherry.engine.container.mounts import (
    Context,
    parse_bind,
    parse_mount,
    parse_tmpfs,
    parse_volumes_from,
    wanted,
)
from wherry.engine.errors import BadParameter


def refused(call, *arguments):
    with pytest.raises(BadParameter) as caught:
        call(*arguments)
    return caught.value.message


def test_a_bind_has_a_source_a_destination_and_a_mode():
    point = parse_bind("/data//x/:/srv/:ro,rslave")
    assert (point.type, point.source, point.destination) == ("bind", "/data/x", "/srv")
    assert (point.writable, point.propagation, point.mode) == (False, "rslave", "ro,rslave")


def test_a_source_that_is_no_path_is_a_volume():
    point = parse_bind("data:/srv:ro,nocopy", "local")
    assert (point.type, point.name, point.mode) == ("volume", "data", "ro,nocopy")
    assert (point.writable, point.copy, point.anonymous) == (False, False, False)
    assert parse_bind("data:/srv").mode == "z"
    assert parse_bind("data:/srv").copy


def test_a_destination_alone_is_an_anonymous_volume():
    point = parse_bind("/srv")
    assert (point.type, point.name, point.anonymous) == ("volume", "", True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("/a:/b:ro:x", "invalid volume specification: '/a:/b:ro:x'"),
        ("/a:", "invalid volume specification: '/a:'"),
        (":/a", "invalid volume specification: ':/a'"),
        ("", "invalid volume specification: ''"),
        ("/a:rw", "invalid volume specification: '/a:rw'"),
        (
            "/a:/",
            "invalid volume specification: '/a:/': invalid mount config for type \"bind\": "
            "invalid specification: destination can't be '/'",
        ),
        (
            "/a:b",
            "invalid volume specification: '/a:b': invalid mount config for type \"bind\": "
            "invalid mount path: 'b' mount path must be absolute",
        ),
        ("/a:/b:fast", "invalid mode: fast"),
        ("/a:/b:ro,rw", "invalid mode: ro,rw"),
        (
            "/a:/b:nocopy",
            "invalid volume specification: '/a:/b:nocopy': invalid mount config for type "
            '"bind": field VolumeOptions must not be specified',
        ),
        (
            "vol:/b:rshared",
            "invalid volume specification: 'vol:/b:rshared': invalid mount config for type "
            '"volume": field BindOptions must not be specified',
        ),
    ],
)
def test_malformed_binds_are_refused(text, message):
    assert refused(parse_bind, text) == message


@pytest.mark.parametrize(
    ("mount", "message"),
    [
        ({"Type": "bind", "Target": "/x"}, 'type "bind": field Source must not be empty'),
        ({"Type": "foo", "Target": "/x"}, 'type "foo": mount type unknown'),
        ({"Type": "npipe", "Source": "a", "Target": "/x"}, 'type "npipe": mount type unknown'),
        ({"Type": "volume"}, 'type "volume": field Target must not be empty'),
        (
            {"Type": "volume", "Target": "/"},
            "type \"volume\": invalid specification: destination can't be '/'",
        ),
        (
            {"Type": "bind", "Source": "/etc", "Target": "/x", "VolumeOptions": {}},
            'type "bind": field VolumeOptions must not be specified',
        ),
        (
            {"Type": "bind", "Source": "/etc", "Target": "/x", "BindOptions": {"Propagation": "f"}},
            'type "bind": invalid propagation mode: f',
        ),
        (
            {"Type": "bind", "Source": "etc", "Target": "/x"},
            "type \"bind\": invalid mount path: 'etc' mount path must be absolute",
        ),
        (
            {"Type": "bind", "Source": "/nope", "Target": "/x"},
            'type "bind": bind source path does not exist: /nope',
        ),
        (
            {"Type": "tmpfs", "Source": "/etc", "Target": "/x"},
            'type "tmpfs": field Source must not be specified',
        ),
        (
            {"Type": "tmpfs", "Target": "/x", "BindOptions": {}},
            'type "tmpfs": field BindOptions must not be specified',
        ),
        (
            {"Type": "tmpfs", "Target": "/x", "TmpfsOptions": {"Options": [["a", "b"]]}},
            'type "tmpfs": invalid tmpfs option ["a" "b"]',
        ),
        (
            {"Type": "volume", "Target": "/x", "ReadOnly": True},
            'type "volume": must not set ReadOnly mode when using anonymous volumes',
        ),
        (
            {"Type": "volume", "Target": "/x", "VolumeOptions": {"Subpath": "a"}},
            'type "volume": must not set Subpath when using anonymous volumes',
        ),
        (
            {"Type": "volume", "Source": "v", "Target": "/x", "VolumeOptions": {"Subpath": "a/../.."}},  # noqa: E501
            'type "volume": subpath must be a relative path within the volume',
        ),
        (
            {"Type": "bind", "Source": "/etc", "Target": "/x", "BindOptions": {"ReadOnlyForceRecursive": True}},  # noqa: E501
            'type "bind": mount options conflict: !ReadOnly && BindOptions.ReadOnlyForceRecursive',
        ),
    ],
)  # fmt: skip
def test_malformed_mounts_are_refused(mount, message):
    text = refused(parse_mount, mount, lambda path: path != "/nope")
    assert text == f"invalid mount config for {message}"


def points(config=None, context=None, **host):
    base = {"Binds": None, "VolumesFrom": None, "VolumeDriver": ""}
    context = context or Context(exists=lambda path: True)
    return [one.point for one in wanted({"Volumes": config}, {**base, **host}, context)]


def test_outer_mounts_come_before_inner_ones():
    found = points(Binds=["/a:/srv/www/x", "/b:/srv"], Tmpfs={"/tmp": ""})
    assert [point.destination for point in found] == ["/srv", "/tmp", "/srv/www/x"]


@pytest.mark.parametrize(
    "host",
    [
        {"Binds": ["/a:/srv", "/b:/srv/"]},
        {"Binds": ["/a:/srv"], "Tmpfs": {"/srv": ""}},
        {"Binds": ["/a:/srv"], "Mounts": [{"Type": "tmpfs", "Target": "/srv"}]},
        {"Mounts": [{"Type": "tmpfs", "Target": "/srv"}, {"Type": "volume", "Target": "/srv"}]},
    ],
)
def test_one_destination_takes_one_mount(host):
    assert refused(lambda: points(**host)) == "Duplicate mount point: /srv"


def test_what_is_mounted_otherwise_is_no_volume_of_the_image():
    image = {"/a": {}, "/b/": {}, "/c": {}}
    found = points(image, Binds=["/x:/a"], Tmpfs={"/b": ""})
    assert [(p.type, p.destination) for p in found] == [
        ("bind", "/a"), ("volume", "/c"), ("tmpfs", "/b")
    ]  # fmt: skip
    assert found[1].copy
    assert found[1].anonymous
    assert found[1].mode == ""


def test_mounts_of_others_are_taken_over_unless_the_request_has_its_own():
    first = [
        MountPoint("bind", "/a", "/host/a", mode="rw"),
        MountPoint("volume", "/v", name="x" * 64, anonymous=True, copy=True),
        MountPoint("tmpfs", "/t", listed=False),
    ]
    second = [MountPoint("bind", "/a", "/host/b"), MountPoint("bind", "/c", "/c", writable=False)]
    others = {"one": SimpleNamespace(mounts=first), "two": SimpleNamespace(mounts=second)}
    found = points(
        {"/v": {}},
        Context(find=others.get, exists=lambda path: True),
        VolumesFrom=["one:ro", "two"],
        Binds=["/mine:/c"],
    )
    seen = {p.destination: (p.source or p.name, p.writable, p.mode, p.copy) for p in found}
    assert seen == {
        "/a": ("/host/b", True, "", False),
        "/v": ("x" * 64, False, "", False),
        "/c": ("/mine", True, "", False),
    }
    assert refused(lambda: points(VolumesFrom=["nope"])) == "No such container: nope"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "volumes-from specification cannot be an empty string"),
        ("a:foo", "invalid mode: foo"),
        ("a:rshared", "invalid mode: rshared"),
        ("a:nocopy", "invalid mode: nocopy"),
    ],
)
def test_volumes_from_knows_few_modes(text, message):
    assert refused(parse_volumes_from, text) == message


def test_a_tmpfs_keeps_its_options_and_is_not_listed():
    point = parse_tmpfs("/t/", "exec,size=64m")
    assert (point.destination, point.options, point.listed) == ("/t", ["exec", "size=64m"], False)
    assert refused(parse_tmpfs, "t", "") == "invalid mount path: 't' mount path must be absolute"
    assert refused(parse_tmpfs, "/", "") == "invalid specification: destination can't be '/'"


def test_binds_of_the_daemons_own_files_hear_of_its_unmounts():
    context = Context(daemon_root=Path("/var/lib/w"), exists=lambda path: True)
    mine, other = points(None, context, Binds=["/:/host", "/srv:/srv"])
    assert (mine.propagation, mine.slave_if_possible) == ("rslave", True)
    assert (other.propagation, other.slave_if_possible) == ("rprivate", False)
    text = refused(lambda: points(None, context, Binds=["/var:/x:private"]))
    assert text == (
        'invalid mount config: must use either propagation mode "rslave" or "rshared" when mount '
        'source is within the daemon root, daemon root: "/var/lib/w", bind mount source: "/var", '
        'propagation: "private"'
    )


def test_for_old_clients_read_only_does_not_reach_below():
    context = Context(exists=lambda path: True, version=(1, 43))
    assert points(None, context, Binds=["/a:/a:ro"])[0].read_only == "top"
    assert points(Binds=["/a:/a:ro"])[0].read_only == ""


def test_mounts_are_kept_without_what_is_empty_or_unknown():
    given = {
        "Type": "bind",
        "Source": "/a",
        "Target": "/b",
        "ReadOnly": False,
        "Consistency": "",
        "Colour": "red",
        "BindOptions": {"Propagation": "", "Taste": 1},
        "VolumeOptions": {"NoCopy": False, "DriverConfig": {}},
    }
    assert decode_mounts([given], "Mounts") == [
        {
            "Type": "bind",
            "Source": "/a",
            "Target": "/b",
            "BindOptions": {},
            "VolumeOptions": {"DriverConfig": {}},
        }
    ]


def test_values_of_another_type_are_refused_in_the_words_of_go():
    mount = {"Type": "tmpfs", "TmpfsOptions": {"SizeBytes": "a"}}
    assert refused(decode_mounts, [mount], "CreateRequest.HostConfig.Mounts") == (
        "invalid JSON: json: cannot unmarshal string into Go struct field "
        "CreateRequest.HostConfig.Mounts.TmpfsOptions.SizeBytes of type int64"
    )
