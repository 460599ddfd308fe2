"""Transitions of containers, with a runtime and a network that only pretend."""

import asyncio
import signal
import time
from types import SimpleNamespace

import pytest
from containers_helper import make

from wherry.engine.container.lifecycle import Lifecycle
from wherry.engine.container.recovery import recover
from wherry.engine.container.store import ContainerStore
from wherry.engine.errors import BadParameter, Conflict, EngineError, NotModified
from wherry.engine.events import EventBus
from wherry.engine.volume.volumes import Volumes
from wherry.runtime.types import ExitStatus, RuntimeFailure


class FakeRuntime:
    """Starts nothing; ``end`` tells that a container's process has ended."""

    def __init__(self):
        self.signals = []
        self.deaf = False
        self.refusal = None
        self.ends_at_once = False
        self.lifecycle = None
        self.recovered = {}

    async def start(self, id):
        await asyncio.sleep(0)
        if self.ends_at_once:
            self.end(id)

    async def kill(self, id, number):
        self.signals.append(number)
        if number == signal.SIGKILL or not self.deaf:
            asyncio.get_running_loop().call_soon(self.end, id, 128 + number)

    async def attach(self, id, *, stdin):
        return f"stream of {id[:1]}"

    async def recover(self, ids, *, log):
        return {id: self.recovered.get(id) for id in ids}

    def exit_status(self, id):
        return None

    def end(self, id, code=0, oom=False):
        self.lifecycle.exited(ExitStatus(id, code, oom, time.time_ns()))


class FakeResources:
    def __init__(self, runtime):
        self.runtime = runtime
        self.taken = []
        self.slow = 0

    async def take(self, container, save):
        await asyncio.sleep(self.slow)
        if self.runtime.refusal:
            raise self.runtime.refusal
        self.taken.append(container.id)
        return 4711

    async def give_back(self, container):
        await asyncio.sleep(0)
        while container.id in self.taken:
            self.taken.remove(container.id)
        return True


async def nothing(*_):
    return None


@pytest.fixture
def world(tmp_path):
    store = ContainerStore(tmp_path / "containers")
    store.load()
    events, runtime = EventBus(), FakeRuntime()
    images = SimpleNamespace(release=nothing)
    networks = SimpleNamespace(
        all_namespaces=list, reclaim=nothing, namespace=None, places=SimpleNamespace()
    )
    volumes = Volumes(tmp_path / "volumes", events)
    volumes.open({})
    lifecycle = Lifecycle(store, images, networks, events, runtime, volumes)
    runtime.lifecycle = lifecycle
    lifecycle.resources = FakeResources(runtime)

    def create(name="web", id="a" * 64, **host):
        container = make(id, name, host=host, home=store.root / id)
        container.home.mkdir()
        store.reserve_name(name, id)
        store.save(container)
        store.add(container)
        return container

    return SimpleNamespace(
        store=store, events=events, runtime=runtime, lifecycle=lifecycle, create=create,
        resources=lifecycle.resources, images=images, networks=networks,
        actions=lambda: [e.action for e in events.history(0)],
    )  # fmt: skip


async def until(condition):
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_a_run_from_start_to_end(world):
    container = world.create()
    await world.lifecycle.start(container)
    assert (container.state.status, container.state.pid) == ("running", 4711)
    assert container.holding
    world.runtime.end(container.id, 3)
    await container.run.settled.wait()
    assert (container.state.status, container.state.exit_code) == ("exited", 3)
    assert not container.holding and not world.resources.taken
    assert world.actions() == ["start", "die"]


async def test_its_end_is_told_before_what_it_held_is_given_back(world):
    container = world.create()
    seen = []

    async def give_back(_):
        seen.extend(world.actions())
        return True

    await world.lifecycle.start(container)
    world.resources.give_back = give_back
    world.runtime.end(container.id, 137, oom=True)
    await container.run.settled.wait()
    assert seen == ["start", "oom", "die"]


async def test_want_of_memory_that_was_told_is_not_told_again_at_the_end(world):
    container = world.create()
    await world.lifecycle.start(container)
    world.lifecycle.ran_out_of_memory(container.id)
    assert world.actions() == ["start", "oom"]
    world.runtime.end(container.id, 137, oom=True)
    await container.run.settled.wait()
    assert world.actions() == ["start", "oom", "die"]


async def test_a_signal_is_told_before_the_end_it_brings(world):
    container = world.create()
    await world.lifecycle.start(container)

    async def kill(id, number):
        world.runtime.end(id, 128 + number)
        for _ in range(5):
            await asyncio.sleep(0)

    world.runtime.kill = kill
    await world.lifecycle.kill(container, signal.SIGKILL)
    assert world.actions() == ["start", "kill", "die"]


async def test_what_ends_before_its_start_is_acknowledged_has_started_first(world):
    world.runtime.ends_at_once = True
    container = world.create()
    await world.lifecycle.start(container)
    await container.run.settled.wait()
    assert world.actions() == ["start", "die"]
    assert container.state.status == "exited"


async def test_a_failed_start_is_told_kept_and_undone(world):
    world.runtime.refusal = RuntimeFailure('exec: "x": executable file not found in $PATH', 127)
    container = world.create()
    with pytest.raises(BadParameter):
        await world.lifecycle.start(container)
    state = container.state
    assert (state.status, state.exit_code) == ("created", 127)
    assert "executable file not found" in state.error
    assert not container.holding
    world.runtime.refusal = None
    await world.lifecycle.start(container)
    assert state.error == ""


async def test_a_fault_of_ours_leaves_nothing_half_started(world, caplog):
    world.runtime.refusal = KeyError("x")
    container = world.create()
    with pytest.raises(EngineError, match="internal error"):
        await world.lifecycle.start(container)
    assert container.state.status == "created" and not container.holding
    assert "KeyError" in caplog.text
    world.runtime.refusal = None
    await world.lifecycle.start(container)
    assert container.state.running


async def test_clients_that_attached_before_get_their_streams_or_learn_of_the_failure(world):
    container = world.create()
    early = asyncio.get_running_loop().create_future()
    container.attaching.append((early, True))
    await world.lifecycle.start(container)
    assert early.result() == "stream of a"
    world.runtime.refusal = RuntimeFailure("no", 128)
    other = world.create("other", "b" * 64)
    late = asyncio.get_running_loop().create_future()
    other.attaching.append((late, False))
    with pytest.raises(Exception):  # noqa: B017
        await world.lifecycle.start(other)
    assert late.result() is None


async def test_starting_what_runs_changes_nothing(world):
    container = world.create()
    await world.lifecycle.start(container)
    with pytest.raises(NotModified):
        await world.lifecycle.start(container)
    container.state.paused = True
    with pytest.raises(Conflict, match="cannot start a paused container"):
        await world.lifecycle.start(container)


async def test_two_starts_at_once_are_one(world):
    world.resources.slow = 0.01
    container = world.create()
    results = await asyncio.gather(
        *(world.lifecycle.start(container) for _ in range(3)), return_exceptions=True
    )
    assert [type(result) for result in results] == [type(None), NotModified, NotModified]
    assert world.resources.taken == [container.id]


async def test_stop_is_a_signal_and_then_another(world):
    world.runtime.deaf = True
    container = world.create()
    await world.lifecycle.start(container)
    await world.lifecycle.stop(container, timeout=0.02)
    assert world.runtime.signals == [signal.SIGTERM, signal.SIGKILL]
    assert container.state.exit_code == 137
    assert world.actions() == ["start", "kill", "kill", "die", "stop"]
    with pytest.raises(NotModified):
        await world.lifecycle.stop(container)


async def test_kill_works_while_stop_waits(world):
    world.runtime.deaf = True
    container = world.create()
    await world.lifecycle.start(container)
    stopping = asyncio.create_task(world.lifecycle.stop(container, timeout=30))
    await asyncio.sleep(0.01)
    await world.lifecycle.kill(container, signal.SIGKILL)
    await stopping
    assert container.state.status == "exited"


async def test_a_policy_starts_it_again_with_growing_pauses(world):
    world.runtime.ends_at_once = True
    container = world.create(RestartPolicy={"Name": "on-failure", "MaximumRetryCount": 0})
    await world.lifecycle.start(container)
    await container.run.settled.wait()
    assert container.state.status == "exited"  # with 0
    world.runtime.ends_at_once = False
    await world.lifecycle.start(container)
    world.runtime.end(container.id, 1)
    assert (container.state.status, container.restart_count) == ("restarting", 1)
    await until(lambda: container.state.status == "running")
    assert container.restart_count == 1
    world.runtime.end(container.id, 1)
    assert container.state.status == "restarting"
    await until(lambda: container.restart_delay == 0.2)
    await world.lifecycle.stop(container)
    assert container.state.status == "exited"


async def test_removal_while_a_restart_is_under_way(world):
    container = world.create(RestartPolicy={"Name": "always", "MaximumRetryCount": 0})
    await world.lifecycle.start(container)
    world.resources.slow = 0.05
    world.runtime.end(container.id, 1)
    await until(lambda: container.lock.locked())
    await world.lifecycle.remove(container, force=True)
    assert world.store.find("web") is None
    assert not world.resources.taken
    assert not container.home.exists()


async def test_what_removes_itself_is_gone_after_its_end(world):
    container = world.create(AutoRemove=True)
    removed = asyncio.get_running_loop().create_future()
    container.removal_waiters.append(removed)
    await world.lifecycle.start(container)
    world.runtime.end(container.id, 5)
    assert await removed == 5
    assert world.store.find("web") is None
    assert world.actions() == ["start", "die", "destroy"]


async def test_the_former_end_is_still_seen_in_the_next_run(world):
    container = world.create()
    await world.lifecycle.start(container)
    await world.lifecycle.restart(container)
    state = container.state
    assert state.running and 0 < state.finished_at <= state.started_at


async def test_a_restart_is_not_the_end_of_what_removes_itself(world):
    container = world.create(AutoRemove=True)
    await world.lifecycle.start(container)
    await world.lifecycle.restart(container)
    assert container.state.status == "running"
    assert world.actions() == ["start", "kill", "die", "stop", "start", "restart"]


async def test_a_running_container_is_removed_by_force_only(world):
    container = world.create()
    await world.lifecycle.start(container)
    with pytest.raises(Conflict) as caught:
        await world.lifecycle.remove(container)
    assert caught.value.message == (
        'cannot remove container "/web": container is running: stop the container before '
        "removing or force remove"
    )
    await world.lifecycle.remove(container, force=True)
    assert world.actions() == ["start", "kill", "die", "destroy"]


async def test_two_removals_at_once(world):
    container = world.create()
    await world.lifecycle.start(container)
    first = asyncio.create_task(world.lifecycle.remove(container, force=True))
    await asyncio.sleep(0)
    with pytest.raises(Conflict, match="is already in progress"):
        await world.lifecycle.remove(container, force=True)
    await first


async def test_a_full_disk_does_not_keep_a_container_from_ending(world, monkeypatch):
    container = world.create()
    await world.lifecycle.start(container)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(world.store, "save", full)
    world.runtime.end(container.id, 0)
    await container.run.settled.wait()
    await world.lifecycle.remove(container)
    assert world.store.find("web") is None


async def test_a_start_on_a_full_disk_is_refused(world, monkeypatch):
    container = world.create()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(world.store, "save", full)
    with pytest.raises(Exception, match="No space left on device"):
        await world.lifecycle.start(container)
    assert container.state.status == "created"


async def after_a_kill(world, found):
    """A new daemon, on what the old one left on disk."""
    store = ContainerStore(world.store.root)
    world.runtime.recovered = found
    lifecycle = Lifecycle(
        store, world.images, world.networks, world.events, world.runtime, world.lifecycle.volumes
    )
    lifecycle.resources = world.resources
    world.runtime.lifecycle = lifecycle
    await recover(lifecycle)
    return SimpleNamespace(store=store, lifecycle=lifecycle)


async def test_what_still_runs_is_taken_up(world):
    container = world.create()
    await world.lifecycle.start(container)
    new = await after_a_kill(world, {container.id: 99})
    found = new.store.get("web")
    assert (found.state.status, found.state.pid) == ("running", 99)
    assert found.state.started_at == container.state.started_at
    world.runtime.end(found.id, 4)
    await found.run.settled.wait()
    assert found.state.exit_code == 4


async def test_what_ended_meanwhile_has_its_exit_code(world):
    container = world.create()
    await world.lifecycle.start(container)
    status = ExitStatus(container.id, 9, True, 12345)
    new = await after_a_kill(world, {container.id: status})
    state = new.store.get("web").state
    assert (state.status, state.exit_code, state.oom_killed) == ("exited", 9, True)
    assert state.finished_at == 12345
    assert not world.resources.taken


async def test_what_vanished_is_told_apart(world):
    container = world.create()
    await world.lifecycle.start(container)
    new = await after_a_kill(world, {})
    assert new.store.get("web").state.exit_code == 255


async def test_a_start_cut_short_is_undone_or_found_running(world):
    container = world.create()
    container.holding = True
    world.store.save(container)
    new = await after_a_kill(world, {})
    assert new.store.get("web").state.status == "created"
    assert not new.store.get("web").holding
    world.store.save(container)
    new = await after_a_kill(world, {container.id: 99})
    assert new.store.get("web").state.status == "running"


async def test_a_removal_cut_short_is_finished(world):
    container = world.create()
    container.state.dead = True
    world.store.save(container)
    half = world.store.root / ("c" * 64)
    half.mkdir()
    new = await after_a_kill(world, {})
    assert new.store.find("web") is None
    assert list(world.store.root.iterdir()) == []


async def test_what_removes_itself_is_removed_when_it_ended_meanwhile(world):
    container = world.create(AutoRemove=True)
    await world.lifecycle.start(container)
    new = await after_a_kill(world, {container.id: ExitStatus(container.id, 0, False, 1)})
    assert new.store.find("web") is None


async def test_policies_after_a_restart_of_the_daemon(world):
    stopped = {}
    for number, policy in enumerate(("no", "always", "unless-stopped")):
        container = world.create(policy, f"{number}" * 64, RestartPolicy={"Name": policy})
        await world.lifecycle.start(container)
        await world.lifecycle.stop(container)
        stopped[policy] = container.id
    new = await after_a_kill(world, {})
    await until(lambda: new.store.get("always").state.status == "running")
    assert new.store.get("no").state.status == "exited"
    assert new.store.get("unless-stopped").state.status == "exited"


async def test_closing_waits_for_what_is_under_way_and_starts_nothing_more(world):
    container = world.create(RestartPolicy={"Name": "always"})
    await world.lifecycle.start(container)
    world.runtime.end(container.id, 1)
    await world.lifecycle.close(1.0)
    assert container.run.settled.is_set()
    await asyncio.sleep(0.15)
    assert container.state.status == "restarting"
    assert not world.resources.taken
