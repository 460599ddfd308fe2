"""Pods find Services by name, as users see it from inside."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess

import pytest
from conftest import CLIENTS, Instance, eventually

from wherry.host.pidfile import running_pid
from wherry.launcher.instance import find

WORLD = """
apiVersion: v1
kind: Pod
metadata: {name: asker}
spec:
  containers: [{name: c, image: "hello:1", command: [sh, -c, "sleep 1000"]}]
  terminationGracePeriodSeconds: 0
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: crew}
spec: {clusterIP: None, selector: {app: web}, ports: [{name: http, port: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: elsewhere}
spec: {type: ExternalName, externalName: web.NAMESPACE.svc.cluster.local}
---
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  hostname: first
  subdomain: crew
  containers: [{name: hello, image: "hello:1", ports: [{containerPort: 8080}]}]
  terminationGracePeriodSeconds: 0
"""


@pytest.fixture(scope="module")
def namespace(cluster: Instance) -> str:
    cluster.kubectl("create", "namespace", "names")
    return "names"


@pytest.fixture(scope="module")
def asker(cluster: Instance, namespace: str) -> Instance:
    world = WORLD.replace("NAMESPACE", namespace)
    cluster.kubectl("-n", namespace, "apply", "-f", "-", stdin=world)
    cluster.kubectl("-n", namespace, "wait", "--for=condition=Ready", "pod/asker", "pod/web")
    # The name server follows the endpoints, and these the pod.
    ask = ("-n", namespace, "exec", "asker", "--", "nslookup")
    name = f"first.crew.{namespace}.svc.cluster.local"
    address = cluster.get("pod", "web", "-n", namespace)["status"]["podIP"]
    eventually(lambda: f"Address: {address}" in cluster.kubectl(*ask, name, ok=False).out)
    return cluster


def test_services_are_found_by_name(asker: Instance, namespace: str) -> None:
    def inside(*command: str, ok: bool = True) -> str:
        return asker.kubectl("-n", namespace, "exec", "asker", "--", *command, ok=ok).out

    service = asker.get("svc", "web", "-n", namespace)["spec"]["clusterIP"]
    pod = asker.get("pod", "web", "-n", namespace)["status"]["podIP"]
    dns = asker.get("svc", "kube-dns", "-n", "kube-system")["spec"]["clusterIP"]

    resolver = inside("cat", "/etc/resolv.conf")
    assert f"nameserver {dns}\n" in resolver
    wanted = f"search {namespace}.svc.cluster.local svc.cluster.local cluster.local"
    assert wanted in resolver and "options ndots:5" in resolver

    name = f"web.{namespace}.svc.cluster.local"
    assert f"Address: {service}" in inside("nslookup", name)
    assert f"Address: {pod}" in inside("nslookup", f"first.crew.{namespace}.svc.cluster.local")
    assert f"Address: {service}" in inside("nslookup", f"elsewhere.{namespace}.svc.cluster.local")
    assert "NXDOMAIN" in inside("nslookup", f"nobody.{namespace}.svc.cluster.local", ok=False)
    assert name in inside("nslookup", service)
    for short in ("web", f"web.{namespace}", f"web.{namespace}.svc", name):
        page = eventually(lambda short=short: inside("wget", "-qO-", f"http://{short}/", ok=False))
        assert "Hello from first" in page


def test_a_service_that_comes_is_found_at_once(asker: Instance, namespace: str) -> None:
    def found() -> str:
        command = ("nslookup", f"late.{namespace}.svc.cluster.local")
        return asker.kubectl("-n", namespace, "exec", "asker", "--", *command, ok=False).out

    assert "NXDOMAIN" in found()
    asker.kubectl("-n", namespace, "create", "service", "clusterip", "late", "--tcp=80")
    address = asker.get("svc", "late", "-n", namespace)["spec"]["clusterIP"]
    eventually(lambda: f"Address: {address}" in found())
    asker.kubectl("-n", namespace, "delete", "service", "late")
    eventually(lambda: "NXDOMAIN" in found())


_LOOKUP = r"""
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
int main(int count, char **words) {
    struct addrinfo hints, *found;
    char text[INET6_ADDRSTRLEN];
    memset(&hints, 0, sizeof hints);
    hints.ai_socktype = SOCK_STREAM;
    int error = getaddrinfo(words[count - 1], NULL, &hints, &found);
    if (error) { printf("%s\n", gai_strerror(error)); return 2; }
    for (; found; found = found->ai_next)
        if (found->ai_family == AF_INET)
            printf("%s\n", inet_ntop(AF_INET,
                &((struct sockaddr_in *)found->ai_addr)->sin_addr, text, sizeof text));
    return 0;
}
"""


@pytest.fixture(scope="module")
def resolvers(cluster: Instance, tmp_path_factory: pytest.TempPathFactory) -> Instance:
    """With an image that has the resolvers of glibc and, where there is a compiler, of musl."""
    place = tmp_path_factory.mktemp("resolvers")
    getent = shutil.which("getent")
    assert getent is not None
    listed = subprocess.run(["ldd", getent], capture_output=True, text=True, check=True).stdout
    for library in re.findall(r"/\S+", listed):
        (place / library.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, place / library.lstrip("/"))
    shutil.copy(getent, place / "getent")
    copies = "COPY getent /bin/getent\nCOPY lib /lib\nCOPY lib64 /lib64\n"
    copies += "RUN echo 'hosts: files dns' > /etc/nsswitch.conf\n"
    musl = CLIENTS / "musl" / "usr"
    if shutil.which("gcc") and musl.exists():
        (place / "lookup.c").write_text(_LOOKUP)
        [library] = (musl / "lib").glob("*-linux-musl")
        [include] = (musl / "include").glob("*-linux-musl")
        argv = ["gcc", "-nostdinc", "-isystem", str(include), "-nostdlib", "-static", "-no-pie"]
        argv += ["-fno-stack-protector", "-o", str(place / "musl"), str(library / "crt1.o")]
        argv += [str(library / "crti.o"), str(place / "lookup.c"), str(library / "libc.a")]
        subprocess.run([*argv, str(library / "crtn.o")], check=True)
        copies += "COPY musl /bin/musl\n"
    (place / "Dockerfile").write_text(f"FROM hello:1\n{copies}")
    cluster.docker("build", "-q", "-t", "resolvers:1", str(place))
    return cluster


@pytest.mark.parametrize("libc", ["glibc", "musl"])
def test_resolvers_of_programs_find_names(
    resolvers: Instance, asker: Instance, namespace: str, libc: str
) -> None:
    """By the search path, with five dots; two families are asked for at once."""
    run = ("run", "looker", "--image=resolvers:1", "--restart=Never", "--command", "--", "sleep")
    resolvers.kubectl("-n", namespace, *run, "1000")
    resolvers.kubectl("-n", namespace, "wait", "--for=condition=Ready", "pod/looker")

    def look(name: str) -> list[str]:
        command = ("musl", name) if libc == "musl" else ("getent", "ahostsv4", name)
        lines = resolvers.kubectl("-n", namespace, "exec", "looker", "--", *command, ok=False).out
        return sorted({line.split()[0] for line in lines.splitlines() if line[:1].isdigit()})

    if libc == "musl" and not shutil.which("gcc"):
        pytest.skip("there is no compiler")
    service = resolvers.get("svc", "web", "-n", namespace)["spec"]["clusterIP"]
    pod = resolvers.get("pod", "web", "-n", namespace)["status"]["podIP"]
    kubernetes = resolvers.get("svc", "kubernetes", "-n", "default")["spec"]["clusterIP"]
    for name, wanted in {
        "web": service,
        f"web.{namespace}": service,
        f"web.{namespace}.svc.cluster.local.": service,
        "WEB": service,
        "kubernetes.default": kubernetes,
        "elsewhere": service,
        "crew": pod,
        "first.crew": pod,
        f"{pod.replace('.', '-')}.web": pod,
        f"{pod.replace('.', '-')}.{namespace}.pod.cluster.local": pod,
    }.items():
        assert look(name) == [wanted], name
    assert look("nobody") == look(f"web.no-{namespace}") == []
    resolvers.kubectl("-n", namespace, "delete", "pod", "looker", "--grace-period=0", "--force")


def test_dig_finds_what_the_specification_says(asker: Instance, namespace: str) -> None:
    server = asker.get("svc", "kube-dns", "-n", "kube-system")["spec"]["clusterIP"]
    service = asker.get("svc", "web", "-n", namespace)["spec"]["clusterIP"]
    pod = asker.get("pod", "web", "-n", namespace)["status"]["podIP"]
    end = f"{namespace}.svc.cluster.local."

    def dig(*words: str, short: bool = True) -> str:
        argv = [
            str(CLIENTS / "dig"),
            f"@{server}",
            "+tries=2",
            "+time=20",
            *(["+short"] if short else []),
        ]
        done = subprocess.run([*argv, *words], capture_output=True, text=True, timeout=60)
        return done.stdout.strip()

    assert dig("dns-version.cluster.local", "TXT") == '"1.1.0"'
    assert dig(f"web.{end}") == service
    assert dig(f"web.{end}", "+tcp") == service
    assert dig(f"web.{end}", "AAAA") == ""
    assert dig(f"_http._tcp.web.{end}", "SRV") == f"0 100 80 web.{end}"
    assert dig("-x", service) == f"web.{end}"
    assert dig(f"crew.{end}") == dig(f"first.crew.{end}") == pod
    assert dig(f"_http._tcp.crew.{end}", "SRV") == f"0 100 8080 first.crew.{end}"
    dashed = f"{pod.replace('.', '-')}.web.{end}"
    eventually(lambda: dig("-x", pod).split() == [f"first.crew.{end}", dashed])
    assert dig(dashed) == dig(f"_http._tcp.crew.{end}") == pod
    assert dig(dashed, "SRV") == f"0 100 8080 {dashed}"
    assert dig("cluster.local", "NS") == "kube-dns.kube-system.svc.cluster.local."
    assert dig(f"elsewhere.{end}", "CNAME") == f"web.{end}"
    assert dig(f"elsewhere.{end}").split() == [f"web.{end}", service]
    whole = dig(f"nobody.{end}", short=False)
    assert "status: NXDOMAIN" in whole and "\tSOA\t" in whole and " aa " in whole
    assert "udp: 1232" in whole and "malformed" not in whole
    assert "status: NOERROR" in dig(f"web.{end}", "+noedns", short=False)
    assert "status: BADVERS" in dig(f"web.{end}", "+edns=1", "+noednsneg", short=False)


def test_names_are_found_whoever_is_killed(asker: Instance, namespace: str) -> None:
    """The node: answers go on, and are true again after it. The name server: questions wait."""
    server = asker.get("svc", "kube-dns", "-n", "kube-system")["spec"]["clusterIP"]
    service = asker.get("svc", "web", "-n", namespace)["spec"]["clusterIP"]
    place = find(asker.data_dir)
    assert place is not None

    def dig(name: str) -> str:
        # Waits long and asks once: what is lost is not asked again.
        argv = [str(CLIENTS / "dig"), f"@{server}", "+short", "+tries=1", "+time=60"]
        argv.append(f"{name}.{namespace}.svc.cluster.local.")
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()

    assert dig("web") == service
    os.kill(asker.pid("node"), signal.SIGKILL)
    assert dig("web") == service
    asker.kubectl("-n", namespace, "create", "service", "clusterip", "meanwhile", "--tcp=80")
    asker.wherry("up")
    assert dig("web") == service
    address = asker.get("svc", "meanwhile", "-n", namespace)["spec"]["clusterIP"]
    eventually(lambda: dig("meanwhile") == address)
    for _ in range(3):
        pid = eventually(lambda: running_pid(place.run_dir / "dns.pid"))
        os.kill(pid, signal.SIGKILL)
        assert dig("web") == service
