"""Dockerfile instructions on the settings of an image."""

from __future__ import annotations

from typing import Any

import pytest

from wherry.engine.errors import BadParameter
from wherry.engine.image.changes import apply

PORTS = ("80/tcp", "53/udp", "90/tcp", "91/tcp")


@pytest.mark.parametrize(
    ("line", "settings"),
    [
        ('CMD ["a", "b"]', {"Cmd": ["a", "b"]}),
        ("cmd a b", {"Cmd": ["/bin/sh", "-c", "a b"]}),
        ("CMD []", {"Cmd": []}),
        ('ENTRYPOINT ["x"]', {"Entrypoint": ["x"], "Cmd": None}),
        ("ENV A=1 B='two words' C=\"d\"", {"Env": ["A=1", "B=two words", "C=d"]}),
        ("ENV A rest of line", {"Env": ["A=rest of line"]}),
        ("LABEL a=b c=", {"Labels": {"a": "b", "c": ""}}),
        ("EXPOSE 80 53/udp 90-91", {"ExposedPorts": {port: {} for port in PORTS}}),
        ("USER web:web", {"User": "web:web"}),
        ('VOLUME ["/a", "/b c"]', {"Volumes": {"/a": {}, "/b c": {}}}),
        ("VOLUME /a /b", {"Volumes": {"/a": {}, "/b": {}}}),
        ("WORKDIR /srv", {"WorkingDir": "/srv"}),
        ("STOPSIGNAL SIGINT", {"StopSignal": "SIGINT"}),
        ("ONBUILD RUN make", {"OnBuild": ["RUN make"]}),
        ("HEALTHCHECK NONE", {"Healthcheck": {"Test": ["NONE"]}}),
        (
            "HEALTHCHECK --interval=5s --retries=3 CMD curl  -f localhost",
            {
                "Healthcheck": {
                    "Test": ["CMD-SHELL", "curl  -f localhost"],
                    "Interval": 5_000_000_000,
                    "Retries": 3,
                }
            },
        ),
        ('HEALTHCHECK CMD ["true"]', {"Healthcheck": {"Test": ["CMD", "true"]}}),
    ],
)
def test_instructions(line: str, settings: dict[str, Any]) -> None:
    assert apply({}, [line]) == settings


def test_instructions_add_to_what_is_there() -> None:
    before = {"Env": ["A=1", "B=2"], "Labels": {"x": "1"}, "WorkingDir": "/a", "Cmd": ["old"]}
    after = apply(before, ["ENV B=3", "LABEL y=2", "WORKDIR b", "", "# comment"])
    assert after == {
        "Env": ["A=1", "B=3"],
        "Labels": {"x": "1", "y": "2"},
        "WorkingDir": "/a/b",
        "Cmd": ["old"],
    }
    assert before["Env"] == ["A=1", "B=2"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("RUN make", "run is not a valid change command"),
        ("FROM x", "from is not a valid change command"),
        ("ENV", "ENV requires at least one argument"),
        ("ENV A", "ENV must have two arguments"),
        ("ENV A=1 B", "can't find ="),
        ("LABEL a='open", "unexpected end of statement"),
        ("EXPOSE web", "invalid containerPort: web"),
        ("EXPOSE 80/http", "invalid proto: http"),
        ("EXPOSE 70000", "invalid containerPort"),
        ("USER", "USER requires exactly one argument"),
        ("ONBUILD ONBUILD RUN x", "Chaining ONBUILD"),
        ("ONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger"),
        ("HEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD"),
        ("HEALTHCHECK RUN x", 'Unknown type "RUN" in HEALTHCHECK'),
        ("HEALTHCHECK --often=1s CMD x", "Unknown flag: often"),
        ("HEALTHCHECK --interval=x CMD x", "invalid duration"),
    ],
)
def test_wrong_instructions_are_refused(line: str, message: str) -> None:
    with pytest.raises(BadParameter, match=message):
        apply({}, [line])
