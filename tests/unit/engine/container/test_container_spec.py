import json
from pathlib import Path

import pytest
from containers_helper import make

from wherry.engine.container.devices import devices
from wherry.engine.container.limits import limits
from wherry.engine.container.mount_sources import bind_spec
from wherry.engine.container.security import chosen_capabilities, seccomp_section
from wherry.engine.container.spec import Joined, container_spec, rlimits
from wherry.engine.container.users import Account
from wherry.engine.errors import BadParameter
from wherry.runtime import capabilities
from wherry.runtime.types import User

ROOT = Account(User(), "/root")


def spec(tmp_path, *, config=None, host=None, joined=None):
    for name in ("hosts", "hostname", "resolv.conf"):
        (tmp_path / name).write_text("")
    joined = joined or Joined(network="/run/netns/x")
    container = make(config=config, host=host)
    mounted = [bind_spec(point, point.source) for point in container.mounts]
    return container_spec(container, ROOT, joined, mounted, tmp_path)


def test_the_process_is_the_command_with_docker_s_environment(tmp_path):
    process = spec(tmp_path, config={"Cmd": ["sh", "-c", "x"], "Env": ["A=1"], "Tty": True}).process
    assert process.args == ["sh", "-c", "x"]
    assert process.env[1:] == ["HOSTNAME=111111111111", "TERM=xterm", "A=1", "HOME=/root"]
    assert process.cwd == "/"
    assert process.terminal


def test_identity_files_are_mounted_unless_the_user_mounts_them(tmp_path):
    made = spec(tmp_path, host={"Binds": ["/my/hosts:/etc/hosts:ro"]})
    sources = {mount.destination: mount.source for mount in made.mounts}
    assert sources["/etc/hosts"] == "/my/hosts"
    assert sources["/etc/resolv.conf"] == str(tmp_path / "resolv.conf")


def test_identity_files_lie_above_a_mounted_etc(tmp_path):
    order = [m.destination for m in spec(tmp_path, host={"Binds": ["/my:/etc"]}).mounts]
    assert order.index("/etc") < order.index("/etc/hosts")


def test_init_runs_the_command_as_its_child(tmp_path):
    made = spec(tmp_path, host={"Init": True})
    assert made.process.args == ["/sbin/docker-init", "--", "true"]
    assert any(mount.destination == "/sbin/docker-init" for mount in made.mounts)


def test_capabilities_are_added_and_dropped_as_docker_does():
    def chosen(**host):
        return set(chosen_capabilities(make(host=host).host_config))

    default, everything = set(capabilities.DEFAULT), set(capabilities.ALL)
    assert chosen() == default
    assert chosen(CapAdd=["net_admin"]) == default | {"CAP_NET_ADMIN"}
    assert chosen(CapDrop=["CAP_CHOWN"]) == default - {"CAP_CHOWN"}
    assert chosen(CapDrop=["ALL"], CapAdd=["CHOWN"]) == {"CAP_CHOWN"}
    assert chosen(CapAdd=["ALL"], CapDrop=["CHOWN"]) == everything - {"CAP_CHOWN"}
    assert chosen(Privileged=True) == everything


def test_cpus_are_a_share_of_a_period():
    made = limits(make(host={"NanoCpus": 1_500_000_000, "PidsLimit": -1}).host_config)
    assert (made.cpu_quota, made.cpu_period, made.pids) == (150_000, 100_000, None)


def test_ulimits_have_the_kernel_s_names():
    assert rlimits([{"Name": "nofile", "Soft": 1, "Hard": 2}]) == {"RLIMIT_NOFILE": (1, 2)}


def test_a_privileged_container_has_no_filter_and_no_masks(tmp_path):
    made = spec(tmp_path, host={"Privileged": True})
    assert made.seccomp is None
    assert list(made.masked_paths) == []


def test_a_profile_that_is_none_is_refused():
    host = make(host={"SecurityOpt": ["seccomp={"]}).host_config
    with pytest.raises(BadParameter, match="Decoding seccomp profile failed"):
        seccomp_section(host)


def test_a_profile_given_by_the_client_is_used():
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": []}
    host = make(host={"SecurityOpt": ["seccomp=" + json.dumps(profile)]}).host_config
    section = seccomp_section(host)
    assert section is not None and section["defaultAction"] == "SCMP_ACT_ALLOW"


def test_a_missing_device_is_told(tmp_path):
    with pytest.raises(BadParameter, match='adding custom device "/dev/nope"'):
        spec(tmp_path, host={"Devices": [{"PathOnHost": "/dev/nope"}]})


def test_a_directory_stands_for_the_devices_in_it(tmp_path):
    asked = [{"PathOnHost": "/dev/pts", "PathInContainer": "/x"}]
    made = spec(tmp_path, host={"Devices": asked})
    assert {"/x/ptmx"} <= {device["path"] for device in made.devices}


def test_what_goes_from_a_directory_while_it_is_read_is_no_device(tmp_path, monkeypatch):
    def gone(path):
        raise FileNotFoundError(path)

    (tmp_path / "devices").mkdir()
    (tmp_path / "devices" / "gone").touch()
    monkeypatch.setattr(Path, "lstat", gone)
    with pytest.raises(BadParameter, match="not a device node"):
        devices([{"PathOnHost": str(tmp_path / "devices")}])


def test_device_rules_may_leave_numbers_open(tmp_path):
    made = spec(tmp_path, host={"DeviceCgroupRules": ["c 42:* rmw", "a *:* r"]})
    assert made.device_rules == [
        {"allow": True, "type": "c", "access": "rmw", "major": 42},
        {"allow": True, "type": "a", "access": "r"},
    ]


def test_a_domain_name_is_set_where_the_names_are_the_container_s_own(tmp_path):
    config = {"Domainname": "example.com"}
    assert spec(tmp_path, config=config).sysctls == {"kernel.domainname": "example.com"}
    shared = Joined(network="/run/netns/x", uts="host")
    assert spec(tmp_path, config=config, joined=shared).sysctls == {}


def test_without_ipc_there_is_no_shared_memory(tmp_path):
    assert spec(tmp_path, host={"IpcMode": "none"}).shm_size is None
