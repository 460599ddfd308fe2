"""What instructions do to the settings of an image."""

from __future__ import annotations

import pytest

from wherry.engine.build.dockerfile import DockerfileError
from wherry.engine.build.dockerfile.instructions import instruction
from wherry.engine.build.dockerfile.parser import parse
from wherry.engine.build.settings import Scope, Settings


def carry_out(settings: Settings, text: str, **arguments: str) -> str:
    comment = ""
    for node in parse(text).nodes:
        comment = settings.apply(instruction(node), Scope(settings.environment, arguments))
    return comment


@pytest.mark.parametrize(
    ("text", "name", "value", "comment"),
    [
        ("ENV a=1 b=$P", "Env", ["P=/bin", "a=1", "b=/bin"], "ENV a=1 b=/bin"),
        ("ENV P=x", "Env", ["P=x"], "ENV P=x"),
        ("ENV a $P b", "Env", ["P=/bin", "a=/bin b"], "ENV a=/bin b"),
        ('LABEL a="b c" d=$arg', "Labels", {"a": "b c", "d": "A"}, "LABEL a=b c d=A"),
        ("CMD x y", "Cmd", ["/bin/sh", "-c", "x y"], 'CMD ["/bin/sh" "-c" "x y"]'),
        ('CMD ["$P"]', "Cmd", ["$P"], 'CMD ["$P"]'),
        ("EXPOSE 80 $ports", "ExposedPorts", {"80/tcp": {}, "1/udp": {}, "2/tcp": {}}, None),
        ("EXPOSE 10-12", "ExposedPorts", {"10/tcp": {}, "11/tcp": {}, "12/tcp": {}}, None),
        ("USER ${arg}", "User", "A", "USER A"),
        ("VOLUME /a $P", "Volumes", {"/a": {}, "/bin": {}}, "VOLUME [/a /bin]"),
        ("WORKDIR a\nWORKDIR b\nWORKDIR ../c", "WorkingDir", "/a/c", "WORKDIR /a/c"),
        ("WORKDIR /x/", "WorkingDir", "/x/", "WORKDIR /x/"),
        ("STOPSIGNAL SIGINT", "StopSignal", "SIGINT", "STOPSIGNAL SIGINT"),
        ('SHELL ["a", "b"]', "Shell", ["a", "b"], "SHELL [a b]"),
        ("ONBUILD RUN $x", "OnBuild", ["RUN $x"], "ONBUILD RUN $x"),
        (
            "HEALTHCHECK --interval=5s --retries=2 CMD x",
            "Healthcheck",
            {"Test": ["CMD-SHELL", "x"], "Interval": 5_000_000_000, "Retries": 2},
            'HEALTHCHECK &{["CMD-SHELL" "x"] "5s" "0s" "0s" "0s" \'\\x02\'}',
        ),
    ],
)
def test_settings(text: str, name: str, value: object, comment: str | None) -> None:
    settings = Settings({"Env": ["P=/bin"]})
    said = carry_out(settings, text, arg="A", ports="1/udp 2")
    assert settings.values[name] == value
    assert comment is None or said == comment


def test_a_new_entrypoint_silences_an_inherited_command() -> None:
    settings = Settings({"Cmd": ["old"]})
    carry_out(settings, 'ENTRYPOINT ["e"]')
    assert settings.values["Cmd"] is None
    carry_out(settings, 'CMD ["c"]\nENTRYPOINT ["f"]')
    assert settings.values["Cmd"] == ["c"]


def test_the_shell_that_was_set_runs_shell_forms() -> None:
    settings = Settings()
    carry_out(settings, 'SHELL ["/bin/bash", "-ec"]\nENTRYPOINT x')
    assert settings.values["Entrypoint"] == ["/bin/bash", "-ec", "x"]


def test_the_environment_overrules_arguments() -> None:
    settings = Settings({"Env": ["x=env"]})
    carry_out(settings, "USER $x", x="arg")
    assert settings.values["User"] == "env"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("EXPOSE x", "invalid containerPort: x"),
        ("EXPOSE 1/foo", "invalid proto: foo"),
        ("VOLUME $none", "VOLUME specified can not be an empty string"),
        ("WORKDIR $none", "cannot normalize nothing"),
    ],
)
def test_what_variables_must_not_make(text: str, message: str) -> None:
    with pytest.raises(DockerfileError, match=message):
        carry_out(Settings(), text)
