"""CEL as the specification and cel-go's extensions have it."""

from typing import Any

import pytest

from wherry.kube.api import cel

SELF = {
    "a": 1,
    "b": "x",
    "l": [1, 2, 3],
    "m": {"k": "v"},
    "s": ["a", "b"],
    "my-name": 3,
    "namespace": "n",
}


def evaluate(text: str, **variables: Any) -> Any:
    given = {"self": SELF, **variables}
    return cel.compile(text, frozenset(given)).evaluate(given)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("self.a <= 5 && self.l.all(x, x > 0)", True),
        ("has(self.zz)", False),
        ("has(self.m.k)", True),
        ("self.l.map(x, x * 2)", [2, 4, 6]),
        ("self.l.filter(x, x > 1).size()", 2),
        ("self.l.map(x, x > 1, x + 1)", [3, 4]),
        ("self.m.all(k, k == 'k')", True),
        ("self.l.exists_one(x, x == 1)", True),
        ("self.l.all(i, x, x > i)", True),
        ("self.l.transformList(i, v, i * v)", [0, 2, 6]),
        ("self.m.transformMap(k, v, v + '!')", {"k": "v!"}),
        ("self.?zz.orValue(3)", 3),
        ("self.?a.hasValue()", True),
        ("self.?m.?k.optMap(v, v + '!').value()", "v!"),
        ("self.l[?7].orValue(0)", 0),
        ("[?self.?a, ?self.?zz]", [1]),
        ("{?'a': self.?zz, 'b': 1}", {"b": 1}),
        ("self.a == 1.0 && 1 < 1.5 && uint(1) == 1", True),
        ("self.a == '1'", False),
        ("true == 1", False),
        ("-7 / 2 == -3 && -7 % 2 == -1", True),
        ("-9223372036854775808", -(2**63)),
        ("type(self.a) == int && type(self) == map", True),
        ("'%s is %d, %.2f %x'.format(['a', 3, 1.0, 255])", "a is 3, 1.00 ff"),
        ("'a.b'.split('.')", ["a", "b"]),
        ("'abcd'.substring(1, 3) + 'x'.replace('x', 'y')", "bcy"),
        ("self.s.join(',')", "a,b"),
        ("self.s.isSorted() && self.l.sum() == 6 && self.l.max() == 3", True),
        ("self.l.indexOf(2)", 1),
        ("sets.contains([1, 2], [1]) && sets.equivalent([1, 1], [1])", True),
        ("duration('1h') > duration('5m30s')", True),
        ("timestamp('2024-03-01T00:00:00Z').getMonth()", 2),
        ("duration('90m').getMinutes()", 90),
        ("cel.bind(x, 1, x + 1)", 2),
        ("self.__namespace__ == 'n' && self.my__dash__name == 3", True),
        ("self.`my-name`", 3),
        ("size('äö') == 2 && size(b'\\xff') == 1", True),
        ("r'\\n' == '\\\\n'", True),
        ("'a' in self.m || 'k' in self.m", True),
        ("Object{spec: Object.spec{replicas: 3}}", {"spec": {"replicas": 3}}),
        ("quantity('1Gi').isGreaterThan(quantity('1G'))", True),
        ("quantity('50k').add(20000).compareTo(quantity('70k'))", 0),
        ("isQuantity('1Q')", False),
        ("url('https://a.b:80/c?x=1').getHost()", "a.b:80"),
        ("url('https://a.b:80/c?x=1').getQuery()['x']", ["1"]),
        ("isIP('1.2.3.4') && ip('::1').isLoopback() && !isIP('1.2')", True),
        ("cidr('10.0.0.0/8').containsIP('10.1.1.1')", True),
        ("cidr('10.0.0.0/8').containsCIDR('10.1.0.0/16')", True),
        ("semver('1.2.3').isLessThan(semver('1.10.0'))", True),
        ("!format.dns1123Label().validate('A_b').hasValue()", False),
    ],
)
def test_an_expression_has_its_value(text: str, value: Any):
    assert evaluate(text) == value


def test_regular_expressions_are_those_of_go():
    pytest.importorskip("re2")
    assert evaluate("self.b.matches('^x$') && 'abc1'.find('[0-9]+') == '1'")
    with pytest.raises(cel.CELError, match="error parsing regexp: missing closing"):
        evaluate("'a'.matches('(')")


@pytest.mark.parametrize(
    "text",
    ["self.zz == 1 || true", "true || self.zz == 1", "[1, 2].exists(x, x / 0 == 1 || x == 2)"],
)
def test_an_error_beside_a_decisive_value_is_none(text: str):
    assert evaluate(text) is True


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("self.zz", "no such key: zz"),
        ("self.a + 'x'", "no such overload"),
        ("self.a / 0", "division by zero"),
        ("self.l[5]", "index out of bounds: 5"),
        ("9223372036854775807 + 1", "integer overflow"),
        ("self.a && true", "no such overload"),
        ("optional.none().value()", "optional.none() dereference"),
        ("'%d'.format(['x'])", "error during formatting: d clause cannot be used on string"),
    ],
)
def test_what_has_no_value_says_why(text: str, why: str):
    with pytest.raises(cel.CELError) as caught:
        evaluate(text)
    assert str(caught.value) == why


@pytest.mark.parametrize(
    ("text", "at", "why"),
    [
        ("foo", 1, "undeclared reference to 'foo' (in container '')"),
        ("self.foo()", 6, "undeclared reference to 'foo' (in container '')"),
        ("1 +", 4, "Syntax error: mismatched input '<EOF>' expecting an expression"),
        ("has(self)", 1, "invalid argument to has() macro"),
        ("'a", 1, "Syntax error: token recognition error at: '''"),
    ],
)
def test_what_is_no_expression_is_reported_with_its_place(text: str, at: int, why: str):
    with pytest.raises(cel.CompileError) as caught:
        evaluate(text)
    assert str(caught.value) == f"ERROR: <input>:1:{at}: {why}\n | {text}\n | {'.' * (at - 1)}^"


def test_an_evaluation_ends_when_its_budget_does():
    text = "self.all(x, self.all(y, self.all(z, x + y + z >= 0)))"
    with pytest.raises(cel.CostExceeded, match="actual cost limit exceeded"):
        evaluate(text, self=list(range(1000)))
    with pytest.raises(cel.CostExceeded):
        evaluate("self.map(a, self.map(b, self.map(c, self)))", self=list(range(200)))


@pytest.mark.parametrize("text", ["(" * 5000, "1+" * 5000 + "1", "a" * 200_000, "[" * 300])
def test_monstrous_expressions_are_refused(text: str):
    with pytest.raises(cel.CompileError):
        cel.compile(text, frozenset())


def test_types_may_be_brought_along_and_variables_be_late():
    class Account(cel.Opaque):
        def __init__(self, name: str) -> None:
            self.name = name

        def cel_may(self, verb: str) -> bool:
            return verb == self.name

    assert evaluate("account.may('get')", account=Account("get"))
    asked = []
    assert evaluate("late + late", late=lambda: asked.append(1) or 2) == 4
    assert asked == [1]
