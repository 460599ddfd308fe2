"""What claims lead to, what volumes are on the node, and who may use their files."""

import os
import stat

import pytest

from wherry.kube.api.errors import StatusError
from wherry.kube.kubelet.environment import ConfigError, PodFacts
from wherry.kube.kubelet.volumes import empty_dir, mounts, nfs, ownership, persistent
from wherry.kube.kubelet.volumes.claims import ClaimError, Claims
from wherry.kube.kubelet.volumes.manager import Inputs, Volumes, devices
from wherry.kube.kubelet.volumes.place import Place
from wherry.kube.kubelet.volumes.subpath import SubPathError, open_subpath, read_file

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="owners need root")


def pod(*volumes, uid="u", **spec):
    containers = spec.pop("containers", [{"name": "main"}])
    return {
        "metadata": {"name": "p", "namespace": "d", "uid": uid},
        "spec": {"containers": containers, "volumes": list(volumes), **spec},
    }


USES = {"name": "data", "persistentVolumeClaim": {"claimName": "c"}}
OWN = {"name": "data", "ephemeral": {"volumeClaimTemplate": {}}}


def claim(**changes):
    made = {
        "metadata": {"name": "c", "namespace": "d", "uid": "claim-uid"},
        "spec": {"volumeName": "pv"},
        "status": {"phase": "Bound"},
    }
    for key, value in changes.items():
        made[key] = {**made[key], **value}
    return made


def volume(**spec):
    return {
        "metadata": {"name": "pv"},
        "spec": {"claimRef": {"uid": "claim-uid"}, "hostPath": {"path": "/x"}, **spec},
    }


class API:
    def __init__(self, *, claim, volume):
        self.answers = {"persistentvolumeclaims": claim, "persistentvolumes": volume}
        self.asked = 0

    async def get(self, resource, name, namespace=None):
        self.asked += 1
        found = self.answers[resource.plural]
        if found is None:
            raise StatusError(404, "NotFound", f'{resource.plural} "{name}" not found')
        return found


async def test_a_claim_leads_to_its_volume_and_is_asked_for_once():
    api = API(claim=claim(), volume=volume())
    claims = Claims(api)
    for _ in range(2):
        found = await claims.volume_of(pod(USES), USES, begun=False)
        assert found["metadata"]["name"] == "pv"
    assert api.asked == 2
    claims.release("u")
    await claims.volume_of(pod(USES), USES, begun=False)
    assert api.asked == 4


@pytest.mark.parametrize(
    ("found", "behind", "text"),
    [
        (None, None, 'failed to fetch PVC from API server: persistentvolumeclaims "c" not found'),
        (claim(status={"phase": "Pending"}), None, "PVC is not bound"),
        (claim(metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"}), None, "being deleted"),
        (claim(), None, 'failed to fetch PV pv from API server: persistentvolumes "pv" not found'),
        (claim(), volume(claimRef=None), "has a nil pv.Spec.ClaimRef"),
        (claim(), volume(claimRef={"uid": "z"}), "pv.Spec.ClaimRef.UID z does not point to claim"),
    ],
)
async def test_why_a_claim_leads_nowhere_is_told(found, behind, text):
    with pytest.raises(ClaimError) as raised:
        await Claims(API(claim=found, volume=behind)).volume_of(pod(USES), USES, begun=False)
    assert str(raised.value).startswith("error processing PVC d/c: ")
    assert text in str(raised.value)


async def test_a_claim_that_is_being_deleted_still_serves_who_uses_it():
    deleting = claim(metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"})
    api = API(claim=deleting, volume=volume())
    assert await Claims(api).volume_of(pod(USES), USES, begun=True)


async def test_the_claim_made_for_a_pod_is_not_taken_from_another():
    api = API(claim=claim(), volume=volume())
    with pytest.raises(ClaimError, match="was not created for pod d/p"):
        await Claims(api).volume_of(pod(OWN), OWN, begun=False)
    mine = claim(metadata={"ownerReferences": [{"uid": "u", "controller": True}]})
    api = API(claim=mine, volume=volume())
    assert await Claims(api).volume_of(pod(OWN), OWN, begun=False)


async def test_a_device_is_not_mounted_and_a_file_system_no_device():
    one = pod(USES, containers=[{"name": "m", "volumeMounts": [{"name": "data"}]}])
    api = API(claim=claim(), volume=volume(volumeMode="Block"))
    with pytest.raises(ClaimError, match="volumeMode Block, but is specified in volumeMounts"):
        await Claims(api).volume_of(one, USES, begun=False)
    one = pod(USES, containers=[{"name": "m", "volumeDevices": [{"name": "data"}]}])
    with pytest.raises(ClaimError, match="Filesystem, but is specified in volumeDevices"):
        await Claims(API(claim=claim(), volume=volume())).volume_of(one, USES, begun=False)


# on the node


def test_a_local_volume_must_be_there(tmp_path):
    def found(path):
        return persistent.directory({"spec": {"local": {"path": str(path)}}}, readonly=False)

    assert found(tmp_path) == Place(tmp_path)
    with pytest.raises(ConfigError, match='none" does not exist'):
        found(tmp_path / "none")
    (tmp_path / "f").touch()
    with pytest.raises(ConfigError, match="is not a directory"):
        found(tmp_path / "f")


def test_a_device_is_given_to_containers_as_one():
    container = {"name": "m", "volumeDevices": [{"name": "v", "devicePath": "/dev/x"}]}
    (given,) = devices(container, {"v": Place("/dev/loop0", device=True, readonly=True)})
    assert (given.host_path, given.container_path, given.permissions) == (
        "/dev/loop0",
        "/dev/x",
        "r",
    )
    with pytest.raises(ConfigError, match="not a block device"):
        devices(container, {"v": Place("/somewhere")})


@needs_root
async def test_the_group_gets_the_files_of_volumes_that_are_its_own_alone(tmp_path):
    ours = {"pv.kubernetes.io/provisioned-by": "wherry.io/local-path"}
    for annotations, group in ((ours, 77), ({}, 0)):
        place = tmp_path / f"v{group}"
        place.mkdir()
        (place / "f").touch(mode=0o600)
        found = volume(hostPath={"path": str(place), "type": "DirectoryOrCreate"})
        found["metadata"]["annotations"] = annotations
        inputs = Inputs(PodFacts(), lambda *_: None, lambda _: None, {"data": found})
        wanted = pod(USES, securityContext={"fsGroup": 77})
        prepared = await Volumes(tmp_path / f"k{group}").prepare(wanted, inputs)
        assert prepared.places == {"data": Place(place)}
        assert (place / "f").stat().st_gid == group


async def test_a_volume_for_one_pod_is_refused_to_the_next_until_the_first_has_gone(tmp_path):
    found = volume(hostPath={"path": str(tmp_path)}, accessModes=["ReadWriteOncePod"])
    inputs = Inputs(PodFacts(), lambda *_: None, lambda _: None, {"data": found})
    volumes = Volumes(tmp_path / "kubelet")
    assert (await volumes.prepare(pod(USES), inputs)).places
    refused = await volumes.prepare(pod(USES, uid="w"), inputs)
    assert not refused.places
    assert "already in use by another pod" in refused.faults[0]
    await volumes.remove("u")
    assert (await volumes.prepare(pod(USES, uid="w"), inputs)).places


# groups


@needs_root
def test_files_get_the_group_links_and_what_they_lead_to_do_not(tmp_path):
    root, other = tmp_path / "v", tmp_path / "other"
    (root / "d").mkdir(parents=True)
    other.touch(mode=0o600)
    (root / "d" / "f").touch(mode=0o600)
    (root / "link").symlink_to(other)
    assert ownership.give(root, 77)
    assert stat.S_IMODE((root / "d" / "f").stat().st_mode) == 0o660
    assert stat.S_IMODE((root / "d").stat().st_mode) & 0o2770 == 0o2770
    assert (root / "d" / "f").stat().st_gid == (root / "link").lstat().st_gid == 77
    assert (other.stat().st_gid, stat.S_IMODE(other.stat().st_mode)) == (0, 0o600)


@needs_root
def test_a_root_that_is_right_stands_for_all_where_that_is_wanted(tmp_path):
    ownership.give(tmp_path, 77)
    (tmp_path / "f").touch()
    os.chown(tmp_path / "f", 0, 0)
    assert not ownership.give(tmp_path, 77, policy="OnRootMismatch")
    assert (tmp_path / "f").stat().st_gid == 0
    assert ownership.give(tmp_path, 77)
    assert (tmp_path / "f").stat().st_gid == 77
    assert ownership.give(tmp_path, 78, policy="OnRootMismatch")


# empty directories


def limited(*limits):
    return pod(
        containers=[
            {"name": str(i), "resources": {"limits": {"memory": limit} if limit else {}}}
            for i, limit in enumerate(limits)
        ]
    )


def test_memory_is_limited_by_the_volume_and_by_the_pod():
    assert empty_dir.memory_size(limited("1Mi", "2Mi"), {}) == 3 << 20
    assert empty_dir.memory_size(limited("1Mi", None), {}) == 0
    assert empty_dir.memory_size(limited("1Mi"), {"sizeLimit": "4Mi"}) == 1 << 20
    assert empty_dir.memory_size(limited(None), {"sizeLimit": "4Mi"}) == 4 << 20


def test_huge_pages_are_those_the_pod_asks_for():
    asks = pod(containers=[{"name": "m", "resources": {"limits": {"hugepages-2Mi": "4Mi"}}}])
    assert empty_dir.page_size(asks, "HugePages") == 2 << 20
    assert empty_dir.page_size(asks, "HugePages-2Mi") == 2 << 20
    for medium, text in (
        ("HugePages-1Gi", "no resource request for huge pages"),
        ("Disk", 'unknown storage medium "Disk"'),
    ):
        with pytest.raises(ConfigError, match=text):
            empty_dir.page_size(asks, medium)
    both = {"limits": {"hugepages-2Mi": "4Mi", "hugepages-1Gi": "1Gi"}}
    two = pod(containers=[{"name": "m", "resources": both}])
    assert empty_dir.page_size(two, "HugePages-1Gi") == 1 << 30
    with pytest.raises(ConfigError, match="multiple huge page sizes"):
        empty_dir.page_size(two, "HugePages")
    with pytest.raises(ConfigError, match="no resource request for huge pages"):
        empty_dir.page_size(pod(), "HugePages")


def test_what_exceeds_its_limit_is_told_in_upstreams_words():
    one = pod({"name": "e", "emptyDir": {"sizeLimit": "1Mi"}}, {"name": "f", "emptyDir": {}})
    assert empty_dir.excess(one, {"e": 1 << 20, "f": 1 << 40}) == ""
    told = 'Usage of EmptyDir volume "e" exceeds the limit "1Mi". '
    assert empty_dir.excess(one, {"e": (1 << 20) + 1}) == told


@pytest.mark.parametrize("mode", [0o777, 0o2777, 0o1777])
def test_a_sub_path_is_as_open_as_its_volume(tmp_path, mode):
    (tmp_path / "v").mkdir()
    (tmp_path / "v").chmod(mode)
    former = os.umask(0o077)
    try:
        os.close(open_subpath(tmp_path / "v", "a/b"))
    finally:
        os.umask(former)
    for name in ("a", "a/b"):
        assert stat.S_IMODE((tmp_path / "v" / name).stat().st_mode) == mode


# NFS


@pytest.fixture
def program(tmp_path, monkeypatch):
    """A ``mount`` that does what ``script`` says, and writes down what it was told."""

    def install(script):
        path = tmp_path / "bin" / "mount"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/told\n{script}\n')
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")

    return install


async def test_nfs_is_mounted_by_the_nodes_own_program(tmp_path, program):
    program("exit 0")
    source = {"server": "192.0.2.1", "path": "/export"}
    await nfs.mount(source, tmp_path / "t", ["nfsvers=4.1"], readonly=True)
    told = f"-t nfs -o nfsvers=4.1,ro 192.0.2.1:/export {tmp_path}/t\n"
    assert (tmp_path / "told").read_text() == told
    assert nfs.arguments({"server": "2001:db8::1", "path": "/x"}, tmp_path, [], readonly=False) == [
        "-t",
        "nfs",
        "[2001:db8::1]:/x",
        str(tmp_path),
    ]


async def test_what_mount_says_is_told_with_the_volume(tmp_path, program):
    program("echo no such host >&2; exit 32")
    wanted = pod({"name": "n", "nfs": {"server": "s", "path": "/p"}})
    inputs = Inputs(PodFacts(), lambda *_: None, lambda _: None)
    prepared = await Volumes(tmp_path / "k").prepare(wanted, inputs)
    (fault,) = prepared.faults
    assert fault.startswith(
        'MountVolume.SetUp failed for volume "n" : mount failed: exit status 32'
    )
    assert "Mounting arguments: -t nfs s:/p " in fault
    assert "Output: no such host" in fault
    assert not prepared.complete(wanted)


async def test_a_server_that_does_not_answer_is_given_up(tmp_path, program, monkeypatch):
    program("exec sleep 60")
    monkeypatch.setattr(nfs, "TIMEOUT", 0.1)
    with pytest.raises(ConfigError, match="no answer in"):
        await nfs.mount({"server": "s", "path": "/p"}, tmp_path / "t", [], readonly=False)


@needs_root
async def test_a_memory_that_was_unmounted_is_mounted_again(tmp_path):
    volumes = Volumes(tmp_path)
    wanted = pod(
        {"name": "m", "emptyDir": {"medium": "Memory"}},
        {"name": "s", "secret": {"secretName": "s"}},
    )
    inputs = Inputs(PodFacts(), lambda *_: {"k": b"v"}, lambda _: None)
    try:
        places = (await volumes.prepare(wanted, inputs)).places
        mounts.unmount(tmp_path)
        await volumes.prepare(wanted, inputs)
        assert all(mounts.is_mounted(place.path) for place in places.values())
        assert (places["s"].path / "k").read_bytes() == b"v"
    finally:
        await volumes.remove("u")
    assert mounts.mounts_below(tmp_path) == []


def test_a_file_is_read_within_its_volume_only(tmp_path):
    (tmp_path / "outside").write_text("not yours")
    volume = tmp_path / "v"
    (volume / "d").mkdir(parents=True)
    (volume / "d/a").write_text("mine")
    (volume / "link").symlink_to("d/a")
    (volume / "out").symlink_to("../outside")
    os.mkfifo(volume / "pipe")
    assert read_file(volume, "d/a", 4) == read_file(volume, "link", 4) == b"mine"
    assert read_file(volume, "none", 4) is None
    for path, text in (
        ("out", "leads out of its volume"),
        ("pipe", "is no regular file"),
        ("d", "is no regular file"),
        ("d/a", "has more than 3 bytes"),
    ):
        with pytest.raises(SubPathError, match=text):
            read_file(volume, path, 3)
