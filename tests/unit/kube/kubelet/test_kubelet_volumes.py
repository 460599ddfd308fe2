"""Volumes: which files, written how, reached without leaving."""

import os

import pytest

from wherry.kube.kubelet.environment import ConfigError, PodFacts
from wherry.kube.kubelet.volumes import atomic, sources
from wherry.kube.kubelet.volumes.atomic import File
from wherry.kube.kubelet.volumes.host_path import check_host_path
from wherry.kube.kubelet.volumes.manager import Inputs, Volumes
from wherry.kube.kubelet.volumes.subpath import SubPathError, open_subpath

OBJECTS = {
    ("ConfigMap", "settings"): {"a": b"1", "b": b"2"},
    ("Secret", "keys"): {"k": b"s"},
}


def lookup(kind, name):
    return OBJECTS.get((kind, name))


INPUTS = Inputs(PodFacts(), lookup, lambda _: None)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts and owners need root")


def pod(*volumes, **spec):
    return {
        "metadata": {"name": "p", "namespace": "d", "uid": "u", "labels": {"x": "y"}},
        "spec": {"containers": [], "volumes": list(volumes), **spec},
    }


def payload(volume, **spec):
    return sources.payload(
        pod(volume, **spec), volume, PodFacts(("192.0.2.9",)), lookup, lambda source: "token!"
    )


# atomic


def test_a_set_is_replaced_in_one_step_and_the_old_one_removed(tmp_path):
    assert atomic.write(tmp_path, {"a": File(b"1"), "d/b": File(b"2")})
    assert (tmp_path / "a").read_bytes() == b"1"
    assert (tmp_path / "d" / "b").read_bytes() == b"2"
    first = os.readlink(tmp_path / "..data")
    assert atomic.write(tmp_path, {"a": File(b"new")})
    assert (tmp_path / "a").read_bytes() == b"new"
    assert not (tmp_path / "d").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        ["a", "..data", os.readlink(tmp_path / "..data")]
    )
    assert os.readlink(tmp_path / "..data") != first


def test_an_equal_set_is_left_alone(tmp_path):
    atomic.write(tmp_path, {"a": File(b"1", 0o600)})
    before = os.readlink(tmp_path / "..data")
    assert not atomic.write(tmp_path, {"a": File(b"1", 0o600)})
    assert os.readlink(tmp_path / "..data") == before
    assert atomic.write(tmp_path, {"a": File(b"1", 0o644)})


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x", "..data", "..x/y", ""])
def test_paths_that_leave_the_set_are_refused(tmp_path, path):
    with pytest.raises(atomic.InvalidPath):
        atomic.write(tmp_path, {path: File(b"")})
    assert list(tmp_path.iterdir()) == []


# sources


def test_a_config_map_has_a_file_for_each_key():
    files = payload({"configMap": {"name": "settings", "defaultMode": 0o400}})
    assert files == {"a": File(b"1", 0o400), "b": File(b"2", 0o400)}


def test_items_choose_keys_paths_and_modes():
    items = [{"key": "b", "path": "deep/er", "mode": 0o600}]
    files = payload({"configMap": {"name": "settings", "items": items}})
    assert files == {"deep/er": File(b"2", 0o600)}


def test_a_group_may_read_what_it_is_given():
    volume = {"secret": {"secretName": "keys", "defaultMode": 0o400}}
    files = payload(volume, securityContext={"fsGroup": 7})
    assert files == {"k": File(b"s", 0o440, 7)}


def test_projected_sources_lie_together():
    volume = {
        "projected": {
            "sources": [
                {"configMap": {"name": "settings", "items": [{"key": "a", "path": "x"}]}},
                {"secret": {"name": "keys"}},
                {"serviceAccountToken": {"path": "token"}},
                {"downwardAPI": {"items": [
                    {"path": "ip", "fieldRef": {"fieldPath": "status.hostIP"}},
                ]}},
            ]
        }
    }  # fmt: skip
    files = payload(volume)
    assert {name: file.data for name, file in files.items()} == {
        "x": b"1",
        "k": b"s",
        "token": b"token!",
        "ip": b"192.0.2.9",
    }


def test_what_is_missing_is_an_error_unless_optional():
    with pytest.raises(ConfigError, match='configmap "none" not found'):
        payload({"configMap": {"name": "none"}})
    assert payload({"configMap": {"name": "none", "optional": True}}) == {}
    items = [{"key": "z", "path": "z"}]
    with pytest.raises(ConfigError, match="references non-existent config key: z"):
        payload({"configMap": {"name": "settings", "items": items}})


def test_all_references_of_a_pod_are_found():
    container = {
        "envFrom": [{"secretRef": {"name": "s1"}}],
        "env": [{"name": "x", "valueFrom": {"configMapKeyRef": {"name": "c1", "key": "k"}}}],
    }
    volumes = [
        {"name": "a", "configMap": {"name": "c2"}},
        {"name": "b", "secret": {"secretName": "s2"}},
        {"name": "c", "projected": {"sources": [{"configMap": {"name": "c3"}}]}},
    ]
    found = sources.references(pod(*volumes, initContainers=[container]))
    assert found == {
        ("Secret", "s1"),
        ("Secret", "s2"),
        ("ConfigMap", "c1"),
        ("ConfigMap", "c2"),
        ("ConfigMap", "c3"),
    }


# the manager


@needs_root
async def test_volumes_lie_where_upstreams_kubelet_puts_them_and_go_with_the_pod(tmp_path):
    volumes = Volumes(tmp_path)
    wanted = pod(
        {"name": "data", "emptyDir": {}}, {"name": "conf", "configMap": {"name": "settings"}}
    )
    places = (await volumes.prepare(wanted, INPUTS)).places
    base = tmp_path / "pods" / "u" / "volumes"
    assert places["data"].path == base / "kubernetes.io~empty-dir" / "data"
    assert places["data"].path.stat().st_mode & 0o777 == 0o777
    assert (places["conf"].path / "a").read_bytes() == b"1"
    (places["data"].path / "kept").write_text("x")
    await volumes.prepare(wanted, INPUTS)
    assert (places["data"].path / "kept").read_text() == "x"
    assert volumes.known_pods() == ["u"]
    await volumes.remove("u")
    assert volumes.known_pods() == []


async def test_a_volume_that_cannot_be_made_is_told_as_upstream_does_and_the_others_are_made(
    tmp_path,
):
    wanted = pod(
        {"name": "conf", "configMap": {"name": "none"}},
        {"name": "driver", "csi": {"driver": "x.example"}},
        {"name": "data", "emptyDir": {}},
    )
    prepared = await Volumes(tmp_path).prepare(wanted, INPUTS)
    assert not prepared.complete(wanted)
    assert set(prepared.places) == {"data"}
    assert prepared.faults == [
        'MountVolume.SetUp failed for volume "conf" : configmap "none" not found',
        'MountVolume.SetUp failed for volume "driver" : kubernetes.io/csi: mounter.SetUpAt failed '
        "to get CSI client: driver name x.example not found in the list of registered CSI drivers",
    ]


async def test_what_was_written_stays_when_its_source_has_gone(tmp_path):
    volumes = Volumes(tmp_path)
    wanted = pod({"name": "conf", "configMap": {"name": "settings"}})
    before = await volumes.prepare(wanted, INPUTS)
    gone = await volumes.prepare(wanted, Inputs(PodFacts(), lambda *_: None, lambda _: None))
    assert gone.places == before.places
    assert len(gone.faults) == 1
    assert gone.complete(wanted)


def test_types_of_host_paths(tmp_path):
    made = check_host_path({"path": str(tmp_path / "d"), "type": "DirectoryOrCreate"})
    assert made.is_dir()
    assert check_host_path({"path": str(tmp_path / "f"), "type": "FileOrCreate"}).is_file()
    for path, kind, text in (
        ("none", "Directory", "is not a directory"),
        ("d", "File", "is not a file"),
        ("f", "Socket", "is not a socket file"),
    ):
        with pytest.raises(ConfigError, match=text):
            check_host_path({"path": str(tmp_path / path), "type": kind})


# sub paths


def test_a_sub_path_is_made_within_the_volume(tmp_path):
    volume = tmp_path / "v"
    volume.mkdir()
    os.close(open_subpath(volume, "a/b"))
    assert (volume / "a" / "b").is_dir()


def test_a_sub_path_may_follow_links_that_stay_within(tmp_path):
    volume = tmp_path / "v"
    volume.mkdir()
    atomic.write(volume, {"key": File(b"x")})
    handle = open_subpath(volume, "key")
    assert os.path.realpath(f"/proc/self/fd/{handle}").endswith("/key")
    os.close(handle)


@pytest.mark.parametrize("target", ["/etc", "../outside", "../../../../etc"])
def test_a_sub_path_never_leads_out(tmp_path, target):
    volume = tmp_path / "v"
    volume.mkdir()
    (tmp_path / "outside").mkdir()
    (volume / "link").symlink_to(target)
    with pytest.raises(SubPathError):
        open_subpath(volume, "link/x")
    with pytest.raises(SubPathError):
        open_subpath(volume, "link")
    with pytest.raises(SubPathError):
        open_subpath(volume, "../outside")
    assert list((tmp_path / "outside").iterdir()) == []
