"""Freeing what nobody names any more."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from test_registry_conformance import descriptor, digest_of, image

from wherry.registry import manifests
from wherry.registry.collector import collect
from wherry.registry.storage import Storage


def push_blob(storage: Storage, data: bytes, name: str = "app") -> str:
    upload = storage.begin(name)
    upload.append(data)
    storage.finish(name, upload, digest_of(data))
    return digest_of(data)


def push_image(storage: Storage, tag: str, layer: bytes, **more: object) -> bytes:
    push_blob(storage, b"{}")
    push_blob(storage, layer)
    data = image(b"{}", layer, **more)
    judged = manifests.judge(data, manifests.IMAGE, "")
    storage.put_manifest("app", judged.manifest, tag, judged.subject)
    return data


def age(storage: Storage) -> None:
    for _, path in storage.all_blobs():
        os.utime(path, (0, 0))


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    storage = Storage(tmp_path)
    storage.open()
    return storage


def test_what_a_manifest_needs_stays(storage: Storage) -> None:
    push_image(storage, "v1", b"layer")
    push_blob(storage, b"forgotten")
    age(storage)
    assert collect(storage).blobs == [digest_of(b"forgotten")]
    assert storage.has_blob("app", digest_of(b"layer"))
    assert not storage.has_blob("app", digest_of(b"forgotten"))


def test_what_somebody_has_just_asked_for_stays(storage: Storage) -> None:
    push_blob(storage, b"about to be used")
    age(storage)
    assert storage.has_blob("app", digest_of(b"about to be used"))
    assert collect(storage).blobs == []


def test_a_dry_run_removes_nothing(storage: Storage) -> None:
    push_blob(storage, b"forgotten")
    age(storage)
    result = collect(storage, dry_run=True)
    assert (result.blobs, result.size) == ([digest_of(b"forgotten")], 9)
    assert len(list(storage.all_blobs())) == 1


def test_untagged_manifests_go_when_asked_unless_something_leads_to_them(storage: Storage) -> None:
    old = push_image(storage, "v1", b"old layer")
    new = push_image(storage, "v1", b"new layer")
    about = push_image(storage, "", b"sbom", subject=descriptor(new, manifests.IMAGE))
    age(storage)
    assert collect(storage).blobs == []
    age(storage)
    result = collect(storage, delete_untagged=True)
    assert result.manifests == [f"app@{digest_of(old)}"]
    assert set(result.blobs) == {digest_of(old), digest_of(b"old layer")}
    assert storage.has_manifest("app", digest_of(about))
