"""CEL's functions on strings, with what `format` makes of values."""

from __future__ import annotations

from wherry.kube.api import regex
from wherry.kube.api.cel.conversions import string
from wherry.kube.api.cel.values import CELError, Type, Value, equal, no_overload, type_name


def text_of(value: Value) -> str:
    if not isinstance(value, str):
        raise no_overload()
    return value


def whole(value: Value) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise no_overload()
    return int(value)


def matches(value: Value, pattern: Value) -> bool:
    return regex.search(text_of(pattern), text_of(value))


def find(value: Value, pattern: Value) -> str:
    match = regex.compiled(text_of(pattern)).search(text_of(value))
    return match.group() if match else ""


def find_all(value: Value, pattern: Value, limit: Value = -1) -> list[str]:
    found = [m.group() for m in regex.compiled(text_of(pattern)).finditer(text_of(value))]
    most = whole(limit)
    return found if most < 0 else found[:most]


def char_at(value: Value, index: Value) -> str:
    text, at = text_of(value), whole(index)
    if not 0 <= at <= len(text):
        raise CELError(f"index out of range: {at}")
    return text[at : at + 1]


def index_of(value: Value, part: Value, start: Value = 0) -> int:
    if isinstance(value, list):
        return next((i for i, each in enumerate(value) if equal(each, part)), -1)
    text, at = text_of(value), whole(start)
    if not 0 <= at <= len(text):
        raise CELError(f"index out of range: {at}")
    return text.find(text_of(part), at)


def last_index_of(value: Value, part: Value, end: Value = None) -> int:
    if isinstance(value, list):
        return max((i for i, each in enumerate(value) if equal(each, part)), default=-1)
    text, wanted = text_of(value), text_of(part)
    if end is None:
        return text.rfind(wanted)
    if not 0 <= whole(end) <= len(text):
        raise CELError(f"index out of range: {end}")
    return text.rfind(wanted, 0, end + len(wanted))


def replace(value: Value, old: Value, new: Value, limit: Value = -1) -> str:
    return text_of(value).replace(text_of(old), text_of(new), whole(limit))


def split(value: Value, separator: Value, limit: Value = -1) -> list[str]:
    text, by, most = text_of(value), text_of(separator), whole(limit)
    if most == 0:
        return []
    if not by:
        parts = list(text)
        return (
            parts
            if most < 0 or len(parts) <= most
            else [*parts[: most - 1], "".join(parts[most - 1 :])]
        )
    return text.split(by, most - 1 if most > 0 else -1)


def substring(value: Value, start: Value, end: Value = None) -> str:
    text, low = text_of(value), whole(start)
    high = len(text) if end is None else whole(end)
    if not 0 <= low <= len(text):
        raise CELError(f"index out of range: {low}")
    if not 0 <= high <= len(text):
        raise CELError(f"index out of range: {high}")
    if low > high:
        raise CELError(f"invalid substring range. start: {low}, end: {high}")
    return text[low:high]


SPACE = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009"
    "\u200a\u2028\u2029\u202f\u205f\u3000"
)


def with_case(value: Value, *, upper: bool) -> str:
    return "".join(
        (c.upper() if upper else c.lower()) if c.isascii() else c for c in text_of(value)
    )


def join(value: Value, separator: Value = "") -> str:
    if not isinstance(value, list):
        raise no_overload()
    return text_of(separator).join(map(text_of, value))


def shown(value: Value) -> str:
    """A value as ``%s`` prints it."""
    if isinstance(value, list):
        return "[" + ", ".join(map(shown, value)) + "]"
    if isinstance(value, dict):
        pairs = sorted((shown(k), shown(v)) for k, v in value.items())
        return "{" + ", ".join(f"{k}: {v}" for k, v in pairs) + "}"
    if value is None:
        return "null"
    if isinstance(value, Type):
        return value.name
    return string(value)


def format_with(template: Value, arguments: Value) -> str:
    text, out, used, at = text_of(template), [], 0, 0
    if not isinstance(arguments, list):
        raise no_overload()
    while (percent := text.find("%", at)) >= 0:
        out.append(text[at:percent])
        at = percent + 1
        if text[at : at + 1] == "%":
            out.append("%")
            at += 1
            continue
        precision = 6
        if text[at : at + 1] == ".":
            end = at + 1
            while text[end : end + 1].isdigit():
                end += 1
            precision = min(int(text[at + 1 : end] or 0), 100)
            at = end
        verb = text[at : at + 1]
        at += 1
        if used >= len(arguments):
            raise CELError(f"index {used} out of range")
        out.append(_formatted(verb, arguments[used], precision))
        used += 1
    if used < len(arguments):
        raise CELError("too many arguments supplied to string.format")
    return "".join([*out, text[at:]])


def _formatted(verb: str, value: Value, precision: int) -> str:
    number = isinstance(value, int) and not isinstance(value, bool)
    match verb:
        case "s":
            return shown(value)
        case "d" if number:
            return str(int(value))
        case "f" | "e" if number or isinstance(value, float):
            return f"{float(value):.{precision}{verb}}"
        case "b" if number or isinstance(value, bool):
            return f"{int(value):b}"
        case "o" if number:
            return f"{int(value):o}"
        case "x" | "X" if number:
            return f"{int(value):{verb}}"
        case "x" | "X" if isinstance(value, str | bytes):
            digits = (value.encode() if isinstance(value, str) else value).hex()
            return digits.upper() if verb == "X" else digits
    if verb not in "sdfeboxX" or not verb:
        raise CELError(
            f'could not parse formatting clause: unrecognized formatting clause "{verb}"'
        )
    raise CELError(f"error during formatting: {verb} clause cannot be used on {type_name(value)}")
