import pytest

from wherry.kube.api import names


@pytest.mark.parametrize("name", ["a", "web-1", "0", "a" * 63])
def test_labels_of_domain_names_are_accepted(name: str):
    assert names.is_dns1123_label(name) == []


def test_a_bad_label_is_told_with_examples_and_expression():
    assert names.is_dns1123_label("Web") == [
        "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and "
        "must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex "
        "used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
    ]


def test_a_label_with_dots_is_told_so():
    assert names.is_dns1123_label("a.b") == ["must not contain dots"]


def test_length_and_form_are_both_told():
    errors = names.is_dns1123_label("A" * 64)
    assert errors[0] == "must be no more than 63 characters" and len(errors) == 2


def test_a_subdomain_may_have_dots_and_253_characters():
    assert names.is_dns1123_subdomain("a.b-c.d") == []
    assert names.is_dns1123_subdomain("a" * 254) == ["must be no more than 253 characters"]
    assert "(e.g. 'example.com', regex used" in names.is_dns1123_subdomain("a_b")[0]
    assert names.is_dns1123_subdomain("a\n")


def test_a_service_name_starts_with_a_letter():
    assert names.is_dns1035_label("web") == []
    assert names.is_dns1035_label("1web")[0].startswith("a DNS-1035 label must consist of")


@pytest.mark.parametrize("key", ["app", "example.com/app", "A_b.c-d", "kubernetes.io/x"])
def test_qualified_names_are_accepted(key: str):
    assert names.is_qualified_name(key) == []


@pytest.mark.parametrize(
    ("key", "begins"),
    [
        ("", "name part must be non-empty"),
        ("/a", "prefix part must be non-empty"),
        ("A/a", "prefix part a lowercase RFC 1123 subdomain"),
        ("a/b/c", "a qualified name must consist of alphanumeric characters"),
        ("a" * 64, "name part must be no more than 63 characters"),
        ("-a", "name part must consist of alphanumeric characters"),
    ],
)
def test_other_qualified_names_are_refused(key: str, begins: str):
    assert names.is_qualified_name(key)[0].startswith(begins)


def test_a_qualified_name_with_two_slashes_names_the_whole_form():
    (error,) = names.is_qualified_name("a/b/c")
    assert error.endswith(
        "(e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
        "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and "
        "'/' (e.g. 'example.com/MyName')"
    )


def test_label_values_may_be_empty_but_not_spaced():
    assert names.is_label_value("") == [] and names.is_label_value("a.b_c-D") == []
    assert names.is_label_value("a b")[0].startswith("a valid label must be an empty string or")


def test_config_keys_cannot_escape_their_directory():
    assert names.is_config_key("app.conf") == [] and names.is_config_key(".hidden") == []
    assert names.is_config_key("..") == ["must not be '..'"]
    assert names.is_config_key("..a") == ["must not start with '..'"]
    assert names.is_config_key("a/b")[0].startswith("a valid config key must consist of")


def test_port_names_follow_rfc_6335():
    assert names.is_port_name("http-2") == []
    assert names.is_port_name("80") == ["must contain at least one letter (a-z)"]
    assert names.is_port_name("a--b") == ["must not contain consecutive hyphens"]
    assert names.is_port_name("a-") == ["must not begin or end with a hyphen"]


def test_path_segments_cannot_leave_their_collection():
    assert names.is_path_segment("..") == ["may not be '..'"]
    assert names.is_path_segment("a/b%") == ["may not contain '/'", "may not contain '%'"]


def test_label_errors_name_key_and_value():
    errors = names.label_errors({"a b": "ok", "app": "x y"}, "metadata.labels")
    assert [e.field for e in errors] == ["metadata.labels"] * 2
    assert errors[0].detail.startswith('Invalid value: "a b": name part must consist')
    assert errors[1].detail.startswith('Invalid value: "x y": a valid label must be')


def test_annotations_together_have_a_bound():
    (error,) = names.annotation_errors({"A/x": "v" * 300_000}, "metadata.annotations")
    assert str(error) == ("metadata.annotations: Too long: may not be more than 262144 bytes")


def test_generated_names_differ_and_fit_a_label():
    first, second = names.generate_name("web-"), names.generate_name("web-")
    assert first != second and first.startswith("web-") and len(first) == 9
    assert len(names.generate_name("a" * 80)) == 63
