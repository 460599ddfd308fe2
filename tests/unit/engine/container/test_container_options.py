import pytest

from wherry.engine.container import create, merge, options, rules
from wherry.engine.errors import BadParameter


def host(**given):
    decoded = options.decode(options.HOST_CONFIG, given, "HostConfig")
    create.normalise(decoded)
    return decoded


def config(**given):
    return options.decode(options.CONFIG, given, "")


def test_what_the_client_leaves_out_has_docker_s_defaults():
    decoded = host()
    assert decoded["NetworkMode"] == "bridge"
    assert decoded["RestartPolicy"] == {"Name": "no", "MaximumRetryCount": 0}
    assert decoded["ShmSize"] == 64 << 20
    assert decoded["PidsLimit"] is None
    assert "Tmpfs" not in decoded


def test_defaults_are_not_shared_between_containers():
    host()["LogConfig"]["Type"] = "changed"
    assert host()["LogConfig"]["Type"] == "json-file"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (
            {"Memory": "1g"},
            "cannot unmarshal string into Go struct field HostConfig.Memory of type",
        ),
        ({"Privileged": 1}, "cannot unmarshal number into Go struct field HostConfig.Privileged"),
        ({"Binds": ["/a:/b", 1]}, "cannot unmarshal array into Go struct field HostConfig.Binds"),
        ([], "cannot unmarshal array into Go struct field HostConfig of type object"),
    ],
)
def test_values_of_another_type_are_refused(value, text):
    with pytest.raises(BadParameter) as caught:
        options.decode(options.HOST_CONFIG, value, "HostConfig")
    assert text in caught.value.message


def test_a_command_may_be_one_string():
    assert config(Cmd="true")["Cmd"] == ["true"]


def test_an_entrypoint_of_the_user_silences_the_image_s_command():
    image = {"Entrypoint": ["/init"], "Cmd": ["serve"]}
    assert merge.command(merge.merge_image(config(), image)) == ("/init", ["serve"])
    assert merge.command(merge.merge_image(config(Cmd=["x"]), image)) == ("/init", ["x"])
    assert merge.command(merge.merge_image(config(Entrypoint=["sh"]), image)) == ("sh", [])
    reset = merge.merge_image(config(Entrypoint=[""], Cmd=["x"]), image)
    assert merge.command(reset) == ("x", [])


def test_without_any_command_nothing_is_created():
    with pytest.raises(BadParameter, match="no command specified"):
        merge.merge_image(config(), {})


def test_variables_of_the_user_override_those_of_the_image():
    merged = merge.merge_environment(["A=1", "B=2"], ["B=3"])
    assert merged == ["B=3", "A=1"]
    shown = merge.environment(merged, hostname="h", home="/root", terminal=True)
    assert shown == [
        f"PATH={merge.DEFAULT_PATH}",
        "HOSTNAME=h",
        "TERM=xterm",
        "B=3",
        "A=1",
        "HOME=/root",
    ]


def test_a_variable_without_a_value_removes_the_default():
    assert "PATH" not in merge.environment(["PATH"], hostname="h", home="/", terminal=False)
    assert "HOME=/x" in merge.environment(["HOME="], hostname="h", home="/x", terminal=False)


def test_swap_is_twice_the_memory_unless_said_otherwise():
    assert host(Memory=8 << 20)["MemorySwap"] == 16 << 20
    assert host(Memory=8 << 20, MemorySwap=-1)["MemorySwap"] == -1


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"Memory": 1024}, "Minimum memory limit allowed is 6MB"),
        (
            {"Memory": 8 << 20, "MemorySwap": 7 << 20},
            "Minimum memoryswap limit should be larger than memory limit, see usage",
        ),
        (
            {"MemorySwap": 8 << 20},
            "You should always set the Memory limit when using Memoryswap limit, see usage",
        ),
        (
            {"NanoCpus": 10**9, "CpuQuota": 5000},
            "Conflicting options: Nano CPUs and CPU Quota cannot both be set",
        ),
        (
            {"RestartPolicy": {"Name": "sometimes"}},
            "invalid restart policy: unknown policy 'sometimes'; use one of 'no', 'always', "
            "'on-failure', or 'unless-stopped'",
        ),
        (
            {"RestartPolicy": {"Name": "always", "MaximumRetryCount": 3}},
            "invalid restart policy: maximum retry count can only be used with 'on-failure'",
        ),
        (
            {"RestartPolicy": {"Name": "always"}, "AutoRemove": True},
            "can't create 'AutoRemove' container with restart policy",
        ),
        (
            {"NetworkMode": "container:x", "PublishAllPorts": True},
            "conflicting options: port publishing and the container type network mode",
        ),
        ({"PidMode": "container:"}, "invalid PID mode: container:"),
        ({"CapAdd": ["FLY"]}, 'invalid CapAdd: unknown capability: "CAP_FLY"'),
        ({"CapDrop": ["CAP_"]}, 'invalid CapDrop: unknown capability: "CAP_"'),
        ({"IpcMode": "container:"}, "invalid IPC mode: container:"),
        ({"CgroupnsMode": "x"}, "invalid cgroup namespace mode: x"),
        ({"SecurityOpt": ["magic"]}, 'invalid --security-opt 1: "magic"'),
        (
            {"SecurityOpt": ["no-new-privileges=maybe"]},
            'invalid --security-opt 2: "no-new-privileges=maybe"',
        ),
        ({"DeviceCgroupRules": ["c 1:3"]}, "invalid device cgroup rule format: 'c 1:3'"),
        ({"ShmSize": -1}, "SHM size can not be less than 0"),
        (
            {"OomScoreAdj": 1001},
            "Invalid value 1001, range for oom score adj is [-1000, 1000]",
        ),
        ({"Runtime": "kata"}, "unknown or invalid runtime name: kata"),
        (
            {"CpuRealtimePeriod": 1000, "CpuRealtimeRuntime": 2000},
            "cpu real-time runtime cannot be higher than cpu real-time period",
        ),
        ({"Ulimits": [{"Name": "x", "Soft": 1, "Hard": 1}]}, "invalid ulimit type: x"),
        (
            {"Ulimits": [{"Name": "core", "Soft": 2, "Hard": 1}]},
            "ulimit soft limit must be less than or equal to hard limit: 2 > 1",
        ),
        (
            {"Annotations": {"": "x"}},
            "invalid Annotations: the empty string is not permitted as an annotation key",
        ),
        ({"LogConfig": {"Type": "x"}}, "logger: no log driver named 'x' is registered"),
        ({"SecurityOpt": ["magic=on"]}, 'invalid --security-opt 2: "magic=on"'),
        ({"PortBindings": {"80/xxx": None}}, "invalid proto: xxx"),
    ],
)
def test_contradictions_are_refused_in_docker_s_words(given, text):
    with pytest.raises(BadParameter) as caught:
        rules.check(config(Cmd=["true"]), host(**given))
    assert caught.value.message == text


def test_a_relative_working_directory_is_refused():
    with pytest.raises(BadParameter) as caught:
        rules.check(config(Cmd=["true"], WorkingDir="tmp"), host())
    assert caught.value.message == (
        "the working directory 'tmp' is invalid, it needs to be an absolute path"
    )


def test_a_request_without_a_body_is_no_request():
    with pytest.raises(BadParameter, match="config cannot be empty"):
        create.decode({})
