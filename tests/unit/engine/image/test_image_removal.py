"""rmi removes what Docker would remove, and refuses in its words."""

from __future__ import annotations

import pytest

from wherry.engine.errors import Conflict
from wherry.engine.image.catalog import Catalog, Record
from wherry.engine.image.reference import normalise
from wherry.engine.image.removal import Removal, Use, plan

A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64
DIGEST = "sha256:" + "0" * 64
RUNNING, STOPPED = Use("c" * 64, True), Use("d" * 64, False)


def catalog(*names: str, parent: str = "") -> Catalog:
    """An image A with these names, made from B where that is its parent."""
    made = Catalog().with_image(B, Record((), (), ())) if parent else Catalog()
    made = made.with_image(A, Record((), (), (), parent))
    for name in names:
        made = made.with_reference(normalise(name), A, 0)
    return made


def remove(
    before: Catalog,
    asked: str,
    *uses: Use,
    image: str = A,
    force: bool = False,
    prune: bool = True,
) -> Removal:
    return plan(
        before,
        image,
        asked,
        lambda one: uses if one == image else (),
        force=force,
        prune=prune,
    )


def steps(removal: Removal) -> list[str]:
    return [name.familiar() if name else f"-{image[7]}" for image, name in removal.steps]


def test_one_of_several_names_is_only_untagged() -> None:
    removal = remove(catalog("x:1", "y:1"), "x:1")
    assert steps(removal) == ["x:1"]
    assert A in removal.catalog.images


def test_the_last_name_takes_the_image_with_it() -> None:
    removal = remove(catalog("x:1"), "x:1")
    assert steps(removal) == ["x:1", "-a"]
    assert not removal.catalog.images and not removal.catalog.tags


def test_digests_go_with_the_last_tag_of_their_repository() -> None:
    removal = remove(catalog("x:1", f"x@{DIGEST}"), "x:1")
    assert steps(removal) == ["x:1", f"x@{DIGEST}", "-a"]
    removal = remove(catalog("x:1", "x:2", f"x@{DIGEST}"), "x:1")
    assert steps(removal) == ["x:1"]
    removal = remove(catalog("x:1", f"y@{DIGEST}"), "x:1")
    assert steps(removal) == ["x:1"]


def test_a_name_with_a_digest_is_removed_alone() -> None:
    removal = remove(catalog("x:1", f"x@{DIGEST}"), f"x@{DIGEST}")
    assert steps(removal) == [f"x@{DIGEST}"]


def test_an_id_takes_all_names_of_one_repository() -> None:
    assert steps(remove(catalog("x:1", f"x@{DIGEST}"), "aaaa")) == ["x:1", f"x@{DIGEST}", "-a"]
    assert steps(remove(catalog(), A)) == ["-a"]


def test_an_id_with_names_in_several_repositories_needs_force() -> None:
    with pytest.raises(Conflict) as refused:
        remove(catalog("x:1", "y:1"), "aaaa")
    assert refused.value.message == (
        "conflict: unable to delete aaaaaaaaaaaa (must be forced) -"
        " image is referenced in multiple repositories"
    )
    removal = remove(catalog("x:1", "y:1"), "aaaa", force=True)
    assert steps(removal) == ["x:1", "y:1", "-a"]


def test_the_last_name_of_a_used_image_needs_force() -> None:
    for use in (RUNNING, STOPPED):
        with pytest.raises(Conflict) as refused:
            remove(catalog("x:1"), "x:1", use)
        assert refused.value.message == (
            'conflict: unable to remove repository reference "x:1" (must force) - container'
            f" {use.container[:12]} is using its referenced image aaaaaaaaaaaa"
        )


def test_one_of_several_names_of_a_used_image_goes_without_force() -> None:
    assert steps(remove(catalog("x:1", "y:1"), "x:1", RUNNING)) == ["x:1"]


def test_by_force_a_running_image_loses_its_name_but_stays() -> None:
    removal = remove(catalog("x:1"), "x:1", RUNNING, force=True)
    assert steps(removal) == ["x:1"]
    assert A in removal.catalog.images


def test_by_force_a_stopped_containers_image_goes_and_is_held() -> None:
    removal = remove(catalog("x:1"), "x:1", STOPPED, force=True)
    assert steps(removal) == ["x:1", "-a"]
    assert A not in removal.catalog.images and A in removal.catalog.held


def test_an_id_in_use_is_refused() -> None:
    with pytest.raises(Conflict) as refused:
        remove(catalog("x:1"), "aaaa", RUNNING, force=True)
    assert refused.value.message == (
        "conflict: unable to delete aaaaaaaaaaaa (cannot be forced) -"
        " image is being used by running container cccccccccccc"
    )
    with pytest.raises(Conflict) as refused:
        remove(catalog("x:1"), "aaaa", STOPPED)
    assert refused.value.message == (
        "conflict: unable to delete aaaaaaaaaaaa (must be forced) -"
        " image is being used by stopped container dddddddddddd"
    )


def test_an_image_with_children_cannot_be_removed() -> None:
    with pytest.raises(Conflict) as refused:
        remove(catalog("x:1", parent=B), B, image=B, force=True)
    assert refused.value.message == (
        "conflict: unable to delete bbbbbbbbbbbb (cannot be forced) -"
        " image has dependent child images"
    )


def test_an_unnamed_parent_goes_too_unless_it_must_stay() -> None:
    assert steps(remove(catalog("x:1", parent=B), "x:1")) == ["x:1", "-a", "-b"]
    assert steps(remove(catalog("x:1", parent=B), "x:1", prune=False)) == ["x:1", "-a"]
    named = catalog("x:1", parent=B).with_reference(normalise("base:1"), B, 0)
    assert steps(remove(named, "x:1")) == ["x:1", "-a"]
