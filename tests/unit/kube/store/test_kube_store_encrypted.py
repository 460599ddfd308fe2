from __future__ import annotations

from pathlib import Path

import pytest

from wherry.kube.store import salsa
from wherry.kube.store.ciphers import AESCBC, AESGCM, Cipher, Identity, Secretbox, Unreadable
from wherry.kube.store.encrypted import EncryptedStore
from wherry.kube.store.sqlite import SQLiteStore
from wherry.kube.store.types import StoreUnavailable

KEY = bytes(range(32))
PLACE = "/registry/secrets/default/s"
ALL = (AESCBC, AESGCM, Secretbox)


@pytest.mark.parametrize("cipher", ALL)
@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 64, 1000, 100_000])
def test_what_was_sealed_is_opened(cipher: type[AESCBC], size: int) -> None:
    value = b"x" * size
    sealed = cipher("k", KEY).seal(value, PLACE)
    assert cipher("k", KEY).open(sealed, PLACE) == value
    assert sealed != cipher("k", KEY).seal(value, PLACE)
    assert size < 15 or value not in sealed


@pytest.mark.parametrize("cipher", ALL)
def test_another_key_opens_nothing(cipher: type[AESCBC]) -> None:
    sealed = cipher("k", KEY).seal(b"secret" * 10, PLACE)
    for wrong in (sealed[:-1], sealed[:20], b"", sealed[:10]):
        with pytest.raises(Unreadable) as failure:
            cipher("k", KEY).open(wrong, PLACE)
        assert "secret" * 2 not in str(failure.value)


@pytest.mark.parametrize("cipher", [AESGCM, Secretbox])
def test_a_change_is_noticed(cipher: type[AESGCM]) -> None:
    sealed = bytearray(cipher("k", KEY).seal(b"secret" * 10, PLACE))
    sealed[40] ^= 1
    with pytest.raises(Unreadable):
        cipher("k", KEY).open(bytes(sealed), PLACE)
    with pytest.raises(Unreadable):
        cipher("k", KEY[::-1]).open(cipher("k", KEY).seal(b"x", PLACE), PLACE)


def test_a_value_is_bound_to_its_place() -> None:
    sealed = AESGCM("k", KEY).seal(b"x", PLACE)
    with pytest.raises(Unreadable):
        AESGCM("k", KEY).open(sealed, "/registry/secrets/default/other")


def test_prefixes_are_upstreams() -> None:
    assert AESCBC("key1", KEY).prefix == b"k8s:enc:aescbc:v1:key1:"
    assert AESGCM("key1", KEY).prefix == b"k8s:enc:aesgcm:v1:key1:"
    assert Secretbox("key1", KEY).prefix == b"k8s:enc:secretbox:v1:key1:"


def test_secretbox_is_nacls() -> None:
    """The example in "Cryptography in NaCl" (https://cr.yp.to/highspeed/naclcrypto-20090310.pdf)."""
    key = bytes.fromhex("1b27556473e985d462cd51197a9a46c76009549eac6474f206c4ee0844f68389")
    nonce = bytes.fromhex("69696ee955b62b73cd62bda875fc73d68219e0036b7a0b37")
    message = bytes.fromhex(
        "be075fc53c81f2d5cf141316ebeb0c7b5228c52a4c62cbd44b66849b64244ffce5ecbaaf33bd751a1ac728d4"
        "5e6c61296cdc3c01233561f41db66cce314adb310e3be8250c46f06dceea3a7fa1348057e2f6556ad6b1318a"
        "024a838f21af1fde048977eb48f59ffd4924ca1c60902e52f0a089bc76897040e082f937763848645e0705"
    )
    box = bytes.fromhex(
        "f3ffc7703f9400e52a7dfb4b3d3305d98e993b9f48681273c29650ba32fc76ce48332ea7164d96a4476fb8c5"
        "31a1186ac0dfc17c98dce87b4da7f011ec48c97271d2c20f9b928fe2270d6fb863d51738b48eeee314a7cc8a"
        "b932164548e526ae90224368517acfeabd6bb3732bc0e9da99832b61ca01b6de56244a9e88d5f9b37973f622"
        "a43d14a6599b1f654cb45a74e355a5"
    )
    assert salsa.seal(message, nonce, key) == box
    assert salsa.open_(box, nonce, key) == message


# --- the store ------------------------------------------------------------------------------------


def by_key(*ciphers: Cipher):
    return lambda key: ciphers if key.startswith("/registry/secrets/") else ()


@pytest.fixture
async def beneath(tmp_path: Path):
    store = await SQLiteStore.open(tmp_path / "state.db")
    yield store
    await store.close()


async def test_beneath_lies_the_ciphertext_above_the_value(beneath: SQLiteStore) -> None:
    store = EncryptedStore(beneath, by_key(AESGCM("k1", KEY), Identity()))
    await store.create(PLACE, b"value")
    await store.create("/registry/configmaps/default/c", b"plain")
    raw = await beneath.get(PLACE)
    assert raw is not None and raw.value.startswith(b"k8s:enc:aesgcm:v1:k1:")
    found = await store.get(PLACE)
    assert found is not None and found.value == b"value"
    listed, _ = await store.range("/registry/")
    assert [kv.value for kv in listed] == [b"plain", b"value"]
    async for changes in store.watch("", 1):
        assert [c.current.value for c in changes if c.current] == [b"value", b"plain"]
        break


async def test_a_new_key_writes_and_the_old_one_reads_until_all_is_written_anew(
    beneath: SQLiteStore,
) -> None:
    await beneath.create(PLACE, b"plain")
    old, new = AESCBC("k1", KEY), Secretbox("k2", KEY)
    for ciphers, before in (((old, Identity()), b"plain"), ((new, old), b"k8s:enc:aescbc:v1:k1:")):
        store = EncryptedStore(beneath, by_key(*ciphers))
        raw = await beneath.get(PLACE)
        assert raw is not None and raw.value.startswith(before)
        found = await store.get(PLACE)
        assert found is not None and found.value == b"plain" and store.stale(PLACE)
        await store.update(PLACE, found.value, found.mod_revision)
        assert not store.stale(PLACE)
        found = await store.get(PLACE)
        assert found is not None and found.value == b"plain" and not store.stale(PLACE)


@pytest.mark.parametrize("ciphers", [(), (Identity(),), (AESGCM("k2", KEY), Identity())])
async def test_what_no_key_opens_is_told_of(beneath: SQLiteStore, ciphers) -> None:
    await EncryptedStore(beneath, by_key(AESGCM("k1", KEY))).create(PLACE, b"value")
    with pytest.raises(StoreUnavailable, match=PLACE):
        await EncryptedStore(beneath, by_key(*ciphers)).range("/registry/")


async def test_plain_text_is_read_only_where_identity_says_so(beneath: SQLiteStore) -> None:
    await beneath.create(PLACE, b"plain")
    with pytest.raises(StoreUnavailable):
        await EncryptedStore(beneath, by_key(AESGCM("k1", KEY))).get(PLACE)
