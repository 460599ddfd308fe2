"""Which images go when the disk fills, and how many."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherry.engine.cri.types import CRIError, Image
from wherry.kube.kubelet import image_gc
from wherry.kube.kubelet.config import settings
from wherry.kube.kubelet.image_gc import ImageCollector, candidates, to_free


@pytest.mark.parametrize(("available", "wanted"), [(16, 0), (15, 5), (10, 10), (0, 20), (100, 0)])
def test_from_the_high_threshold_on_as_much_as_leads_to_the_low_one(available, wanted):
    assert to_free(100, available, 85, 80) == wanted
    assert to_free(100, available, 100, 80) == 0  # switched off
    assert to_free(0, 0, 85, 80) == 0


@given(st.integers(1, 10**12), st.data())
def test_what_is_freed_is_enough_and_never_more_than_is_used(capacity, data):
    available = data.draw(st.integers(0, capacity))
    high = data.draw(st.integers(1, 99))
    low = data.draw(st.integers(0, high))
    wanted = to_free(capacity, available, high, low)
    assert 0 <= wanted <= capacity - available
    if wanted:
        assert (capacity - available) * 100 >= high * capacity
        assert (capacity - available - wanted) * 100 < (low + 1) * capacity + 100


def image(name, size=10):
    return Image(name, repo_tags=(f"{name}:1",), size=size)


def test_the_oldest_use_goes_first_and_what_is_used_young_or_ours_stays():
    images = [image(n) for n in ("recent", "old", "used", "young", "never", "wherry.io/pause")]
    seen = {i.id: 0.0 for i in images} | {"young": 95.0}
    last = {"recent": 50.0, "old": 10.0}
    found = candidates(images, {"used"}, last, seen, 100.0, 10.0)
    assert [i.id for i in found] == ["never", "old", "recent"]


class Store:
    def __init__(self, *images, used=()):
        self.images = {i.id: i for i in images}
        self.used = list(used)
        self.held = set()

    async def list_images(self):
        return list(self.images.values())

    async def images_in_use(self):
        return self.used

    async def remove_image(self, name):
        id_ = name.partition(":")[0]
        if id_ in self.held:
            raise CRIError("conflict")
        self.images.pop(id_)


def collector(store, tmp_path, told, **given):
    wanted = {"imageMinimumGCAge": "0s", **given}
    return ImageCollector(settings(wanted), store, tmp_path, lambda *event: told.append(event))


class Space:
    f_frsize = 1
    f_blocks = 100

    def __init__(self, available):
        self.f_bavail = available


async def test_no_more_go_than_must(tmp_path, monkeypatch):
    store, told = Store(image("a"), image("b"), image("c")), []
    monkeypatch.setattr(image_gc.os, "statvfs", lambda _path: Space(5))
    await collector(store, tmp_path, told).round()
    assert len(store.images) == 1 and not told  # 15 were wanted


async def test_where_there_is_too_little_to_free_the_node_is_told(tmp_path, monkeypatch):
    store, told = Store(image("a"), image("b"), image("c"), used=["a"]), []
    store.held.add("b")
    monkeypatch.setattr(image_gc.os, "statvfs", lambda _path: Space(5))
    await collector(store, tmp_path, told).round()
    assert set(store.images) == {"a", "b"}
    assert told == [
        (
            "Warning",
            "FreeDiskSpaceFailed",
            "Failed to garbage collect required amount of images. Attempted to free 15 bytes, "
            "but only found 10 bytes eligible to free.",
        )
    ]


async def test_what_nobody_used_for_too_long_goes_though_there_is_room(tmp_path, monkeypatch):
    store = Store(image("a"), image("b"), used=["a"])
    now = 1000.0
    monkeypatch.setattr(image_gc.time, "monotonic", lambda: now)
    made = collector(store, tmp_path, [], imageMaximumGCAge="60s")
    monkeypatch.setattr(image_gc.os, "statvfs", lambda _path: Space(90))
    await made.round()
    assert set(store.images) == {"a", "b"}
    now = 1061.0
    await made.round()
    assert set(store.images) == {"a"}
