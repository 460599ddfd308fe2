"""Pods from creation to removal, on a fake API and a fake runtime."""

import asyncio

from node_under_test import NodeUnderTest, condition, container, make_pod, state

from wherry.engine.cri.types import CRIError, ExecResult
from wherry.kube.api.resources import CONFIG_MAPS, LEASES, PODS
from wherry.kube.kubelet import status_manager


async def test_the_node_registers_gets_its_range_and_is_ready(tmp_path):
    async with NodeUnderTest(tmp_path) as node:
        told = node.node()
        assert told["metadata"]["labels"]["kubernetes.io/hostname"] == "one"
        assert condition(told, "Ready") == "True"
        assert node.runtime.cidr == "10.244.0.0/24"
        assert told["status"]["capacity"]["pods"] == "110"
        assert told["status"]["nodeInfo"]["containerRuntimeVersion"] == "docker://28.5.0"
        lease = await node.until(lambda: node.api.get(LEASES, "one", "kube-node-lease"))
        assert lease["spec"]["leaseDurationSeconds"] == 40


async def test_a_pod_becomes_ready_with_one_write_of_its_status(tmp_path, monkeypatch):
    monkeypatch.setattr(status_manager, "PATIENCE", 60)  # as long as it takes to start
    async with NodeUnderTest(tmp_path) as node:
        await node.run(make_pod())
        pod = await node.until_ready()
        assert pod["status"]["phase"] == "Running"
        assert pod["status"]["podIP"] == "10.244.0.1"
        assert pod["status"]["podIPs"] == [{"ip": "10.244.0.1"}]
        assert pod["status"]["hostIP"] == "192.0.2.9"
        assert pod["status"]["qosClass"] == "BestEffort"
        assert pod["status"]["startTime"]
        web = state(pod)
        assert web["ready"] and web["started"] and web["restartCount"] == 0
        assert web["containerID"].startswith("docker://c")
        assert "running" in web["state"]
        writes = [r for r in node.api.requests if r == ("PATCH", _status_path("web"))]
        assert len(writes) == 1


async def test_events_tell_of_the_start_in_upstreams_words(tmp_path):
    async with NodeUnderTest(tmp_path) as node:
        await node.run(make_pod())
        await node.until(lambda: ("Started", "Container started") in node.events())
        text = 'Container image "web:1" already present on machine and can be accessed by the pod'
        assert ("Pulled", text) in node.events()
        assert ("Created", "Container created") in node.events()


async def test_a_container_that_ends_is_restarted_at_once_and_then_with_back_off(tmp_path):
    async with NodeUnderTest(tmp_path) as node:
        await node.run(make_pod())
        await node.until_ready()
        node.runtime.exit(node.runtime.running("web").id, 3)
        await node.until(lambda: state(node.pod())["restartCount"] == 1)
        pod = await node.until_ready()
        assert state(pod)["lastState"]["terminated"]["exitCode"] == 3
        node.runtime.exit(node.runtime.running("web").id, 3)
        await node.until(lambda: "waiting" in state(node.pod())["state"])
        waiting = state(node.pod())["state"]["waiting"]
        assert waiting["reason"] == "CrashLoopBackOff"
        uid = pod["metadata"]["uid"]
        assert waiting["message"] == (
            f"back-off 10s restarting failed container=web pod=web_default({uid})"
        )
        assert node.pod()["status"]["phase"] == "Running"
        assert condition(node.pod(), "Ready") == "False"
        text = f"Back-off restarting failed container web in pod web_default({uid})"
        await node.until(lambda: ("BackOff", text) in node.events())


async def test_init_containers_run_one_after_another_before_the_others(tmp_path):
    async with NodeUnderTest(tmp_path) as node:
        node.runtime.exits_at_once = {"first": 0, "second": 0}
        await node.run(make_pod(initContainers=[container("first"), container("second")]))
        pod = await node.until_ready()
        started = [what for name, what in node.runtime.calls if name == "start_container"]
        assert started == ["first", "second", "web"]
        assert condition(pod, "Initialized") == "True"
        assert [s["ready"] for s in pod["status"]["initContainerStatuses"]] == [True, True]


async def test_a_failed_init_container_of_a_pod_that_never_restarts_fails_the_pod(tmp_path):
    async with NodeUnderTest(tmp_path) as node:
        node.runtime.exits_at_once = {"first": 1}
        await node.run(make_pod(restartPolicy="Never", initContainers=[container("first")]))
        await node.until(lambda: node.pod()["status"]["phase"] == "Failed")
        await node.until(lambda: node.runtime.count("stop_pod_sandbox"))
        assert node.runtime.count("start_container") == 1


async def test_a_sidecar_starts_first_and_ends_last(tmp_path):
    async with NodeUnderTest(tmp_path) as node:
        await node.run(make_pod(initContainers=[container("log", restartPolicy="Always")]))
        await node.until_ready()
        await node.client.delete(PODS, "web", "default")
        await node.until(lambda: node.pod() is None)
        stops = [what.split()[0] for name, what in node.runtime.calls if name == "stop_container"]
        assert stops == ["web", "log"]


async def test_a_pod_that_completes_at_once_is_succeeded_when_its_sidecars_have_ended(
    tmp_path, monkeypatch
):
    async with NodeUnderTest(tmp_path) as node:
        node.runtime.exits_at_once = {"web": 0}
        stop = node.runtime.stop_container
        phases = []

        async def slowly(container_id: str, timeout: float) -> None:
            await asyncio.sleep(0.2)  # what was told before has been written
            phases.append(node.pod()["status"].get("phase"))
            await stop(container_id, timeout)

        monkeypatch.setattr(node.runtime, "stop_container", slowly)
        sidecar = container("log", restartPolicy="Always")
        await node.run(make_pod(restartPolicy="Never", initContainers=[sidecar]))
        await node.until(lambda: node.pod()["status"].get("phase") == "Succeeded")
        assert phases and "Succeeded" not in phases
        assert not [c for c in node.runtime.containers.values() if c.state.name == "RUNNING"]


async def test_a_pod_that_completes_is_succeeded_and_its_records_stay_until_it_is_deleted(tmp_path):
    async with NodeUnderTest(tmp_path) as node:
        await node.run(make_pod(restartPolicy="OnFailure"))
        await node.until_ready()
        node.runtime.exit(node.runtime.running("web").id, 0)
        await node.until(lambda: node.pod()["status"]["phase"] == "Succeeded")
        ready = next(c for c in node.pod()["status"]["conditions"] if c["type"] == "Ready")
        assert ready["reason"] == "PodCompleted"
        await node.until(lambda: node.runtime.count("stop_pod_sandbox"))
        assert len(node.runtime.containers) == 1
        await node.client.delete(PODS, "web", "default")
        await node.until(lambda: not node.runtime.containers and not node.runtime.sandboxes)


async def test_deletion_gives_the_grace_period_and_ends_with_the_removal_from_the_api(tmp_path):
    async with NodeUnderTest(tmp_path) as node:
        await node.run(make_pod(terminationGracePeriodSeconds=7))
        await node.until_ready()
        await node.client.delete(PODS, "web", "default")
        await node.until(lambda: node.pod() is None)
        # (What was waited for before, in tenths of seconds, is part of it.)
        (grace,) = graces(node)
        assert 6 < grace <= 7
        await node.until(lambda: not node.runtime.containers and not node.runtime.sandboxes)
        await node.until(lambda: ("Killing", "Stopping container web") in node.events())
        await node.until(lambda: not list((tmp_path / "kubelet" / "pods").iterdir()))


async def test_a_pod_hears_the_signal_when_services_have_turned_to_others(tmp_path):
    node = NodeUnderTest(tmp_path)
    asked, turned = [], asyncio.Event()

    async def withdrawn(namespace, address):
        asked.append((namespace, address))
        await turned.wait()

    node.options["withdrawn"] = withdrawn
    async with node:
        await node.run(make_pod(terminationGracePeriodSeconds=600))
        await node.until_ready()
        (address,) = (ip["ip"] for ip in node.pod()["status"]["podIPs"])
        await node.client.delete(PODS, "web", "default")
        await node.until(lambda: asked)
        assert asked == [("default", address)] and not node.runtime.count("stop_container")
        turned.set()
        await node.until(lambda: node.pod() is None)


async def test_services_that_do_not_turn_to_others_hold_nothing_up_for_long(tmp_path):
    node = NodeUnderTest(tmp_path)

    async def withdrawn(_namespace, _address):
        await asyncio.Event().wait()

    node.options["withdrawn"] = withdrawn
    async with node:
        await node.run(make_pod(terminationGracePeriodSeconds=2))
        await node.until_ready()
        await node.client.delete(PODS, "web", "default")
        await node.until(lambda: node.pod() is None)


async def test_a_shorter_grace_period_hurries_a_termination_that_is_under_way(tmp_path):
    async with NodeUnderTest(tmp_path) as node:
        node.runtime.ignores_term.add("web")
        await node.run(make_pod(terminationGracePeriodSeconds=600))
        await node.until_ready()
        await node.client.delete(PODS, "web", "default")
        (first,) = await node.until(lambda: graces(node))
        assert 590 < first <= 600
        await node.client.delete(PODS, "web", "default", grace=1)
        # The fake runtime's first stop sleeps on; the second one ends the container.
        await node.until(lambda: not node.runtime.containers["c2"].state.value.endswith("RUNNING"))
        assert graces(node)[1:] == [1]


async def test_a_pod_removed_by_force_is_ended_all_the_same(tmp_path):
    async with NodeUnderTest(tmp_path) as node:
        await node.run(make_pod())
        await node.until_ready()
        await node.client.delete(PODS, "web", "default", grace=0)
        await node.until(lambda: not node.runtime.containers and not node.runtime.sandboxes)


async def test_a_pre_stop_hook_runs_before_the_signal(tmp_path):
    async with NodeUnderTest(tmp_path) as node:
        hook = {"preStop": {"exec": {"command": ["bye", "now"]}}}
        await node.run(make_pod(containers=[container(lifecycle=hook)]))
        await node.until_ready()
        await node.client.delete(PODS, "web", "default")
        await node.until(lambda: node.pod() is None)
        names = [call for call in node.runtime.calls if call[0] in ("exec_sync", "stop_container")]
        assert names[0] == ("exec_sync", "bye now")
        assert names[1][0] == "stop_container"


async def test_a_restarted_kubelet_takes_up_what_runs_and_writes_nothing(tmp_path):
    async with NodeUnderTest(tmp_path) as node:
        await node.run(make_pod())
        before = await node.until_ready()
        starts, version = node.runtime.count("start_container"), before["metadata"]
        await node.restart()
        await asyncio.sleep(0.4)
        assert node.runtime.count("start_container") == starts
        assert node.pod()["metadata"] == version


async def test_a_restarted_kubelet_leaves_finished_pods_as_they_are(tmp_path):
    async with NodeUnderTest(tmp_path) as node:
        await node.run(make_pod(restartPolicy="Never"))
        await node.until_ready()
        node.runtime.exit(node.runtime.running("web").id, 0)
        await node.until(lambda: node.pod()["status"]["phase"] == "Succeeded")
        await node.until(lambda: node.runtime.count("stop_pod_sandbox"))
        await node.settle()
        before = node.pod()["metadata"]
        await node.restart()
        await asyncio.sleep(0.4)
        assert node.pod()["metadata"] == before
        assert len(node.runtime.containers) == 1


async def test_a_restarted_kubelet_notices_what_ended_meanwhile(tmp_path):
    async with NodeUnderTest(tmp_path) as node:
        await node.run(make_pod())
        await node.until_ready()
        await node.stop()
        node.runtime.exit(node.runtime.running("web").id, 9)
        await node.start()
        await node.until(lambda: state(node.pod())["restartCount"] == 1)
        assert state(node.pod())["lastState"]["terminated"]["exitCode"] == 9


async def test_what_is_left_of_pods_that_the_api_forgot_is_cleared_away(tmp_path):
    async with NodeUnderTest(tmp_path) as node:
        await node.run(make_pod())
        await node.until_ready()
        await node.stop()
        await node.client.delete(PODS, "web", "default", grace=0)
        await node.start()
        await node.until(lambda: not node.runtime.containers and not node.runtime.sandboxes)
        await node.until(lambda: not list((tmp_path / "kubelet" / "pods").iterdir()))


async def test_a_missing_image_that_must_not_be_pulled(tmp_path):
    async with NodeUnderTest(tmp_path) as node:
        missing = container(image="gone:1", imagePullPolicy="Never")
        await node.run(make_pod(containers=[missing]))
        await node.until(
            lambda: state(node.pod())["state"]["waiting"]["reason"] == "ErrImageNeverPull"
        )
        text = 'Container image "gone:1" is not present with pull policy of Never'
        await node.until(lambda: ("ErrImageNeverPull", text) in node.events())
        await node.until(lambda: ("Failed", "Error: ErrImageNeverPull") in node.events())


async def test_an_image_that_cannot_be_pulled_is_backed_off_from(tmp_path):
    async with NodeUnderTest(tmp_path) as node:
        node.runtime.fail["pull_image"] = CRIError("no route to registry", "ErrImagePull")
        await node.run(make_pod(containers=[container(image="gone:latest")]))
        await node.until(lambda: state(node.pod())["state"]["waiting"]["reason"] == "ErrImagePull")
        text = 'Failed to pull image "gone:latest": no route to registry'
        await node.until(lambda: ("Failed", text) in node.events())
        assert node.pod()["status"]["phase"] == "Pending"


async def test_a_deletion_while_an_image_is_being_pulled_does_not_wait_for_it(tmp_path):
    async with NodeUnderTest(tmp_path) as node:
        never = asyncio.Event()

        async def pull(image):
            await never.wait()

        node.runtime.pull_image = pull
        await node.run(make_pod(containers=[container(image="slow:latest")]))
        await node.until(lambda: ("Pulling", 'Pulling image "slow:latest"') in node.events())
        await node.client.delete(PODS, "web", "default")
        await node.until(lambda: node.pod() is None)


async def test_a_missing_config_map_holds_the_container_back_until_it_is_there(tmp_path):
    async with NodeUnderTest(tmp_path) as node:
        reference = {"configMapKeyRef": {"name": "settings", "key": "colour"}}
        env = [{"name": "COLOUR", "valueFrom": reference}]
        await node.run(make_pod(containers=[container(env=env)]))
        reason = "CreateContainerConfigError"
        await node.until(lambda: state(node.pod())["state"]["waiting"]["reason"] == reason)
        assert state(node.pod())["state"]["waiting"]["message"] == (
            'configmap "settings" not found'
        )
        settings = {
            "metadata": {"name": "settings", "namespace": "default"},
            "data": {"colour": "blue"},
        }
        await node.client.create(CONFIG_MAPS, settings)
        await node.until_ready()
        config = node.runtime.configs[node.runtime.running("web").id]
        assert config.envs["COLOUR"] == "blue"


async def test_files_of_a_config_map_follow_its_changes(tmp_path):
    async with NodeUnderTest(tmp_path) as node:
        settings = {
            "metadata": {"name": "settings", "namespace": "default"},
            "data": {"colour": "blue"},
        }
        await node.client.create(CONFIG_MAPS, settings)
        mount = {"name": "config", "mountPath": "/etc/config"}
        volume = {"name": "config", "configMap": {"name": "settings"}}
        await node.run(make_pod(containers=[container(volumeMounts=[mount])], volumes=[volume]))
        await node.until_ready()
        config = node.runtime.configs[node.runtime.running("web").id]
        (place,) = [m.host_path for m in config.mounts if m.container_path == "/etc/config"]
        assert (place / "colour").read_text() == "blue"
        await node.client.patch(CONFIG_MAPS, "settings", {"data": {"colour": "red"}}, "default")
        await node.until(lambda: (place / "colour").read_text() == "red")


async def test_readiness_follows_the_probe_and_liveness_restarts(tmp_path):
    async with NodeUnderTest(tmp_path) as node:
        node.runtime.exec_results["ready?"] = ExecResult(1, b"not yet", b"")
        probes = {
            "readinessProbe": {"exec": {"command": ["ready?"]}, "periodSeconds": 0.05},
            "livenessProbe": {
                "exec": {"command": ["alive?"]},
                "periodSeconds": 0.05,
                "failureThreshold": 2,
            },
        }
        await node.run(make_pod(containers=[container(**probes)]))
        await node.until(lambda: ("Unhealthy", "Readiness probe failed: not yet") in node.events())
        await node.until(lambda: condition(node.pod(), "Ready") == "False")
        node.runtime.exec_results["ready?"] = ExecResult(0, b"", b"")
        await node.until_ready()
        node.runtime.exec_results["alive?"] = ExecResult(1, b"", b"dead")
        await node.until(lambda: state(node.pod())["restartCount"] == 1)
        text = "Container web failed liveness probe, will be restarted"
        await node.until(lambda: ("Killing", text) in node.events())


async def test_a_sandbox_that_cannot_be_made_is_told_and_tried_again(tmp_path):
    async with NodeUnderTest(tmp_path) as node:
        node.runtime.fail["run_pod_sandbox"] = CRIError("no address left")
        await node.run(make_pod())
        text = "Failed to create pod sandbox: no address left"
        await node.until(lambda: ("FailedCreatePodSandBox", text) in node.events())
        del node.runtime.fail["run_pod_sandbox"]
        await node.until_ready()


async def test_a_lost_sandbox_is_replaced_and_the_restarts_counted_on(tmp_path):
    async with NodeUnderTest(tmp_path) as node:
        await node.run(make_pod())
        await node.until_ready()
        (sandbox,) = node.runtime.sandboxes
        await node.runtime.stop_pod_sandbox(sandbox)
        await node.until(lambda: state(node.pod())["restartCount"] == 1)
        pod = await node.until_ready()
        assert pod["status"]["podIPs"] == [{"ip": pod["status"]["podIP"]}]
        assert pod["status"]["podIP"] != "10.244.0.1"
        await node.until(lambda: any(reason == "SandboxChanged" for reason, _ in node.events()))


async def test_a_changed_image_restarts_the_container(tmp_path):
    async with NodeUnderTest(tmp_path) as node:
        await node.run(make_pod())
        await node.until_ready()
        changed = {"spec": {"containers": [container(image="web:2")]}}
        await node.client.patch(PODS, "web", changed, "default")
        await node.until(lambda: state(node.pod())["image"] == "web:2")
        text = "Container web definition changed, will be restarted"
        await node.until(lambda: ("Killing", text) in node.events())


async def test_a_pod_whose_time_is_over_fails(tmp_path):
    async with NodeUnderTest(tmp_path) as node:
        # Whole seconds are counted: it may be over before the pod is ready.
        await node.run(make_pod(activeDeadlineSeconds=1))
        await node.until(lambda: node.pod()["status"]["phase"] == "Failed")
        assert node.pod()["status"]["reason"] == "DeadlineExceeded"


async def test_a_command_that_cannot_be_run_leads_to_back_off(tmp_path):
    async with NodeUnderTest(tmp_path) as node:
        refused = 'exec: "nonsense": executable file not found in $PATH'
        node.runtime.fail["start_container"] = CRIError(refused, "RunContainerError")
        await node.run(make_pod())
        await node.until(lambda: ("Failed", f"Error: {refused}") in node.events())
        await node.until(
            lambda: state(node.pod())["state"]["waiting"]["reason"] == "CrashLoopBackOff"
        )


async def test_a_command_that_cannot_be_run_fails_a_pod_that_never_restarts(tmp_path):
    async with NodeUnderTest(tmp_path) as node:
        refused = CRIError("no such command", "RunContainerError")
        node.runtime.fail["start_container"] = refused
        node.runtime.cannot_run = True
        await node.run(make_pod(restartPolicy="Never"))
        await node.until(lambda: node.pod()["status"]["phase"] == "Failed")
        ended = state(node.pod())["state"]["terminated"]
        assert (ended["exitCode"], ended["reason"]) == (127, "ContainerCannotRun")


async def test_a_volume_whose_source_is_missing_holds_the_pod_back_until_it_is_there(tmp_path):
    async with NodeUnderTest(tmp_path) as node:
        volume = {"name": "keys", "configMap": {"name": "late"}}
        await node.run(make_pod(volumes=[volume]))
        text = 'MountVolume.SetUp failed for volume "keys" : configmap "late" not found'
        await node.until(lambda: ("FailedMount", text) in node.events())
        assert node.runtime.count("run_pod_sandbox") == 0
        late = {"metadata": {"name": "late", "namespace": "default"}, "data": {}}
        await node.client.create(CONFIG_MAPS, late)
        await node.until_ready()


def graces(node):
    """The seconds that containers were given to end, as they were told to."""
    told = [what for name, what in node.runtime.calls if name == "stop_container"]
    return [float(what.split()[1]) for what in told]


def _status_path(name):
    return f"/api/v1/namespaces/default/pods/{name}/status"
