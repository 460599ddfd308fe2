import pytest
from log_info import info

from wherry.engine.logs.template import execute


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{.ID}}", "0123456789ab"),
        ("{{ .ImageName }}/{{.Name}}/x", "busybox:latest/web/x"),
        ("{{.FullID}}", "0123456789abcdef" * 4),
        ("{{.ImageID}}", "sha256:ababa"),
        ("{{upper .Name}}-{{.Name | upper}}", "WEB-WEB"),
        ("{{truncate .FullID 4}}", "0123"),
        ('{{printf "%s:%d" .Name 5}}', "web:5"),
        ('{{index .ContainerLabels "team"}}{{.ContainerLabels.tier}}', "xy"),
        ("{{.Command}}", "sh -c true"),
        ("{{.ContainerArgs}}", "[-c true]"),
        ("{{join .ContainerArgs `/`}}", "-c/true"),
        ("{{json .ContainerLabels}}", '{"team":"x","tier":"y"}'),
        ('{{pad (upper "a") 1 2}}|', " A  |"),
        ("a {{- .Name -}} b", "awebb"),
        ("{{/* nothing */}}x", "x"),
        ("{{.DaemonName}}", "docker"),
    ],
)
def test_templates(template, text):
    assert execute(template, info()) == text


@pytest.mark.parametrize(
    ("template", "error"),
    [
        ("{{.Nope}}", "can't evaluate field Nope in type *logger.Info"),
        ("{{nope}}", 'function "nope" not defined'),
        ("{{.ID", "unclosed action"),
        ("{{}}", "missing value for command"),
        ("{{(upper .ID}}", "unclosed left paren"),
        ('{{"x}}', "unterminated quoted string"),
        ("{{truncate .ID}}", "truncate"),
    ],
)
def test_what_is_no_template_is_refused(template, error):
    with pytest.raises(ValueError, match="template: log-tag:1") as caught:
        execute(template, info())
    assert error in str(caught.value)
