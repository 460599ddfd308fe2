"""What instructions say, and what they may not say."""

from __future__ import annotations

import pytest

from wherry.engine.build.dockerfile import DockerfileError
from wherry.engine.build.dockerfile.instructions import (
    Copy,
    From,
    Healthcheck,
    Onbuild,
    Run,
    instruction,
)
from wherry.engine.build.dockerfile.mounts import RunMount
from wherry.engine.build.dockerfile.parser import parse
from wherry.engine.build.dockerfile.stages import Dockerfile, find, needed, read, target_stage


def one(text: str) -> object:
    (node,) = parse(text).nodes
    return instruction(node)


def file(text: str) -> Dockerfile:
    return read(parse(text))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("FOO x", "unknown instruction: FOO"),
        ("FROM", "FROM requires either one or three arguments"),
        ("FROM a b", "FROM requires either one or three arguments"),
        ("FROM a in b", "FROM requires either one or three arguments"),
        ("FROM a AS 1x", 'invalid name for build stage: "1x", name can\'t start with a number or'),
        ("FROM --plat=x a", "Unknown flag: plat"),
        ("FROM --platform a", "Missing a value on flag: platform"),
        ("COPY a", "COPY requires at least two arguments, but only one was provided."),
        ("ADD a", "ADD requires at least two arguments, but only one was provided."),
        ("COPY --from=a --from=b x y", "Duplicate flag specified: from"),
        ("COPY --link=x a b", "Expecting boolean value for flag link, not: x"),
        ("COPY --checksum=x a b", "Unknown flag: checksum"),
        ("ADD --from=x a b", "Unknown flag: from"),
        ("RUN", "RUN requires at least one argument"),
        ("RUN --foo x", "Unknown flag: foo"),
        ("RUN --network=x y", 'invalid network mode "x"'),
        ("RUN --mount=type=foo,target=/x y", 'unsupported mount type "foo"'),
        ("RUN --mount=foo=1 y", "unexpected key 'foo' in 'foo=1'"),
        ("RUN --mount=target y", "invalid field 'target' must be a key=value pair"),
        ("RUN --mount=type=tmpfs,target=/x,source=y z", "unexpected key 'source' for mount type"),
        ("RUN --mount=type=cache y", 'invalid mount target ""'),
        ("RUN --mount=type=secret y", "invalid secret mount. one of source, target required"),
        ("RUN --mount=type=cache,target=/x,sharing=y z", 'unsupported sharing value "y"'),
        ("ENV", "ENV requires at least one argument"),
        ("ENV =x", "ENV names can not be blank"),
        ("LABEL", "LABEL requires at least one argument"),
        ("ARG", "ARG requires at least one argument"),
        ("ARG =x", "ARG names can not be blank"),
        ("EXPOSE", "EXPOSE requires at least one argument"),
        ("VOLUME", "VOLUME requires at least one argument"),
        ('VOLUME [""]', "VOLUME specified can not be an empty string"),
        ("SHELL x", "SHELL requires the arguments to be in JSON form"),
        ("SHELL []", "SHELL requires at least one argument"),
        ("USER", "USER requires exactly one argument"),
        ("WORKDIR", "WORKDIR requires exactly one argument"),
        ("STOPSIGNAL", "STOPSIGNAL requires exactly one argument"),
        ("MAINTAINER", "MAINTAINER requires exactly one argument"),
        ("ONBUILD", "ONBUILD requires at least one argument"),
        ("ONBUILD onbuild x", "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
        ("ONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger"),
        ("HEALTHCHECK", "HEALTHCHECK requires at least one argument"),
        ("HEALTHCHECK NONE x", "HEALTHCHECK NONE takes no arguments"),
        ("HEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD"),
        ("HEALTHCHECK RUN x", 'Unknown type "RUN" in HEALTHCHECK (try CMD)'),
        ("HEALTHCHECK --interval=1x CMD y", 'time: unknown unit "x" in duration "1x"'),
        ("HEALTHCHECK --interval=1 CMD y", 'time: missing unit in duration "1"'),
        ("HEALTHCHECK --interval=x CMD y", 'time: invalid duration "x"'),
        ("HEALTHCHECK --timeout=1us CMD y", 'Interval "timeout" cannot be less than 1ms'),
        ("HEALTHCHECK --retries=x CMD y", 'strconv.ParseInt: parsing "x": invalid syntax'),
        ("HEALTHCHECK --retries=-1 CMD y", "--retries must be at least 1 (not -1)"),
    ],
)
def test_what_is_refused(line: str, message: str) -> None:
    with pytest.raises(DockerfileError) as raised:
        one(line)
    assert raised.value.message.startswith(message)


def test_from() -> None:
    assert one("FROM --platform=linux/arm64 a:1 As Build.x") == From(
        "FROM --platform=linux/arm64 a:1 As Build.x", 1, "a:1", "build.x", "linux/arm64"
    )


def test_copy_has_flags_and_heredocs() -> None:
    copy = one("COPY --chown=1:2 --chmod=755 --link --exclude=a --exclude=b x <<F /d/\nhi\nF")
    assert isinstance(copy, Copy)
    assert (copy.sources, copy.destination) == (("x",), "/d/")
    assert (copy.chown, copy.chmod, copy.link, copy.exclude) == ("1:2", "755", True, ("a", "b"))
    assert copy.heredocs[0].name == "F"


def test_mounts() -> None:
    run = one(
        "RUN --mount=type=cache,id=c,dst=/c,sharing=locked,mode=0700,uid=5"
        " --mount=from=b,source=/x,target=/b,rw --mount=type=tmpfs,target=/t,size=1m"
        " --mount=type=secret,id=s,required --network=none true"
    )
    assert isinstance(run, Run)
    assert run.mounts == (
        RunMount("cache", "/c", id="c", sharing="locked", mode=0o700, uid=5, readonly=False),
        RunMount("bind", "/b", "/x", "b", readonly=False),
        RunMount("tmpfs", "/t", size=1 << 20, readonly=False),
        RunMount("secret", id="s", required=True, readonly=False),
    )
    assert run.network == "none"


def test_healthcheck() -> None:
    check = one("HEALTHCHECK --interval=1m30s --timeout=1.5s --retries=3 CMD curl -f x")
    assert isinstance(check, Healthcheck)
    assert check.check == {
        "Test": ["CMD-SHELL", "curl -f x"],
        "Interval": 90_000_000_000,
        "Timeout": 1_500_000_000,
        "Retries": 3,
    }
    exec_form = one('HEALTHCHECK CMD ["a", "b"]')
    assert isinstance(exec_form, Healthcheck) and exec_form.check["Test"] == ["CMD", "a", "b"]


def test_a_trigger_keeps_its_heredoc() -> None:
    trigger = one("ONBUILD RUN <<E\nx\nE")
    assert isinstance(trigger, Onbuild) and trigger.trigger == "RUN <<E\nx\nE"


# ---- stages


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("RUN x", "no build stage in current context"),
        ("ARG x", "No image was generated. Is your Dockerfile empty?"),
        ("FROM a\nFOO x", "dockerfile parse error line 2: unknown instruction: FOO"),
        ("FROM a AS x\nFROM b AS X", "x stage name already used"),
    ],
)
def test_files_that_make_no_sense(text: str, message: str) -> None:
    with pytest.raises(DockerfileError) as raised:
        file(text)
    assert raised.value.message == message


def test_only_needed_stages_are_built() -> None:
    whole = file(
        "ARG B=base\nFROM scratch AS base\nFROM x AS unused\nFROM $B AS one\nFROM y AS two\n"
        "COPY --from=0 a b\nFROM one\nCOPY --from=two a b\nRUN --mount=from=3,target=/x y"
    )
    target = target_stage(whole, "")
    assert needed(whole, target, {"B": "base"}) == {
        0: frozenset(),
        2: frozenset({0}),
        3: frozenset({0}),
        4: frozenset({2, 3}),
    }
    assert list(needed(whole, target_stage(whole, "ONE"), {"B": "z"})) == [2]
    assert target_stage(whole, "1").name == "unused"
    with pytest.raises(DockerfileError, match="failed to reach build target no in Dockerfile"):
        target_stage(whole, "no")


def test_a_name_means_the_latest_stage_before() -> None:
    whole = file("FROM a AS x\nFROM b\nCOPY --from=X c d")
    before = whole.stages[:1]
    assert find(before, "X", numbers=False) is whole.stages[0]
    assert find(before, "0", numbers=True) is whole.stages[0]
    assert find(before, "0", numbers=False) is None and find(before, "1", numbers=True) is None
