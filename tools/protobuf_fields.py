"""Make the table of protobuf fields of Kubernetes' kinds from a kubectl program.

Usage: python tools/protobuf_fields.py KUBECTL > src/wherry/kube/apiserver/protobuf_fields.json

kubectl's subcommands that build objects themselves (``create deployment``, ``run``, …) send them as
protobuf. Field numbers are not in the schema data, but every Go program carries the types it was
built from, struct tags included:
``json:"replicas,omitempty" protobuf:"varint,1,opt,name=replicas"``.
This reads them from a static Linux/amd64 build, by the layouts of Go's ``internal/abi`` package.
Needed again only for a new version of the API.
"""

from __future__ import annotations

import json
import re
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_PACKAGES = re.compile(
    r"k8s\.io/(api/.+|apimachinery/pkg/(apis/meta/v1|runtime|util/intstr|api/resource))"
)
_SCALARS = {1: "bool", **dict.fromkeys(range(2, 13), "int"), 13: "float", 14: "float", 24: "string"}
_POINTER, _SLICE, _MAP, _STRUCT, _UINT8 = 22, 23, 21, 25, 8
_TYPE, _STRUCT_SIZE = 48, 80  # sizes of abi.Type and abi.StructType


class Program:
    """A Go program's types, by their addresses."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._sections: dict[str, tuple[int, int, int]] = {}
        (table,) = struct.unpack_from("<Q", data, 0x28)
        size, count, names = struct.unpack_from("<HHH", data, 0x3A)
        heads = [struct.unpack_from("<IIQQQQ", data, table + i * size) for i in range(count)]
        for name, kind, _, address, offset, length in heads:
            start = heads[names][4] + name
            title = data[start : data.index(b"\0", start)].decode()
            if kind != 8 and address:  # not .bss, which has no bytes
                self._sections[title] = (address, offset, length)
        self._base = self._sections[".rodata"][0]

    def _offset(self, address: int) -> int:
        for start, offset, length in self._sections.values():
            if start <= address < start + length:
                return offset + address - start
        raise ValueError(f"address {address:#x} is in no section")

    def _read(self, format: str, address: int) -> Any:
        return struct.unpack_from(format, self._data, self._offset(address))[0]

    def _name(self, address: int) -> tuple[str, str]:
        """A name and its tag."""
        position = self._offset(address)
        flags = self._data[position]
        position += 1

        def text() -> str:
            nonlocal position
            length = shift = 0
            while True:
                byte = self._data[position]
                position += 1
                length |= (byte & 0x7F) << shift
                shift += 7
                if byte < 0x80:
                    break
            position += length
            return self._data[position - length : position].decode()

        name = text()
        return name, text() if flags & 2 else ""

    def kind(self, type: int) -> int:
        return self._data[self._offset(type) + 23] & 31

    def element(self, type: int) -> int:
        """What a pointer points to, a slice holds, a map's keys are."""
        return int(self._read("<Q", type + _TYPE))

    def value(self, type: int) -> int:
        """What a map's values are."""
        return int(self._read("<Q", type + _TYPE + 8))

    def name(self, type: int) -> str:
        """``k8s.io/api/core/v1.Pod`` of a named type; "" of others."""
        position = self._offset(type)
        if not self._data[position + 20] & 1:
            return ""
        text, _ = self._name(self._base + self._read("<i", type + 40))
        extra = {_STRUCT: _STRUCT_SIZE, _POINTER: 56, _SLICE: 56}.get(self.kind(type), _TYPE)
        if self.kind(type) == _MAP:
            return text.lstrip("*")
        package, _ = self._name(self._base + self._read("<i", type + extra))
        return f"{package}.{text.rpartition('.')[2]}"

    def fields(self, type: int) -> Iterator[tuple[str, str, int]]:
        """Names, tags and types of a struct's fields."""
        start, count = self._read("<Q", type + 56), self._read("<Q", type + 64)
        for i in range(count):
            name, tag = self._name(self._read("<Q", start + i * 24))
            yield name, tag, int(self._read("<Q", start + i * 24 + 8))

    def structs(self) -> Iterator[int]:
        """Every struct that some pointer in the program points to."""
        _, offset, length = self._sections[".typelink"]
        for (link,) in struct.iter_unpack("<i", self._data[offset : offset + length]):
            type = self._base + link
            if self.kind(type) == _POINTER and self.kind(self.element(type)) == _STRUCT:
                yield self.element(type)


def definition_name(go: str) -> str:
    """``k8s.io/api/core/v1.Pod`` is ``io.k8s.api.core.v1.Pod`` in the schema data."""
    package, _, name = go.rpartition(".")
    return f"io.k8s.{package.removeprefix('k8s.io/').replace('/', '.')}.{name}"


def type_text(program: Program, type: int) -> str:
    """``*int``, ``[string]``, ``{io.k8s…Quantity}``, ``bytes``."""
    kind = program.kind(type)
    if kind == _POINTER:
        return "*" + type_text(program, program.element(type))
    if kind == _SLICE:
        item = program.element(type)
        if program.kind(item) == _UINT8:
            return "bytes"
        return f"[{type_text(program, item)}]"
    if kind == _MAP:
        return f"{{{type_text(program, program.value(type))}}}"
    if kind == _STRUCT:
        return definition_name(program.name(type))
    return _SCALARS[kind]


def messages(program: Program) -> dict[str, dict[str, list[str]]]:
    """Message → field number → [JSON name ("" where inline), type]."""
    found: dict[str, dict[str, list[str]]] = {}
    for type in program.structs():
        name = program.name(type)
        if not _PACKAGES.fullmatch(name.rpartition(".")[0]):
            continue
        fields = {}
        for _, tag, field in program.fields(type):
            protobuf = re.search(r'protobuf:"[^",]*,(\d+)', tag)
            json_tag = re.search(r'json:"([^"]*)"', tag)
            if protobuf and json_tag and json_tag[1] != "-":
                fields[protobuf[1]] = [json_tag[1].split(",")[0], type_text(program, field)]
        if fields:
            found[definition_name(name)] = fields
    return dict(sorted(found.items()))


if __name__ == "__main__":
    table = messages(Program(Path(sys.argv[1]).read_bytes()))
    lines = (f"{json.dumps(name)}: {json.dumps(fields)}" for name, fields in table.items())
    print("{\n" + ",\n".join(lines) + "\n}")
