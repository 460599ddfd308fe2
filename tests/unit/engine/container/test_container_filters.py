import pytest
from containers_helper import make

from wherry.engine import filters
from wherry.engine.container.container import PublishedPort
from wherry.engine.container.filters import prunable, select
from wherry.engine.errors import BadParameter, NotFound


def fleet():
    """Newest first: a running one, an exited one, one only created."""
    labels = {"app": "web", "tier": "front"}
    web = make("a" * 64, "web", config={"Labels": labels, "ExposedPorts": {"9000/tcp": {}}})
    web.state.running, web.state.started_at = True, 1
    web.ports = [PublishedPort("tcp", 80, "0.0.0.0", 8080)]
    job = make(
        "b" * 64,
        "job",
        config={"ExposedPorts": {"9000/tcp": {}}},
        host={"PortBindings": {"443/tcp": [{"HostIp": "", "HostPort": ""}]}},
    )
    job.state.started_at, job.state.exit_code = 1, 7
    new = make("c" * 64, "new", host={"Binds": ["/data:/srv"]})
    web.created_at, job.created_at, new.created_at = 30, 20, 10
    return [web, job, new]


def _find(by_name, reference):
    for container in by_name.values():
        if container.name == reference or container.id.startswith(reference):
            return container
    raise NotFound(f"No such container: {reference}")


def chosen(text="", *, all_=False, limit=0, images=frozenset):
    found = fleet()
    by_name = {container.name: container for container in found}
    selected = select(
        found,
        filters.parse(text),
        all_=all_,
        limit=limit,
        find=lambda reference: _find(by_name, reference),
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
        ('{"publish":["80"]}', []),
        ('{"publish":["8000-8100/tcp"]}', ["web"]),
        ('{"expose":["9000/tcp"]}', ["web"]),
        ('{"expose":["80"]}', ["web"]),
        ('{"expose":["1"],"publish":["8080"]}', ["web"]),
        ('{"network":["bridge"]}', ["web", "job", "new"]),
        ('{"status":{"running":true}}', ["web"]),
        ('{"status":{"running":false}}', ["web"]),
        ('{"publish":["443"]}', []),
        ('{"expose":["8999-9000"]}', ["web"]),
        ('{"expose":["9000/udp"]}', []),
        ('{"health":["none"]}', ["web", "job", "new"]),
        ('{"health":["healthy"]}', []),
        ('{"is-task":["true"]}', []),
        ('{"isolation":["anything"]}', ["web", "job", "new"]),
        ('{"name":["["]}', []),
        ('{"volume":["/data"]}', ["new"]),
    ],
)
def test_filters_choose(text, names):
    assert chosen(text, all_=True) == names


def test_an_exit_code_alone_does_not_show_what_has_ended():
    assert chosen('{"exited":["7"]}') == []
    assert chosen('{"status":["exited"]}') == ["job"]


def test_ancestors_are_images():
    assert chosen('{"ancestor":["x"]}', images=lambda: {"sha256:" + "a" * 64}) == ["web"]
    assert chosen('{"ancestor":["x"]}') == []


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('{"colour":["red"]}', "invalid filter 'colour'"),
        ('{"label!":["red"]}', "invalid filter 'label!'"),
        ('{"status":["asleep"]}', "invalid filter 'status=asleep'"),
        ('{"exited":["x"]}', 'strconv.Atoi: parsing "x": invalid syntax'),
        ('{"health":["ill"]}', "unrecognized filter value for health: ill"),
        ('{"is-task":["a","b"]}', "invalid filter 'is-task=[a b]'"),
        ('{"publish":["80:80"]}', "filter for 'publish' should not contain ':': 80:80"),
        (
            '{"expose":["x"]}',
            'error while looking up for expose x: strconv.ParseUint: parsing "x": invalid syntax',
        ),
        (
            '{"publish":["9-8"]}',
            "error while looking up for publish 9-8: invalid range specified for port: 9-8",
        ),
        ("[1]", "invalid filter"),
        ("{", "invalid filter"),
        ('{"status":"running"}', "invalid filter"),
    ],
)
def test_filters_that_are_none_are_refused(text, complaint):
    with pytest.raises(BadParameter) as caught:
        chosen(text)
    assert caught.value.message == complaint


def test_a_bound_that_is_no_container_is_not_found():
    with pytest.raises(NotFound, match="no such container nope"):
        chosen('{"before":["nope"]}')


def test_prune_takes_those_that_do_not_run_and_are_old_enough():
    found = fleet()
    names = [c.name for c in prunable(found, filters.parse(""), now=1000)]
    assert names == ["job", "new"]
    text = '{"until":["1970-01-01T00:00:00.000000015Z"]}'
    assert [c.name for c in prunable(found, filters.parse(text), now=1000)] == ["new"]
