import copy

import pytest

from wherry.engine.api import old_versions
from wherry.engine.errors import BadParameter


def test_current_clients_are_taken_at_their_word():
    body = {"Image": "x", "HostConfig": {"Mounts": [{"Type": "image"}]}}
    assert old_versions.asked(body, (1, 50)) is body


@pytest.mark.parametrize(
    ("version", "host"),
    [
        ((1, 39), {"IpcMode": "shareable", "CgroupnsMode": "host", "ConsoleSize": None}),
        ((1, 40), {"CgroupnsMode": "host", "ConsoleSize": None}),
        ((1, 41), {"ConsoleSize": None}),
        ((1, 42), {}),
        ((1, 43), {"Annotations": {"a": "b"}}),
    ],
)
def test_what_old_clients_leave_out_has_its_old_meaning(version, host):
    body = {"Image": "x", "HostConfig": {"Annotations": {"a": "b"}}}
    before = copy.deepcopy(body)
    assert old_versions.asked(body, version)["HostConfig"] == host
    assert body == before


def test_read_only_mounts_of_old_clients_do_not_reach_below():
    mount = {"Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": True}
    asked = old_versions.asked({"HostConfig": {"Mounts": [mount]}}, (1, 43))
    assert asked["HostConfig"]["Mounts"][0]["BindOptions"] == {"ReadOnlyNonRecursive": True}
    assert "BindOptions" not in mount


@pytest.mark.parametrize(
    ("version", "body", "complaint"),
    [
        (
            (1, 43),
            {"HostConfig": {"Mounts": [{"BindOptions": {"ReadOnlyForceRecursive": True}}]}},
            "BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer",
        ),
        (
            (1, 44),
            {"HostConfig": {"Mounts": [{"VolumeOptions": {"Subpath": "x"}}]}},
            "VolumeOptions.Subpath needs API v1.45 or newer",
        ),
        (
            (1, 47),
            {"HostConfig": {"Mounts": [{"Type": "image"}]}},
            'Mount type "Image" needs API v1.48 or newer',
        ),
        (
            (1, 43),
            {"NetworkingConfig": {"EndpointsConfig": {"b": {}, "a": {}}}},
            "Container cannot be created with multiple network endpoints: a, b",
        ),
    ],
)
def test_what_must_not_be_dropped_is_refused(version, body, complaint):
    with pytest.raises(BadParameter) as caught:
        old_versions.asked(body, version)
    assert caught.value.message == complaint


@pytest.mark.parametrize("body", [None, [], "x", {"HostConfig": 1}, {"HostConfig": {"Mounts": 1}}])
def test_bodies_of_a_wrong_form_are_left_to_the_decoder(body):
    old_versions.asked(body, (1, 24))


def test_aliases_held_the_short_id_until_1_45():
    document = {
        "Id": "ab" * 32,
        "Config": {"Hostname": "h"},
        "State": {"StartedAt": "2026-01-01T00:00:00Z"},
        "NetworkSettings": {"Networks": {"net": {"Aliases": ["web"]}, "bridge": {"Aliases": None}}},
    }
    shown = old_versions.inspected(copy.deepcopy(document), (1, 44))["NetworkSettings"]["Networks"]
    assert shown["net"]["Aliases"] == ["web", "ab" * 6, "h"]
    assert shown["bridge"]["Aliases"] is None
    assert old_versions.inspected(copy.deepcopy(document), (1, 45)) == document
    document["State"]["StartedAt"] = "0001-01-01T00:00:00Z"
    assert old_versions.inspected(copy.deepcopy(document), (1, 44)) == document


def test_info_grows_with_the_versions():
    def shown(version):
        commits = {name: {"ID": "1"} for name in ("ContainerdCommit", "RuncCommit", "InitCommit")}
        document = {
            **commits,
            "FirewallBackend": {"Driver": "nftables"},
            "RegistryConfig": {},
            "Runtimes": {"crun": {"path": "crun"}},
            "SecurityOptions": ["name=seccomp,profile=builtin"],
            "KernelVersion": "",
            "OperatingSystem": "Debian",
        }
        return old_versions.info(document, version)

    assert "FirewallBackend" in shown((1, 49)) and "FirewallBackend" not in shown((1, 48))
    assert shown((1, 48))["RuncCommit"] == {"ID": "1", "Expected": "1"}
    assert "Expected" not in shown((1, 49))["RuncCommit"]
    assert "AllowNondistributableArtifactsCIDRs" in shown((1, 47))["RegistryConfig"]
    assert shown((1, 38))["KernelVersion"] == "<unknown>"
    assert shown((1, 24))["SecurityOptions"] == ["seccomp"]
    assert shown((1, 24))["ExecutionDriver"] == "<not supported>"


def test_new_kinds_of_events_are_kept_from_old_clients():
    made = {"Type": "image", "Action": "create"}
    assert old_versions.tells(made, (1, 46)) and not old_versions.tells(made, (1, 45))
    assert old_versions.tells({"Type": "container", "Action": "create"}, (1, 24))
