"""The grammar of filters: what it reads, what it prints, what it refuses."""

from __future__ import annotations

import json
from datetime import date, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from semsearch.errors import InvalidInput
from semsearch.filters import And, Comparison, Date, Exists, Filter, Not, Or, parse, parse_date
from semsearch.store.globs import literal_part, path_matcher, text_matcher

DAY = 86_400_000_000  # microseconds

names = st.one_of(
    st.sampled_from(["lang", "year", "author.name", "a-b", "metadata.type", "or", "Not", "exists", "été", "x.0"]),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12),
)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
zones = st.just(timezone(timedelta(hours=-3, minutes=-30)))
dates = st.one_of(
    st.dates().map(lambda d: parse_date(d.isoformat())),
    st.dates().map(lambda d: parse_date(d.isoformat()[:7])),
    st.datetimes(timezones=zones).map(lambda d: parse_date(d.isoformat())),
)
numbers = st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False))
values = st.one_of(texts, numbers, st.booleans(), dates)
comparisons = st.one_of(
    st.builds(lambda f, o, v: Comparison(f, o, (v,)), names, st.sampled_from(["=", "!="]), values),
    st.builds(
        lambda f, o, v: Comparison(f, o, (v,)),
        names,
        st.sampled_from(["<", "<=", ">", ">="]),
        st.one_of(texts, numbers, dates),
    ),
    st.builds(lambda f, o, v: Comparison(f, o, (v,)), names, st.sampled_from(["~", "!~"]), texts),
    st.builds(
        lambda f, o, v: Comparison(f, o, tuple(v)),
        names,
        st.sampled_from(["in", "not in"]),
        st.lists(values, min_size=1, max_size=4),
    ),
    st.builds(Exists, names),
)
filters = st.recursive(
    comparisons,
    lambda inner: st.one_of(
        st.builds(Not, inner),
        st.builds(lambda parts: And(tuple(parts)), st.lists(inner, min_size=2, max_size=3)),
        st.builds(lambda parts: Or(tuple(parts)), st.lists(inner, min_size=2, max_size=3)),
    ),
    max_leaves=8,
)


@given(filters)
def test_what_is_printed_reads_as_what_it_was(tree: Filter) -> None:
    again = parse(str(tree))
    assert again == tree and str(again) == str(tree)


tokens = st.sampled_from(
    ["and", "or", "not", "in", "exists", "(", ")", ",", "=", "!=", "~", "<", ">=", "lang", "a.b", '"x"', "'", '"', "\\",
     "2020", "-1.5e3", "2024-05-01", "2024-99", "true", ";", "--", "DROP TABLE documents", "\x00", "?", "%", "🦊", "&&",
     "1e999", "9" * 301, "${x}", "{}", "2024-05-01T25:00"]
)  # fmt: skip


@given(st.one_of(st.text(), st.lists(tokens, max_size=12).map(" ".join), st.lists(tokens, max_size=12).map("".join)))
@example("\ud800 = 1")
@example("(" * 500)
@example("not " * 500)
@example("a = 1 and " * 5_000)
def test_any_string_reads_or_is_refused(text: str) -> None:
    try:
        tree = parse(text)
    except InvalidInput as error:
        assert str(error)
    else:
        assert parse(str(tree)) == tree


keys = st.one_of(st.sampled_from(["and", "or", "not", "exists", "in", ">=", "~", "lang"]), st.text())
anything = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.dates(), st.datetimes(), st.binary()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(keys, inner, max_size=3),
    ),
    max_leaves=10,
)  # fmt: skip


@given(anything)
@example({"a": 10**400})
@example({"\ud800": "\ud800"})
def test_any_mapping_reads_or_is_refused(where: Any) -> None:
    try:
        tree = parse(where)
    except InvalidInput as error:
        assert str(error)
    else:
        assert parse(str(tree)) == tree


@pytest.mark.parametrize(
    ("where", "text"),
    [
        ({"lang": "en"}, 'lang = "en"'),
        (
            {"lang": "en", "year": {">=": 2020, "<": 2024}, "tags": ["a", "b"]},
            'lang = "en" and year >= 2020 and year < 2024 and tags in ("a", "b")',
        ),
        ({"path": {"~": "guides/**"}}, 'path ~ "guides/**"'),
        ({"or": [{"a": 1}, {"not": {"b": True, "c": {"!=": "x"}}}]}, 'a = 1 or not (b = true and c != "x")'),
        ({"and": [{"a": {"exists": True}}, {"b": {"exists": False}}]}, "exists(a) and not exists(b)"),
        ({"a": {"not in": [1, 2.5]}}, "a not in (1, 2.5)"),
        ({"d": {">": date(2024, 5, 1)}}, "d > 2024-05-01"),
        ({"d": datetime(2024, 5, 1, 10, 30)}, "d = 2024-05-01T10:30:00"),
        ({"a b": "it's"}, "\"a b\" == 'it\\'s'"),
    ],
)
def test_a_mapping_says_what_a_string_says(where: dict[str, Any], text: str) -> None:
    assert parse(where) == parse(text)


def test_and_binds_tighter_than_or_and_words_know_no_case() -> None:
    a, b, c = (Comparison(name, "=", (1,)) for name in "abc")
    assert parse("a = 1 OR b = 1 And c = 1") == Or((a, And((b, c))))
    assert parse("(a = 1 or b = 1) and not c = 1") == And((Or((a, b)), Not(c)))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        ("lang = en", 'character 8 (en): put text in quotes: "en"'),
        ('lang = "en', 'character 8 ("): this quotation mark has no partner'),
        ("lang", "character 5 (its end): after a field comes one of ="),
        ("lang like 'x'", "character 6 (like): after a field comes one of ="),
        ("(a = 1", "character 7 (its end): close the parenthesis"),
        ("a = 1)", 'character 6 ()): there is no "(" for it'),
        ("a = 1 b = 2", "character 7 (b): put `and` or `or` before it"),
        ("a = 1 && b = 2", "character 7 (&): write `and` and `or`"),
        ("!a = 1", "character 1 (!): write `not`"),
        ("a = 2024-13", "character 5 (2024-13): there is no such date"),
        ("a = 12abc", "character 5 (1): neither a number nor a date"),
        ("a = 1e999", "character 5 (1e999): the number is too large"),
        ("path ~ 3", "character 8: ~ takes a pattern in quotes"),
        ("draft > true", "character 9: true and false have no order"),
        ("a in 3", "character 6 (3): after `in` comes a list"),
        ("a in (1 2)", 'character 9 (2): put "," between values'),
        ("exists a", "character 8 (a): write exists(FIELD)"),
        ("or = 1", "character 1 (or): give the name of a field"),
        ("a = 1; DROP TABLE documents", "character 6 (;): this means nothing here"),
        ("a =", "character 4 (its end): give a value here"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_place(text: str, said: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse(text)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ({}, "where = {}"),
        ({"a": None}, "{'exists': False}"),
        ({"a": {"gt": 3}}, "where['a']['gt']: there is no such operator"),
        ({"or": [{"a": {"~": 3}}]}, "where['or'][0]['a']['~']: ~ takes a pattern"),
        ({"or": []}, "where['or'] = []"),
        ({"a": float("nan")}, "where['a']['='] = nan"),
        ({"a": []}, "a list of 1 to 1,000 values"),
        ({3: 1}, "where[3]"),
        (["a"], "where = ['a']"),
    ],
)
def test_what_is_wrong_in_a_mapping_is_named_with_its_place(where: Any, said: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse(where)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "start", "length"),
    [
        ("1970-01-01", 0, DAY),
        ("1970-02", 31 * DAY, 28 * DAY),
        ("1970-01-01T00:00", 0, 60_000_000),
        ("1970-01-01T01:00:01+01:00", 1_000_000, 1_000_000),
        ("1969-12-31 19:00:00.25-0500", 250_000, 1),
        ("2024-12", 20_058 * DAY, 31 * DAY),
        ("0001-01-01T00:00+14:00", -719_162 * DAY - 14 * 3_600_000_000, 60_000_000),
    ],
)
def test_dates_cover_what_they_name(text: str, start: int, length: int) -> None:
    assert parse_date(text) == Date(start, start + length, "")


@pytest.mark.parametrize("text", ["2024", "2024-00", "2024-02-30", "2024-01-01T24:00", "2024-1-1", "", "2024-05-01Z"])
def test_what_is_no_date(text: str) -> None:
    assert parse_date(text) is None


@given(st.datetimes(timezones=st.sampled_from([timezone.utc, timezone(timedelta(hours=5, minutes=45))])))
def test_times_agree_with_datetime(moment: datetime) -> None:
    found = parse_date(moment.isoformat(timespec="microseconds"))
    epoch = datetime(1970, 1, 1, tzinfo=timezone.utc)
    assert found is not None and found.start == (moment - epoch) // timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("guides/**", ["/a/guides/x.md", "guides/b/c"], ["/a/guides", "/a/my guides/x"]),
        ("guides/", ["/a/guides/x.md"], ["/a/guides"]),
        ("/guides/**", ["/guides/x"], ["/a/guides/x"]),
        ("*.md", ["/a/b.md", "b.md"], ["/a/b.mdx", "/b.md/c"]),
        ("a/*.md", ["/x/a/b.md"], ["/x/a/b/c.md"]),
        ("a/**/c.md", ["/a/c.md", "/x/a/q/r/c.md"], ["/a/cc.md", "/c.md"]),
        ("a/**/b/**/c", ["/a/b/c", "/a/x/b/y/z/c"], ["/a/c/b", "/b/a/c"]),
        ("/a/**/b/?", ["/a/b/c", "/a/b/b/c"], ["/x/a/b/c", "/a/b/cc"]),
        ("[!a-c]x", ["/dx"], ["/ax"]),
        ("**", ["x", "/a/b"], []),
        ("/a/b", ["/a/b"], ["/a/b/c", "/c/a/b"]),
        ("table.csv", ["/d/table.csv"], ["/d/table_csv"]),
    ],
)  # fmt: skip
def test_patterns_of_paths(pattern: str, yes: list[str], no: list[str]) -> None:
    fits = path_matcher(pattern)
    assert [p for p in yes + no if fits(p)] == yes
    assert all(literal_part(pattern) in path for path in yes)


glob_pieces = st.lists(st.sampled_from(["a", "b", "/", "*", "?", "[ab]", "[!a]", "**", "[", "]", "."]), max_size=8)


@given(glob_pieces.map("".join), st.text("ab/.[]", max_size=10))
@example("./", "")
def test_every_match_holds_the_literal_part(pattern: str, text: str) -> None:
    for matcher in (path_matcher, text_matcher):
        if matcher(pattern)(text):
            assert literal_part(pattern) in text


def test_no_pattern_takes_long() -> None:
    assert not text_matcher("*a" * 400 + "b")("a" * 1_000)
    assert not path_matcher("**/a/" * 150 + "b")("/a" * 500)


def test_a_json_filter_needs_nothing_but_json() -> None:
    where = json.loads('{"year": {">=": 2020}, "or": [{"lang": ["en", "de"]}, {"draft": false}]}')
    assert str(parse(where)) == 'year >= 2020 and (lang in ("en", "de") or draft = false)'
