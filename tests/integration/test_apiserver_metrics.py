"""/metrics, /healthz, /livez and /readyz of a real server."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from apiserver_process import Server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("apiserver")).start()
    for what in ("create", "condition=Available"):
        running.kubectl("wait", "apiservice/v1.apps", f"--for={what}")
    yield running
    assert running.stop() == 0
    assert "Traceback" not in running.log


LINE = re.compile(r'[a-z_]+(\{([a-z_]+="[^"]*",?)*\})? ([0-9.e+-]+|NaN)')


def test_what_was_done_is_counted_by_upstreams_names(server: Server) -> None:
    server.kubectl("create", "configmap", "a")
    server.kubectl("get", "configmap", "a")
    server.kubectl("get", "configmap", "absent", ok=False)
    text = server.kubectl("get", "--raw", "/metrics").out
    for line in text.splitlines():
        assert line.startswith("#") or LINE.fullmatch(line), line
    place = (
        'component="apiserver",group="",resource="configmaps",scope="resource",subresource="",'
        'verb="GET",version="v1",dry_run=""'
    )
    assert f'apiserver_request_total{{{place},code="200"}} 1' in text
    assert f'apiserver_request_total{{{place},code="404"}} 1' in text
    assert f"apiserver_request_duration_seconds_count{{{place}}} 2" in text
    assert f'apiserver_request_duration_seconds_bucket{{{place},le="+Inf"}} 2' in text
    assert 'apiserver_storage_objects{resource="configmaps"}' in text
    assert re.search(r'apiserver_current_inflight_requests{request_kind="readOnly"} [1-9]', text)
    assert 'etcd_request_duration_seconds_count{operation="create",type="configmaps"}' in text
    assert "apiserver_admission_step_admission_duration_seconds_count" in text
    assert "kubernetes_build_info{" in text
    assert 'workqueue_depth{name="apiservice-availability"} ' in text
    for name in ("cpu_seconds_total", "resident_memory_bytes", "open_fds", "start_time_seconds"):
        assert f"process_{name} " in text
    assert "# TYPE apiserver_request_total counter" in text


def test_health_is_told_in_upstreams_form(server: Server) -> None:
    def get(path: str) -> str:
        return server.kubectl("get", "--raw", path).out

    for endpoint in ("healthz", "livez", "readyz"):
        assert get(f"/{endpoint}") == "ok"
        lines = get(f"/{endpoint}?verbose").splitlines()
        assert lines[:3] == ["[+]ping ok", "[+]log ok", "[+]etcd ok"]
        assert lines[-1] == f"{endpoint} check passed"
        assert ("[+]shutdown ok" in lines) == (endpoint == "readyz")
        lines = get(f"/{endpoint}?verbose&exclude=etcd&exclude=none").splitlines()
        assert lines[2] == "[+]etcd excluded: ok"
        assert lines[-2] == ('warn: some health checks cannot be excluded: no matches for "none"')
        assert get(f"/{endpoint}/ping") == "ok"
        assert get(f"/{endpoint}/poststarthook/rbac/bootstrap-roles") == "ok"
    absent = server.kubectl("get", "--raw", "/livez/absent", ok=False)
    assert "NotFound" in absent.err
    paths = get("/")
    for path in ("/metrics", "/readyz/shutdown", "/livez/ping"):
        assert f'"{path}"' in paths
    assert "/livez/shutdown" not in paths


def test_the_cluster_can_be_described(server: Server) -> None:
    assert "is running at" in server.kubectl("cluster-info").out
    dumped = server.kubectl("cluster-info", "dump").out
    assert '"kind": "NodeList"' in dumped
    assert "Server Version: v1." in server.kubectl("version").out
