from __future__ import annotations

import pytest

from wherry.kube.api.errors import StatusError
from wherry.kube.apiserver.negotiate import JSON, YAML, negotiate

KUBECTL = (
    "application/json;as=Table;v=v1;g=meta.k8s.io,"
    "application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json"
)


def test_nothing_or_anything_is_json() -> None:
    for accept in ("", "*/*", "application/json", "text/html,*/*;q=0.8"):
        assert negotiate(accept, "", "").media_type == JSON


def test_kubectl_gets_its_table() -> None:
    form = negotiate(KUBECTL, "", "")
    assert (form.transform, form.version) == ("Table", "v1")


def test_protobuf_is_passed_over_where_json_will_do() -> None:
    form = negotiate("application/vnd.kubernetes.protobuf,application/json", "", "")
    assert (form.media_type, form.transform) == (JSON, "")


def test_quality_orders_what_is_asked_for() -> None:
    assert negotiate("application/json;q=0.1, application/yaml", "", "").media_type == YAML


def test_an_unknown_transformation_is_skipped() -> None:
    accept = "application/json;as=Chart;v=v1;g=meta.k8s.io,application/json"
    assert negotiate(accept, "", "").transform == ""


@pytest.mark.parametrize("accept", ["application/vnd.kubernetes.protobuf", "text/html"])
def test_what_cannot_be_had_is_said(accept: str) -> None:
    with pytest.raises(StatusError, match="only the following media types are accepted") as failure:
        negotiate(accept, "", "")
    assert failure.value.code == 406


def test_people_get_it_indented() -> None:
    assert negotiate("", "", "curl/8").pretty
    assert negotiate("", "true", "kubectl/v1").pretty
    assert not negotiate("", "false", "curl/8").pretty
    assert not negotiate("", "", "kubectl/v1").pretty
