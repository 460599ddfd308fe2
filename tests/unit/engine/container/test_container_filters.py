import pytest
from containers_helper import make

from wherry.engine import filters
from wherry.engine.container.container import PublishedPort
from wherry.engine.container.filters import prunable, select
from wherry.engine.errors import BadParameter


def fleet():
    """Newest first: a running one, an exited one, one only created."""
    web = make("a" * 64, "web", config={"Labels": {"app": "web", "tier": "front"}})
    web.state.running, web.state.started_at = True, 1
    web.ports = [PublishedPort("tcp", 80, "0.0.0.0", 8080)]
    job = make("b" * 64, "job", config={"ExposedPorts": {"9000/tcp": {}}})
    job.state.started_at, job.state.exit_code = 1, 7
    new = make("c" * 64, "new", host={"Binds": ["/data:/srv"]})
    web.created_at, job.created_at, new.created_at = 30, 20, 10
    return [web, job, new]


def chosen(text="", *, all_=False, limit=0, images=frozenset):
    found = fleet()
    by_name = {container.name: container for container in found}
    selected = select(
        found,
        filters.parse(text),
        all_=all_,
        limit=limit,
        find=by_name.__getitem__,
        image_ids=lambda reference: images(),
    )
    return [container.name for container in selected]


def test_only_running_ones_are_shown_unless_asked():
    assert chosen() == ["web"]
    assert chosen(all_=True) == ["web", "job", "new"]
    assert chosen(limit=2) == ["web", "job"]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('{"status":["exited","created"]}', ["job", "new"]),
        ('{"exited":["7"]}', ["job"]),
        ('{"exited":["0"]}', []),
        ('{"name":["^/w"]}', ["web"]),
        ('{"label":["app=web","tier"]}', ["web"]),
        ('{"label":["app=db"]}', []),
        ('{"id":["bb"]}', ["job"]),
        ('{"before":["web"]}', ["job", "new"]),
        ('{"since":["new"]}', ["web", "job"]),
        ('{"volume":["/srv"]}', ["new"]),
        ('{"publish":["80"]}', ["web"]),
        ('{"publish":["8000-8100/tcp"]}', ["web"]),
        ('{"expose":["9000/tcp"]}', ["job"]),
        ('{"network":["bridge"]}', ["web", "job", "new"]),
        ('{"status":{"running":true}}', ["web"]),
    ],
)
def test_filters_choose(text, names):
    assert chosen(text, all_=True) == names


def test_ancestors_are_images():
    assert chosen('{"ancestor":["x"]}', images=lambda: {"sha256:" + "a" * 64}) == ["web"]
    assert chosen('{"ancestor":["x"]}') == []


@pytest.mark.parametrize(
    "text", ['{"colour":["red"]}', '{"status":["asleep"]}', '{"exited":["x"]}', "[1]", "{"]
)
def test_filters_that_are_none_are_refused(text):
    with pytest.raises(BadParameter):
        chosen(text)


def test_prune_takes_those_that_do_not_run_and_are_old_enough():
    found = fleet()
    names = [c.name for c in prunable(found, filters.parse(""), now=1000)]
    assert names == ["job", "new"]
    text = '{"until":["1970-01-01T00:00:00.000000015Z"]}'
    assert [c.name for c in prunable(found, filters.parse(text), now=1000)] == ["new"]
