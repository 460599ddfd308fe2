from wherry.kube.apiserver.warnings import headers


def test_a_warning_is_a_quoted_text() -> None:
    assert headers(['say "a\\b"']) == ['299 - "say \\"a\\\\b\\""']


def test_each_is_told_once_and_in_order() -> None:
    assert headers(["b", "a", "b", ""]) == ['299 - "b"', '299 - "a"']


def test_what_cannot_stand_in_a_header_is_not_told() -> None:
    assert headers(["a\r\nSet-Cookie: x", "é", "\x7f", "\ud800"]) == ['299 - "é"']


def test_many_or_long_warnings_are_cut() -> None:
    long = [f"{i:03}" + "x" * 1000 for i in range(100)]
    told = headers(long)
    assert len(told) == 16
    assert {len(each) for each in told} == {len('299 - ""') + 256}
    assert headers(["y" * 4096]) == [f'299 - "{"y" * 4096}"']
