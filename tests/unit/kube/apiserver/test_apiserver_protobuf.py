"""Bodies are written here by hand, as Go's marshaller writes them."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherry.kube.api.errors import StatusError
from wherry.kube.apiserver.protobuf import read

POD = "io.k8s.api.core.v1.Pod"


def varint(value: int) -> bytes:
    out = bytearray()
    value &= (1 << 64) - 1
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def message(*fields: tuple[int, Any]) -> bytes:
    out = b""
    for number, value in fields:
        if isinstance(value, int):
            out += varint(number << 3) + varint(value)
        else:
            data = value.encode() if isinstance(value, str) else value
            out += varint(number << 3 | 2) + varint(len(data)) + data
    return out


def body(kind: str, raw: bytes, version: str = "v1") -> bytes:
    return b"k8s\x00" + message((1, message((1, version), (2, kind))), (2, raw))


META = message((1, "web"), (2, ""), (3, ""), (5, ""), (7, 0), (8, b""))


def test_what_kubectl_sends_for_a_service_account() -> None:
    sent = bytes.fromhex(
        "6b3873000a140a02763112 0e536572766963654163636f756e74"
        "12190a170a0764656661756c74 12001a00 22002a00 3200 3800 4200 1a00 2200".replace(" ", "")
    )
    assert read(sent, "io.k8s.api.core.v1.ServiceAccount") == {
        "kind": "ServiceAccount",
        "apiVersion": "v1",
        "metadata": {"name": "default"},
    }


def test_empty_values_are_absent_but_those_of_pointers_are_meant() -> None:
    spec = message((1, 0), (5, 0), (7, 0))  # replicas (pointer), minReadySeconds, paused
    raw = message((1, META), (2, spec))
    value = read(body("Deployment", raw, "apps/v1"), "io.k8s.api.apps.v1.Deployment")
    assert value["spec"] == {"replicas": 0}


def test_inlined_messages_lie_flat() -> None:
    empty_dir = message((2, b""))  # VolumeSource.emptyDir
    volume = message((1, "tmp"), (2, empty_dir))
    value = read(body("Pod", message((1, META), (2, message((1, volume))))), POD)
    assert value["spec"]["volumes"] == [{"name": "tmp", "emptyDir": {}}]


def test_quantities_maps_and_lists() -> None:
    entry = message((1, "cpu"), (2, message((1, "100m"))))
    container = message((1, "c"), (3, "sh"), (3, "-c"), (8, message((2, entry))))
    value = read(body("Pod", message((1, META), (2, message((2, container))))), POD)
    assert value["spec"]["containers"] == [
        {"name": "c", "command": ["sh", "-c"], "resources": {"requests": {"cpu": "100m"}}}
    ]


def test_bytes_are_base64_in_json() -> None:
    entry = message((1, "key"), (2, b"\x00\xff"))
    value = read(body("Secret", message((1, META), (2, entry))), "io.k8s.api.core.v1.Secret")
    assert value["data"] == {"key": base64.b64encode(b"\x00\xff").decode()}


def test_a_port_is_a_number_or_a_name() -> None:
    def port(target: bytes) -> Any:
        raw = message((1, META), (2, message((1, message((3, 80), (4, target))))))
        value = read(body("Service", raw), "io.k8s.api.core.v1.Service")
        return value["spec"]["ports"][0].get("targetPort")

    assert port(message((1, 0), (2, 8080), (3, ""))) == 8080
    assert port(message((1, 1), (2, 0), (3, "http"))) == "http"
    assert port(message((1, 0), (2, 0), (3, ""))) is None


def test_times_and_negative_numbers() -> None:
    raw = message((1, message((1, "web"), (8, message((1, 1_700_000_000), (2, 5))))))
    value = read(body("Pod", raw), POD)
    assert value["metadata"]["creationTimestamp"] == "2023-11-14T22:13:20Z"
    raw = message((1, META), (2, message((1, -1))))
    value = read(body("Deployment", raw, "apps/v1"), "io.k8s.api.apps.v1.Deployment")
    assert value["spec"]["replicas"] == -1


def test_unknown_fields_are_passed_over() -> None:
    value = read(body("Pod", message((1, META), (999, "x"), (998, 7))), POD)
    assert value["metadata"] == {"name": "web"}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"k8s\x00\x0a\xff",
        b"k8s\x00" + b"\xff" * 20,
        body("Pod", b"\x0b"),
        body("Pod", message((1, 5))),
        body("Pod", message((1, message((1, b"\xff\xfe"))))),
        body("Pod", message((1, message((8, message((1, 1 << 62))))))),
    ],
)
def test_what_is_no_message_is_a_bad_request(data: bytes) -> None:
    with pytest.raises(StatusError, match="unable to decode the protobuf body") as failure:
        read(data, POD)
    assert failure.value.code == 400


@given(st.binary(max_size=200))
def test_no_bytes_break_the_reader(data: bytes) -> None:
    try:
        read(body("Pod", data), POD)
    except StatusError as error:
        assert error.code == 400
