"""Statuses on their way to the API."""

import asyncio

from node_under_test import NodeUnderTest, make_pod

from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import PODS
from wherry.kube.kubelet.status_manager import StatusManager


def refused(code, reason):
    def before(method, path, body):
        if method == "PATCH" and path.endswith("/status"):
            raise StatusError(code, reason, "not that")

    return before


async def test_a_status_that_nobody_takes_does_not_keep_a_pod_that_has_ended(tmp_path):
    async with NodeUnderTest(tmp_path) as node:
        await node.run(make_pod())
        await node.until_ready()
        whole = node.api.request
        refuse = refused(422, "Invalid")

        async def request(method, path, **rest):
            refuse(method, path, rest.get("body"))
            return await whole(method, path, **rest)

        node.api.request = request
        await node.client.delete(PODS, "web", "default")
        await node.until(lambda: node.pod() is None)


class SlowAPI:
    """Takes statuses one at a time, each when it is let to."""

    def __init__(self, pod):
        self.pod, self.written, self.turn = pod, [], asyncio.Semaphore(0)
        self.asked = asyncio.Event()

    async def patch(self, resource, name, patch, namespace, **how):
        self.asked.set()
        await self.turn.acquire()
        status = {**self.pod["status"], **patch["status"]}
        version = str(int(self.pod["metadata"]["resourceVersion"]) + 1)
        metadata = {**self.pod["metadata"], "resourceVersion": version}
        self.pod = {**self.pod, "metadata": metadata, "status": status}
        self.written.append(status["phase"])
        return self.pod


async def test_a_status_that_turns_back_while_it_is_being_written_is_written_again():
    metadata = {"name": "web", "namespace": "default", "uid": "u", "resourceVersion": "1"}
    pod = {"metadata": metadata, "spec": {}, "status": {"phase": "Pending"}}
    api = SlowAPI(pod)
    statuses = StatusManager(api)
    statuses.set(pod, {"phase": "Running"}, urgent=True)
    await api.asked.wait()
    statuses.set(pod, {"phase": "Running"}, urgent=True)
    statuses.set(pod, {"phase": "Pending"}, urgent=True)
    api.turn.release()
    api.turn.release()
    await statuses.flush("u")
    assert api.written == ["Running", "Pending"]
    await statuses.close()


async def test_who_waits_for_all_to_be_written_waits_for_what_is_on_its_way():
    metadata = {"name": "web", "namespace": "default", "uid": "u", "resourceVersion": "1"}
    pod = {"metadata": metadata, "spec": {}, "status": {"phase": "Pending"}}
    api = SlowAPI(pod)
    statuses = StatusManager(api)
    statuses.set(pod, {"phase": "Running"}, urgent=True)
    await api.asked.wait()
    flushed = asyncio.ensure_future(statuses.flush("u"))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not flushed.done()
    api.turn.release()
    await flushed
    assert api.written == ["Running"]
    await statuses.close()
