"""Lists of plugins, what plugins are told and what they answer; and plugins that are scripts."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherry.engine.errors import EngineError
from wherry.engine.network.cni import conf as confs
from wherry.engine.network.cni import plugins as running
from wherry.engine.network.cni import protocol
from wherry.engine.network.cni.conf import BadConf, ConfList
from wherry.engine.network.cni.plugins import PluginFailed, Plugins
from wherry.engine.network.cni.protocol import Attachment, BadResult, Place
from wherry.engine.network.cni.turns import Turns

LIST = {
    "cniVersion": "0.4.0",
    "name": "net",
    "plugins": [{"type": "one", "capabilities": {"portMappings": True, "dns": False}}],
}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=8,
)


def write(directory: Path, name: str, document: Any) -> None:
    (directory / name).write_text(json.dumps(document))


# ---- lists of plugins


def test_the_first_list_that_is_one_is_taken(tmp_path: Path) -> None:
    assert confs.load(tmp_path / "missing") is None
    assert confs.load(tmp_path) is None
    (tmp_path / "05.conflist").write_text("{")
    write(tmp_path, "06.conflist", {**LIST, "plugins": []})
    write(tmp_path, "07.txt", {**LIST, "name": "no"})
    write(tmp_path, "20.conflist", {**LIST, "name": "later"})
    write(tmp_path, "10.conf", {"cniVersion": "0.3.1", "name": "single", "type": "one"})
    found = confs.load(tmp_path)
    assert found is not None and (found.name, found.version) == ("single", "0.3.1")
    assert [p["type"] for p in found.plugins] == ["one"] and not found.remembers


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"name": "a/b"}, "invalid network name"),
        ({"name": ""}, "invalid network name"),
        ({"cniVersion": "9.0.0"}, "is none of 0.1.0"),
        ({"cniVersions": ["8.0.0"], "cniVersion": "9.0.0"}, "is none of 0.1.0"),
        ({"cniVersions": "1.0.0"}, "invalid type for cniVersions"),
        ({"cniVersions": [1]}, "invalid type for cniVersions"),
        ({"plugins": []}, "no plugins in list"),
        ({"plugins": [{}]}, "invalid plugin config 0"),
        ({"plugins": [{"type": "../sh"}]}, "invalid plugin config 0"),
    ],
)
def test_what_is_wrong_with_a_list_is_said(change: dict[str, Any], why: str) -> None:
    with pytest.raises(BadConf, match=why):
        confs.parse(orjson.dumps({**LIST, **change}), single=False)


def test_a_file_of_one_plugin_needs_its_type() -> None:
    with pytest.raises(BadConf, match="no 'type'"):
        confs.parse(b'{"name": "x"}', single=True)


@given(VALUES, st.booleans())
def test_no_configuration_ends_in_anything_but_a_sentence(value: Any, single: bool) -> None:
    changes = [{key: value} for key in ("plugins", "cniVersion", "cniVersions", "disableGC")]
    for document in (value, *({**LIST, **change} for change in changes)):
        try:
            found = confs.parse(orjson.dumps(document), single=single)
        except BadConf:
            continue
        assert found.plugins and isinstance(found.capabilities, frozenset)
        assert isinstance(found.remembers, bool)


# ---- what plugins are told


def test_a_plugin_is_told_what_it_wants_to_know_and_no_more() -> None:
    (conf,) = [confs.parse(orjson.dumps(LIST), single=False)]
    given = protocol.capabilities(
        ports={"80/tcp": [{"HostIp": "", "HostPort": "8080"}]},
        ranges=["10.1.0.0/24"],
        ingress=1000,
        dns={"servers": ["10.0.0.10"]},
    )
    assert given["bandwidth"] == {"ingressRate": 1000, "ingressBurst": 2**31 - 1}
    assert given["ipRanges"] == [[{"subnet": "10.1.0.0/24"}]]
    attachment = Attachment("id", "ns", "pod", "uid", given)
    told = orjson.loads(protocol.stdin(conf, conf.plugins[0], attachment, {"ips": []}))
    mapping = {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}
    assert told["runtimeConfig"] == {"portMappings": [mapping]}
    assert (told["name"], told["cniVersion"], told["prevResult"]) == ("net", "0.4.0", {"ips": []})
    first = orjson.loads(protocol.stdin(conf, {"type": "two"}, attachment, None))
    assert first == {"type": "two", "name": "net", "cniVersion": "0.4.0"}
    environment = protocol.environment("ADD", [Path("/a"), Path("/b")], attachment, Path("/n"))
    assert environment["CNI_PATH"] == "/a:/b" and environment["CNI_IFNAME"] == "eth0"
    assert environment["CNI_ARGS"] == (
        "IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=pod;"
        "K8S_POD_INFRA_CONTAINER_ID=id;K8S_POD_UID=uid"
    )
    assert protocol.environment("DEL", [], attachment, None)["CNI_NETNS"] == ""


# ---- what they answer


def test_addresses_of_the_pod_are_told_from_those_of_the_machine() -> None:
    interfaces = [{"name": "br0"}, {"name": "eth0", "sandbox": "/n", "mac": "02:00:00:00:00:01"}]
    found = {
        "cniVersion": "0.4.0",
        "interfaces": interfaces,
        "ips": [
            {"version": "6", "address": "fd00::2/64", "gateway": "fd00::1", "interface": 1},
            {"version": "4", "address": "10.1.0.1/24", "interface": 0},
            {"version": "4", "address": "10.1.0.2/24", "gateway": "10.1.0.1", "interface": 1},
        ],
    }
    assert protocol.place(found) == Place(
        ("10.1.0.2/24", "fd00::2/64"), ("10.1.0.1", "fd00::1"), "02:00:00:00:00:01", ("br0",)
    )


def test_old_answers_are_understood() -> None:
    found = {"ip4": {"ip": "10.1.0.2/24", "gateway": "10.1.0.1"}}
    assert protocol.place(found) == Place(("10.1.0.2/24",), ("10.1.0.1",))


@given(VALUES)
def test_no_answer_ends_in_anything_but_a_sentence(value: Any) -> None:
    for found in (value, {"ips": value}, {"ips": [value]}, {"ip4": value}, {"interfaces": value}):
        try:
            answer = protocol.result(orjson.dumps(found))
            assert protocol.place(answer).addresses
        except BadResult:
            continue


@given(st.integers(1, 255), st.binary(max_size=40), st.binary(max_size=40))
def test_every_failure_has_a_sentence(code: int, stdout: bytes, stderr: bytes) -> None:
    assert protocol.fault(code, stdout, stderr)


def test_a_failure_is_told_as_libcni_tells_it() -> None:
    assert protocol.fault(1, b'{"code": 7, "msg": "no", "details": "why"}', b"") == "no; why"
    assert protocol.fault(1, b'{"code": 7, "msg": "no"}', b"x") == "no"
    assert protocol.fault(2, b"", b"bad\nworse") == 'netplugin failed: "bad"'
    assert protocol.fault(3, b"", b"") == "netplugin failed with no error message: exit status 3"


# ---- running them


class Scripts:
    """Plugins that write down their calls, in ``home``; one whose name is in ``broken`` refuses."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.conf_dir, self.bin_dir = home / "conf", home / "bin"
        for directory in (self.conf_dir, self.bin_dir):
            directory.mkdir()
        self.plugins = Plugins(self.conf_dir, (home / "none", self.bin_dir), home / "records")
        self.namespace = home / "netns"

    def add(self, *names: str, version: str = "1.0.0", knows: str = "1.0.0", **more: Any) -> None:
        for name in names:
            result = f'{{"ips": [{{"address": "10.0.0.{len(name)}/24"}}]}}'
            known = json.dumps({"supportedVersions": knows.split()})
            (self.bin_dir / name).write_text(
                f"#!/bin/sh\n[ $CNI_COMMAND != VERSION ] || {{ echo '{known}'; exit; }}\n"
                f"echo $CNI_COMMAND {name} $(cat) >> {self.home}/calls\n"
                f"[ ! -e {self.home}/broken.{name} ] || "
                '{ echo \'{"msg": "no"}\'; exit 1; }\n'
                f"[ $CNI_COMMAND != ADD ] || echo '{result}'\n"
            )
            (self.bin_dir / name).chmod(0o755)
        plugins = [{"type": name} for name in names]
        document = {"cniVersion": version, "name": "net", "plugins": plugins, **more}
        write(self.conf_dir, "10.conflist", document)

    def break_(self, name: str) -> Path:
        path = self.home / f"broken.{name}"
        path.touch()
        return path

    @property
    def calls(self) -> list[str]:
        path = self.home / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [" ".join(line.split()[:2]) for line in lines]

    def told(self, number: int) -> dict[str, Any]:
        line = (self.home / "calls").read_text().splitlines()[number]
        found: dict[str, Any] = json.loads(line.split(maxsplit=2)[2])
        return found


@pytest.fixture
def scripts(tmp_path: Path) -> Scripts:
    return Scripts(tmp_path)


ONE = Attachment("abc", "ns", "pod", "uid")


async def test_plugins_are_run_in_order_and_undone_backwards(scripts: Scripts) -> None:
    scripts.add("a", "bb")
    place = await scripts.plugins.add(ONE, scripts.namespace)
    assert place.addresses == ("10.0.0.2/24",)
    assert scripts.plugins.known() == {"abc"}
    await scripts.plugins.check("abc", scripts.namespace)
    await scripts.plugins.delete("abc", scripts.namespace)
    assert scripts.calls == ["ADD a", "ADD bb", "CHECK a", "CHECK bb", "DEL bb", "DEL a"]
    assert "prevResult" not in scripts.told(0)
    assert scripts.told(1)["prevResult"]["ips"][0]["address"] == "10.0.0.1/24"
    assert scripts.told(5)["prevResult"]["ips"][0]["address"] == "10.0.0.2/24"
    await scripts.plugins.delete("abc", scripts.namespace)
    assert len(scripts.calls) == 6 and scripts.plugins.known() == set()


async def test_those_of_an_old_version_are_not_asked_and_not_told(scripts: Scripts) -> None:
    scripts.add("a", version="0.3.1")
    await scripts.plugins.add(ONE, scripts.namespace)
    await scripts.plugins.check("abc", scripts.namespace)
    await scripts.plugins.delete("abc", scripts.namespace)
    assert scripts.calls == ["ADD a", "DEL a"] and "prevResult" not in scripts.told(1)


async def test_what_is_undone_is_what_was_done_whatever_is_configured_by_then(
    scripts: Scripts,
) -> None:
    scripts.add("a")
    await scripts.plugins.add(ONE, scripts.namespace)
    scripts.add("bb")
    again = Plugins(None, (scripts.bin_dir,), scripts.home / "records")
    await again.delete("abc", scripts.namespace)
    assert scripts.calls == ["ADD a", "DEL a"]


async def test_a_refusal_is_told_and_what_was_done_is_known(scripts: Scripts) -> None:
    scripts.add("a", "bb")
    broken = scripts.break_("bb")
    with pytest.raises(PluginFailed) as raised:
        await scripts.plugins.add(ONE, scripts.namespace)
    assert raised.value.message == (
        'failed to set up sandbox container "abc" network for pod "pod": networkPlugin cni failed '
        'to set up pod "pod_ns" network: plugin type="bb" failed (add): no'
    )
    with pytest.raises(EngineError, match=r'plugin type="bb" failed \(del\): no'):
        await scripts.plugins.delete("abc", scripts.namespace)
    assert scripts.plugins.known() == {"abc"}
    broken.unlink()
    await scripts.plugins.delete("abc", scripts.namespace)
    assert scripts.plugins.known() == set()


async def test_nothing_is_begun_without_all_plugins(scripts: Scripts) -> None:
    scripts.add("a", "bb")
    (scripts.bin_dir / "bb").unlink()
    with pytest.raises(PluginFailed, match='failed to find plugin "bb" in path'):
        await scripts.plugins.add(ONE, scripts.namespace)
    assert scripts.calls == [] and scripts.plugins.known() == set()


async def test_without_a_configuration_the_network_is_not_ready(scripts: Scripts) -> None:
    with pytest.raises(EngineError, match=r"NetworkPluginNotReady.*cni config uninitialized"):
        await scripts.plugins.judge()
    waiting = asyncio.ensure_future(scripts.plugins.changed())
    await asyncio.sleep(0)
    scripts.add("a")
    await waiting
    await scripts.plugins.judge()


async def test_a_list_is_spoken_in_the_newest_version_that_all_know(scripts: Scripts) -> None:
    both = ["0.4.0", "1.0.0", "1.1.0", "2.0.0"]
    scripts.add("a", knows="0.4.0 1.0.0 1.1.0", cniVersions=both)
    scripts.add("a", "bb", knows="0.4.0 1.0.0", cniVersions=both)
    await scripts.plugins.judge()
    await scripts.plugins.add(ONE, scripts.namespace)
    await scripts.plugins.collect()
    assert scripts.calls == ["ADD a", "ADD bb"]  # who does not know more is not asked for more
    assert {scripts.told(n)["cniVersion"] for n in (0, 1)} == {"1.0.0"}
    scripts.add("a", "bb", knows="0.4.0 1.0.0 1.1.0", cniVersions=both)
    await Plugins(scripts.conf_dir, (scripts.bin_dir,), scripts.home / "records").judge()
    assert scripts.calls[2:] == ["STATUS a", "STATUS bb"]
    assert scripts.told(3)["cniVersion"] == "1.1.0"


async def test_who_has_one_version_alone_is_spoken_to_in_that(scripts: Scripts) -> None:
    scripts.add("a", version="1.1.0", knows="1.0.0")
    await scripts.plugins.add(ONE, scripts.namespace)
    assert scripts.told(0)["cniVersion"] == "1.1.0"


async def test_a_plugin_that_is_not_ready_is_quoted_and_asked_again(
    scripts: Scripts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "STATUS_PERIOD", 0.01)
    scripts.add("a", "bb", version="1.1.0")
    broken = scripts.break_("bb")
    with pytest.raises(EngineError) as raised:
        await scripts.plugins.judge()
    assert raised.value.message == (
        "NetworkReady=false reason:NetworkPluginNotReady message:docker: network plugin is not "
        'ready: plugin type="bb" failed (status): no'
    )
    told = scripts.told(0)
    assert told == {"type": "a", "name": "net", "cniVersion": "1.1.0"}
    await scripts.plugins.changed()
    broken.unlink()
    await scripts.plugins.judge()
    await scripts.plugins.changed()
    scripts.add("a", version="1.0.0")
    await scripts.plugins.judge()
    assert scripts.calls.count("STATUS a") == 2  # of an older version nobody can be asked


async def test_plugins_hear_of_the_pods_that_there_still_are(scripts: Scripts) -> None:
    scripts.add("a", "bb", version="1.1.0")
    two = Attachment("def", "ns", "two", "uid")
    for attachment in (ONE, two):
        await scripts.plugins.add(attachment, scripts.namespace)
    await scripts.plugins.delete("abc", scripts.namespace)
    broken = scripts.break_("a")
    await scripts.plugins.collect()  # one that refuses keeps the others from nothing
    broken.unlink()
    assert scripts.calls[-2:] == ["GC a", "GC bb"]
    told = scripts.told(-1)
    valid = [{"containerID": "def", "ifname": "eth0"}]
    assert told["cni.dev/valid-attachments"] == told["cni.dev/attachments"] == valid
    scripts.add("a", version="1.1.0", disableGC=True)
    await scripts.plugins.collect()
    assert scripts.calls[-1] == "GC bb"
    scripts.add("a", version="1.1.0")
    write(scripts.conf_dir, "05.conflist", {**LIST, "cniVersion": "1.1.0", "name": "other"})
    (scripts.bin_dir / "one").symlink_to("a")
    await scripts.plugins.collect()
    assert scripts.told(-1)["cni.dev/valid-attachments"] == []  # on that network nobody is


async def test_a_collection_is_alone_and_waits_for_what_is_under_way() -> None:
    turns, order = Turns(), []
    leave, begun, go_on = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def pod(name: str) -> None:
        async with turns.shared():
            order.append(name)
            await leave.wait()

    async def collection() -> None:
        async with turns.exclusive():
            order.append("begin")
            begun.set()
            await go_on.wait()
            order.append("end")

    async with asyncio.TaskGroup() as group:
        group.create_task(pod("one"))
        await asyncio.sleep(0)
        group.create_task(collection())
        group.create_task(collection())
        group.create_task(pod("two"))  # is not kept waiting by who waits
        await asyncio.sleep(0)
        assert order == ["one", "two"]
        leave.set()
        await begun.wait()
        group.create_task(pod("late"))
        await asyncio.sleep(0)
        assert order == ["one", "two", "begin"]
        go_on.set()
    rest = "".join(word[0] for word in order[2:])
    assert rest in ("belbe", "bebel")


async def test_a_directory_that_is_still_to_come_is_noticed(tmp_path: Path) -> None:
    plugins = Plugins(tmp_path / "etc" / "net.d", (), tmp_path / "records")
    with pytest.raises(EngineError):
        await plugins.judge()
    waiting = asyncio.ensure_future(plugins.changed())
    await asyncio.sleep(0)
    (tmp_path / "etc" / "net.d").mkdir(parents=True)
    await waiting


async def test_a_killed_daemon_has_known_before_it_began(scripts: Scripts) -> None:
    scripts.add("a")
    (scripts.bin_dir / "a").write_text(f"#!/bin/sh\nls {scripts.home}/records > {scripts.home}/l\n")
    with pytest.raises(PluginFailed, match="no IP address"):
        await scripts.plugins.add(ONE, scripts.namespace)
    assert (scripts.home / "l").read_text() == "abc.json\n"


def test_a_list_says_what_any_of_it_wants() -> None:
    assert ConfList("n", "1.0.0", ({"capabilities": {"a": True, "b": False}},)).capabilities == {
        "a"
    }
