"""What may be a name, a label, a port name: the checks every kind shares.

Each check returns what is wrong as a list of sentences, empty where all is well, so that a caller
can put them behind its own field path. Rules and texts follow
k8s.io/apimachinery/pkg/util/validation and .../pkg/api/validation.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping

import orjson

from wherry.kube.api.errors import FieldError

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_LABEL_WITH_UNDERSCORE = "_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?"
_SUBDOMAIN_WITH_UNDERSCORE = rf"{_LABEL_WITH_UNDERSCORE}(\.{_LABEL_WITH_UNDERSCORE})*"
_LABEL_1035 = "[a-z]([-a-z0-9]*[a-z0-9])?"
_QUALIFIED = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_LABEL_VALUE = f"({_QUALIFIED})?"
_CONFIG_KEY = "[-._a-zA-Z0-9]+"
_C_IDENTIFIER = "[A-Za-z_][A-Za-z0-9_]*"
_WILDCARD_SUBDOMAIN = rf"\*\.{_SUBDOMAIN}"

_label = re.compile(_LABEL)
_subdomain = re.compile(_SUBDOMAIN)
_subdomain_with_underscore = re.compile(_SUBDOMAIN_WITH_UNDERSCORE)
_label_1035 = re.compile(_LABEL_1035)
_qualified = re.compile(_QUALIFIED)
_label_value = re.compile(_LABEL_VALUE)
_config_key = re.compile(_CONFIG_KEY)
_c_identifier = re.compile(_C_IDENTIFIER)
_wildcard_subdomain = re.compile(_WILDCARD_SUBDOMAIN)

LABEL_MAX = 63
SUBDOMAIN_MAX = 253
ANNOTATIONS_MAX = 256 * 1024
"""Keys and values of all annotations of one object together, in bytes."""

_LABEL_RULE = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', "
    "and must start and end with an alphanumeric character"
)
_SUBDOMAIN_RULE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, "
    "'-' or '.', and must start and end with an alphanumeric character"
)
_SUBDOMAIN_WITH_UNDERSCORE_RULE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, "
    "'_', '-' or '.', and must start and end with an alphanumeric character"
)
_LABEL_1035_RULE = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an "
    "alphabetic character, and end with an alphanumeric character"
)
_QUALIFIED_RULE = (
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
    "alphanumeric character"
)
_LABEL_VALUE_RULE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or "
    "'.', and must start and end with an alphanumeric character"
)
_WILDCARD_RULE = (
    "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, "
    "which must consist of lower case alphanumeric characters, '-' or '.' and end with an "
    "alphanumeric character"
)


def regex_error(rule: str, pattern: str, *examples: str) -> str:
    """A rule with its examples and its expression, worded as upstream does."""
    if not examples:
        return f"{rule} (regex used for validation is '{pattern}')"
    such_as = " or ".join(f"'{example}', " for example in examples)
    return f"{rule} (e.g. {such_as}regex used for validation is '{pattern}')"


def max_length_error(length: int) -> str:
    return f"must be no more than {length} characters"


def is_dns1123_label(value: str) -> list[str]:
    """What forbids ``value`` as a label of a domain name (RFC 1123)."""
    errors = []
    if len(value) > LABEL_MAX:
        errors.append(max_length_error(LABEL_MAX))
    if not _label.fullmatch(value):
        if _subdomain.fullmatch(value):
            errors.append("must not contain dots")
        else:
            errors.append(regex_error(_LABEL_RULE, _LABEL, "my-name", "123-abc"))
    return errors


def is_dns1123_subdomain(value: str) -> list[str]:
    """What forbids ``value`` as a domain name (RFC 1123), the form of most object names."""
    errors = []
    if len(value) > SUBDOMAIN_MAX:
        errors.append(max_length_error(SUBDOMAIN_MAX))
    if not _subdomain.fullmatch(value):
        errors.append(regex_error(_SUBDOMAIN_RULE, _SUBDOMAIN, "example.com"))
    return errors


def is_dns1123_subdomain_with_underscore(value: str) -> list[str]:
    """What forbids ``value`` as a domain name whose labels may have underscores (RFC 2782)."""
    errors = []
    if len(value) > SUBDOMAIN_MAX:
        errors.append(max_length_error(SUBDOMAIN_MAX))
    if not _subdomain_with_underscore.fullmatch(value):
        rule = _SUBDOMAIN_WITH_UNDERSCORE_RULE
        errors.append(regex_error(rule, _SUBDOMAIN_WITH_UNDERSCORE, "example.com"))
    return errors


def is_dns1035_label(value: str) -> list[str]:
    """What forbids ``value`` as a label that starts with a letter (RFC 1035)."""
    errors = []
    if len(value) > LABEL_MAX:
        errors.append(max_length_error(LABEL_MAX))
    if not _label_1035.fullmatch(value):
        errors.append(regex_error(_LABEL_1035_RULE, _LABEL_1035, "my-name", "abc-123"))
    return errors


def is_wildcard_dns1123_subdomain(value: str) -> list[str]:
    """What forbids ``value`` as ``*.`` and a domain name."""
    errors = []
    if len(value) > SUBDOMAIN_MAX:
        errors.append(max_length_error(SUBDOMAIN_MAX))
    if not _wildcard_subdomain.fullmatch(value):
        errors.append(regex_error(_WILDCARD_RULE, _WILDCARD_SUBDOMAIN, "*.example.com"))
    return errors


def is_qualified_name(value: str) -> list[str]:
    """What forbids ``value`` as a label key or a resource name: ``[prefix/]name``."""
    prefix, slash, rest = value.partition("/")
    errors: list[str] = []
    if not slash:
        part = prefix
    elif "/" in rest:
        rule = regex_error(_QUALIFIED_RULE, _QUALIFIED, "MyName", "my.name", "123-abc")
        return [
            f"a qualified name {rule} with an optional DNS subdomain prefix and '/' "
            "(e.g. 'example.com/MyName')"
        ]
    else:
        part = rest
        if not prefix:
            errors.append("prefix part must be non-empty")
        else:
            errors += [f"prefix part {error}" for error in is_dns1123_subdomain(prefix)]
    if not part:
        errors.append("name part must be non-empty")
    elif len(part) > LABEL_MAX:
        errors.append(f"name part {max_length_error(LABEL_MAX)}")
    if not _qualified.fullmatch(part):
        rule = regex_error(_QUALIFIED_RULE, _QUALIFIED, "MyName", "my.name", "123-abc")
        errors.append(f"name part {rule}")
    return errors


is_label_key = is_qualified_name


def is_label_value(value: str) -> list[str]:
    """What forbids ``value`` as the value of a label."""
    errors = []
    if len(value) > LABEL_MAX:
        errors.append(max_length_error(LABEL_MAX))
    if not _label_value.fullmatch(value):
        errors.append(regex_error(_LABEL_VALUE_RULE, _LABEL_VALUE, "MyValue", "my_value", "12345"))
    return errors


def is_path_segment(value: str) -> list[str]:
    """What forbids ``value`` as one segment of a URL path: the least any object name must hold."""
    if value in (".", ".."):
        return [f"may not be '{value}'"]
    return [f"may not contain '{mark}'" for mark in "/%" if mark in value]


def is_config_key(value: str) -> list[str]:
    """What forbids ``value`` as a key of a ConfigMap or Secret: it may become a file name."""
    errors = []
    if len(value) > SUBDOMAIN_MAX:
        errors.append(max_length_error(SUBDOMAIN_MAX))
    if not _config_key.fullmatch(value):
        rule = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'"
        errors.append(regex_error(rule, _CONFIG_KEY, "key.name", "KEY_NAME", "key-name"))
    if value in (".", ".."):
        errors.append(f"must not be '{value}'")
    elif value.startswith(".."):
        errors.append("must not start with '..'")
    return errors


def is_c_identifier(value: str) -> list[str]:
    """What forbids ``value`` as an identifier of C."""
    if _c_identifier.fullmatch(value):
        return []
    rule = (
        "a valid C identifier must start with alphabetic character or '_', followed by a string "
        "of alphanumeric characters or '_'"
    )
    return [regex_error(rule, _C_IDENTIFIER, "my_name", "MY_NAME", "MyName")]


def is_env_var_name(value: str) -> list[str]:
    """What forbids ``value`` as the name of an environment variable (the relaxed rule of 1.34)."""
    errors = []
    if not value:
        errors.append("environment variable name must be non-empty")
    if any(not " " <= c <= "~" or c == "=" for c in value):
        errors.append(
            "a valid environment variable name must consist only of printable ASCII characters "
            "other than '='"
        )
    return errors


def is_port_name(value: str) -> list[str]:
    """What forbids ``value`` as the name of a port (an IANA service name, RFC 6335)."""
    errors = []
    if len(value) > 15:
        errors.append(max_length_error(15))
    if not re.fullmatch("[-a-z0-9]+", value):
        errors.append("must contain only alphanumeric characters (a-z, 0-9), and hyphens (-)")
    if not re.search("[a-z]", value):
        errors.append("must contain at least one letter (a-z)")
    if "--" in value:
        errors.append("must not contain consecutive hyphens")
    if value.startswith("-") or value.endswith("-"):
        errors.append("must not begin or end with a hyphen")
    return errors


def is_http_header_name(value: str) -> list[str]:
    if re.fullmatch("[-A-Za-z0-9]+", value):
        return []
    rule = "a valid HTTP header must consist of alphanumeric characters or '-'"
    return [regex_error(rule, "[-A-Za-z0-9]+", "X-Header-Name")]


def quoted(value: object) -> str:
    """A value as a field error shows it: strings in double quotes, others as they are."""
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return f'"{escaped}"'
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict | list):
        return orjson.dumps(value).decode()
    return "null" if value is None else str(value)


def invalid_value(field: str, value: object, why: str) -> FieldError:
    """``field: Invalid value: "x": why``."""
    return FieldError(field, "FieldValueInvalid", f"Invalid value: {quoted(value)}: {why}")


def label_errors(labels: Mapping[str, str], field: str) -> list[FieldError]:
    """What is wrong with a map of labels at ``field``."""
    errors = []
    for key, value in labels.items():
        errors += [invalid_value(field, key, why) for why in is_qualified_name(key)]
        errors += [invalid_value(field, value, why) for why in is_label_value(value)]
    return errors


def annotation_errors(annotations: Mapping[str, str], field: str) -> list[FieldError]:
    """What is wrong with a map of annotations at ``field``. Case does not matter in their keys."""
    errors = []
    for key in annotations:
        errors += [invalid_value(field, key, why) for why in is_qualified_name(key.lower())]
    if sum(len(k.encode()) + len(v.encode()) for k, v in annotations.items()) > ANNOTATIONS_MAX:
        errors.append(
            FieldError(
                field,
                "FieldValueTooLong",
                f"Too long: may not be more than {ANNOTATIONS_MAX} bytes",
            )
        )
    return errors


_GENERATED = "bcdfghjklmnpqrstvwxz2456789"
_GENERATED_LENGTH = 5


def name_suffix(origin: str) -> str:
    """Five letters that are always the same for an ``origin``, as `generate_name` has them."""
    number = int.from_bytes(hashlib.sha256(origin.encode()).digest()[:8])
    digits = (number // len(_GENERATED) ** place for place in range(_GENERATED_LENGTH))
    return "".join(_GENERATED[digit % len(_GENERATED)] for digit in digits)


def generate_name(base: str) -> str:
    """``base`` with five random letters behind it, together no longer than a label may be.

    The alphabet lacks vowels and the digits that look like them, so no words come out.
    """
    suffix = "".join(secrets.choice(_GENERATED) for _ in range(_GENERATED_LENGTH))
    return base[: LABEL_MAX - _GENERATED_LENGTH] + suffix
