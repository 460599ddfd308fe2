from __future__ import annotations

from typing import Any

import pytest
from apiserver_harness import API, config, deployment, pod

from wherry.kube.api.errors import StatusError
from wherry.kube.apiserver.admission import AdmissionOptions
from wherry.kube.apiserver.admission.pod_security.plugin import existing, significant
from wherry.kube.apiserver.admission.pod_security.policy import (
    PREFIX,
    Policy,
    Standard,
    of_labels,
)
from wherry.kube.apiserver.request import APIRequest, Body, Query, parse_request
from wherry.kube.apiserver.server import SELF, APIServer

GOOD: dict[str, Any] = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def spec(security: Any = None, **more: Any) -> dict[str, Any]:
    return {"containers": [{"name": "x", "securityContext": security or {}}], **more}


def wrong(level: str, pod_spec: Any, version: str = "latest", **annotations: str) -> str:
    metadata = {"name": "p", "annotations": annotations}
    found = Standard(level, version).violations(metadata, pod_spec)
    return ", ".join(str(each) for each in found)


def test_a_plain_pod_is_not_restricted() -> None:
    assert wrong("restricted", spec()) == (
        'allowPrivilegeEscalation != false (container "x" must set '
        "securityContext.allowPrivilegeEscalation=false), "
        'unrestricted capabilities (container "x" must set '
        'securityContext.capabilities.drop=["ALL"]), '
        'runAsNonRoot != true (pod or container "x" must set securityContext.runAsNonRoot=true), '
        'seccompProfile (pod or container "x" must set securityContext.seccompProfile.type to '
        '"RuntimeDefault" or "Localhost")'
    )
    assert wrong("baseline", spec()) == ""
    assert wrong("restricted", spec(GOOD)) == ""


@pytest.mark.parametrize(
    ("pod_spec", "text"),
    [
        (
            spec({"privileged": True}),
            'privileged (container "x" must not set securityContext.privileged=true)',
        ),
        (
            spec({"capabilities": {"add": ["SYS_ADMIN", "CHOWN", "NET_RAW"]}}),
            'non-default capabilities (container "x" must not include "NET_RAW", "SYS_ADMIN" in '
            "securityContext.capabilities.add)",
        ),
        (spec(hostPID=True, hostNetwork=True), "host namespaces (hostNetwork, hostPID)"),
        (
            spec(volumes=[{"name": "a", "hostPath": {"path": "/"}}, {"name": "b", "emptyDir": {}}]),
            'hostPath volumes (volume "a")',
        ),
        (
            {
                "containers": [
                    {"name": "x", "ports": [{"hostPort": 80}, {"hostPort": 81}]},
                    {"name": "y", "ports": [{"hostPort": 80}]},
                ]
            },
            'hostPort (containers "x", "y" use hostPorts 80, 81)',
        ),
        (
            {"containers": [{"name": "x", "livenessProbe": {"httpGet": {"host": "h"}}}]},
            'probe or lifecycle host (container "x" uses probe or lifecycle host "h")',
        ),
        (
            spec({"procMount": "Unmasked"}),
            'procMount (container "x" must not set securityContext.procMount to "Unmasked")',
        ),
        (
            spec(
                {"seLinuxOptions": {"type": "spc_t"}},
                securityContext={"seLinuxOptions": {"user": "u"}},
            ),
            'seLinuxOptions (pod and container "x" set forbidden securityContext.seLinuxOptions: '
            'type "spc_t"; user may not be set)',
        ),
        (
            spec(securityContext={"seccompProfile": {"type": "Unconfined"}}),
            'seccompProfile (pod must not set securityContext.seccompProfile.type to "Unconfined")',
        ),
        (
            spec(securityContext={"sysctls": [{"name": "kernel.msgmax"}]}),
            "forbidden sysctls (kernel.msgmax)",
        ),
        (
            spec({"windowsOptions": {"hostProcess": True}}),
            'hostProcess (container "x" must not set '
            "securityContext.windowsOptions.hostProcess=true)",
        ),
        (
            spec({"appArmorProfile": {"type": "Unconfined"}}),
            'forbidden AppArmor profile (container "x" must not set AppArmor profile type to '
            '"Unconfined")',
        ),
    ],
)
def test_baseline_names_what_escalates(pod_spec: Any, text: str) -> None:
    assert wrong("baseline", pod_spec) == text


def test_old_annotations_are_judged() -> None:
    app_armor = {"container.apparmor.security.beta.kubernetes.io/x": "unconfined"}
    assert wrong("baseline", spec(), **app_armor) == (
        "forbidden AppArmor profile (annotation must not set AppArmor profile type to "
        '"container.apparmor.security.beta.kubernetes.io/x="unconfined"")'
    )
    seccomp = {"seccomp.security.alpha.kubernetes.io/pod": "unconfined"}
    assert "forbidden annotation" in wrong("baseline", spec(), "v1.18", **seccomp)
    assert wrong("baseline", spec(), "v1.19", **seccomp) == ""


def test_restricted_judges_instead_of_baseline() -> None:
    volumes = [{"name": "a", "hostPath": {"path": "/"}}, {"name": "b", "nfs": {"path": "/"}}]
    assert wrong("restricted", spec(GOOD, volumes=volumes)) == (
        'restricted volume types (volumes "a", "b" use restricted volume types "hostPath", "nfs")'
    )
    adding = {**GOOD, "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE", "CHOWN"]}}
    assert wrong("restricted", spec(adding)) == (
        'unrestricted capabilities (container "x" must not include "CHOWN" in '
        "securityContext.capabilities.add)"
    )
    root = {**GOOD, "runAsUser": 0}
    assert wrong("restricted", spec(root)) == (
        'runAsUser=0 (container "x" must not set runAsUser=0)'
    )
    off = {**GOOD, "runAsNonRoot": False}
    assert "must not set securityContext.runAsNonRoot=false" in wrong("restricted", spec(off))


def test_a_version_is_what_it_was() -> None:
    root = {**GOOD, "runAsUser": 0, "runAsNonRoot": False}
    assert wrong("restricted", spec(root, hostUsers=False)) == ""
    assert "runAsUser=0" in wrong("restricted", spec(root, hostUsers=False), "v1.34")
    assert "runAsUser=0" not in wrong("restricted", spec(root), "v1.22")
    unmasked = spec({**GOOD, "procMount": "Unmasked"}, hostUsers=False)
    assert wrong("baseline", unmasked) == ""
    assert "procMount" in wrong("restricted", unmasked)
    tcp = spec(securityContext={"sysctls": [{"name": "net.ipv4.tcp_rmem"}]})
    assert wrong("baseline", tcp, "v1.31") == "forbidden sysctls (net.ipv4.tcp_rmem)"
    assert wrong("baseline", tcp, "v1.32") == ""
    windows = spec({"runAsNonRoot": True}, os={"name": "windows"})
    assert wrong("restricted", windows) == ""
    assert wrong("restricted", windows, "v1.24") != ""


def test_labels_say_what_holds() -> None:
    labels = {f"{PREFIX}enforce": "baseline", f"{PREFIX}enforce-version": "v1.30"}
    policy, faults = of_labels(labels, Policy(warn=Standard("restricted")))
    assert str(policy) == "enforce=baseline:v1.30, warn=restricted:latest"
    assert not faults
    policy, faults = of_labels({f"{PREFIX}enforce": "x", f"{PREFIX}warn": "y"}, Policy())
    assert (policy.enforce.level, policy.warn.level) == ("restricted", "privileged")
    assert [str(fault) for fault in faults] == [
        f'metadata.labels[{PREFIX}{mode}]: Invalid value: "{value}": must be one of privileged, '
        "baseline, restricted"
        for mode, value in (("enforce", "x"), ("warn", "y"))
    ]


def test_pods_that_are_there_are_counted_by_what_is_wrong() -> None:
    def named(name: str, **more: Any) -> Any:
        return {"metadata": {"name": name}, "spec": spec(**more)}

    pods = [named("c", hostPID=True), named("a", hostPID=True), named("b", hostIPC=True)]
    pods += [named("z", hostPID=True, volumes=[{"name": "v", "hostPath": {}}]), named("ok")]
    assert existing("team", Standard("baseline"), pods) == [
        'existing pods in namespace "team" violate the new PodSecurity enforce level '
        '"baseline:latest"',
        "a (and 2 other pods): host namespaces",
        "z: host namespaces, hostPath volumes",
    ]


def test_only_images_and_new_containers_are_judged_again() -> None:
    old = pod()
    labelled = {**old, "metadata": {**old["metadata"], "labels": {"a": "b"}}}
    assert not significant(labelled, old)
    assert significant(pod(containers=[{"name": "c", "image": "other"}]), old)


async def restricted(api: API, *modes: str) -> None:
    labels = {f"{PREFIX}{mode}": "restricted" for mode in modes}
    await api.merge("namespaces/default", {"metadata": {"labels": labels}})


async def test_a_pod_against_the_standard_is_refused(api: API) -> None:
    await restricted(api, "enforce")
    with pytest.raises(StatusError) as failure:
        await api("POST", "pods", pod())
    assert failure.value.code == 403
    assert failure.value.message.startswith(
        'pods "web" is forbidden: violates PodSecurity "restricted:latest": '
        'allowPrivilegeEscalation != false (container "c" must set '
        "securityContext.allowPrivilegeEscalation=false), "
    )
    body = pod()
    body["spec"]["containers"][0]["securityContext"] = GOOD
    await api("POST", "pods", body)


async def asked(server: APIServer, method: str, path: str, body: Any) -> APIRequest:
    """A request as the chain answers it: with warnings and annotations."""
    query = Query(())
    info = parse_request(method, path, query, server.catalogue.served)
    medium = "application/json" if method == "POST" else "application/merge-patch+json"
    request = APIRequest(info, SELF, query, Body(medium, value=body, decoded=True))
    await server._chain.answer(request)
    return request


async def test_who_is_only_warned_may_go_on(server: APIServer, api: API) -> None:
    await restricted(api, "warn", "audit")
    path = "/apis/apps/v1/namespaces/default/deployments"
    request = await asked(server, "POST", path, deployment())
    (warning,) = request.warnings
    assert warning.startswith('would violate PodSecurity "restricted:latest": allowPrivilege')
    assert request.annotations[f"{PREFIX}audit-violations"] == warning
    made = await asked(server, "POST", "/api/v1/namespaces/default/pods", pod())
    assert made.warnings == [warning]
    assert made.annotations[f"{PREFIX}enforce-policy"] == "privileged:latest"


async def test_a_namespace_is_warned_of_its_pods(server: APIServer, api: API) -> None:
    await api("POST", "pods", pod())
    labels = {f"{PREFIX}enforce": "restricted"}
    patch = {"metadata": {"labels": labels}}
    request = await asked(server, "PATCH", "/api/v1/namespaces/default", patch)
    assert request.warnings == [
        'existing pods in namespace "default" violate the new PodSecurity enforce level '
        '"restricted:latest"',
        "web: allowPrivilegeEscalation != false, unrestricted capabilities, "
        "runAsNonRoot != true, seccompProfile",
    ]
    with pytest.raises(StatusError) as failure:
        await api.merge("namespaces/default", {"metadata": {"labels": {f"{PREFIX}warn": "x"}}})
    assert failure.value.message == (
        f'Namespace "default" is invalid: metadata.labels[{PREFIX}warn]: Invalid value: "x": '
        "must be one of privileged, baseline, restricted"
    )


async def test_defaults_and_exemptions_are_configured(store: Any, tmp_path: Any) -> None:
    configuration = {
        "defaults": {"enforce": "baseline", "enforce-version": "v1.30"},
        "exemptions": {"namespaces": ["kube-system"], "usernames": ["carol"]},
    }
    options = AdmissionOptions(configuration={"PodSecurity": configuration})
    server = APIServer(config(tmp_path, admission=options), store)
    await server.open()
    api = API(server.transport(SELF))
    try:
        for name in ("default", "kube-system"):
            path = f"/api/v1/namespaces/{name}/serviceaccounts"
            await api("POST", path, {"metadata": {"name": "default"}})
        with pytest.raises(StatusError, match=r'violates PodSecurity "baseline:v1.30"'):
            await api("POST", "pods", pod(hostPID=True))
        await api("POST", "/api/v1/namespaces/kube-system/pods", pod(hostPID=True))
    finally:
        await server.close()


def test_a_wrong_configuration_is_told_at_the_start(store: Any, tmp_path: Any) -> None:
    options = AdmissionOptions(configuration={"PodSecurity": {"defaults": {"warn": "x"}}})
    with pytest.raises(ValueError, match="PodSecurity: Invalid value"):
        APIServer(config(tmp_path, admission=options), store)
