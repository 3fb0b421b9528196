"""Filters: which documents a search may look at. The grammar, its tree, and the same as a Python mapping.

```
filter     = and-part { "or" and-part }
and-part   = part { "and" part }
part       = "not" part | "(" filter ")" | "exists" "(" field ")" | field operator value
           | field [ "not" ] "in" "(" value { "," value } ")"
operator   = "=" | "!=" | "<" | "<=" | ">" | ">=" | "~" | "!~"
field      = name { "." name } | quoted text, for names with blanks or signs in them
value      = "text" or 'text' | number | date | true | false
```

What they mean, here and nowhere else:

- A document without the field does not match, whatever the operator: `!=`, `!~` and `not in` ask for documents that
  have the field and no such value. `not` is the complement: `not lang = "en"` also matches those without a language.
- A list matches if any of its members does; `a.b` is the value of `b` in `a`, also where `a` is a list of objects.
- A number is compared with numbers and with texts that are one ("2020" in a CSV file), a text in quotes with texts, by
  code points, a date with texts that are an ISO 8601 date. Texts are compared by their first 1,000 characters.
- A date may be a month (2024-05), a day, or a time (2024-05-01T10:30, with Z or +02:00, else UTC) and stands for all of
  it: `= 2024-05` is any time in May, `> 2024-05` after it, `<= 2024-05` until its end. A date in a document stands for
  its beginning.
- `~` compares the whole text with a pattern: `*` any characters, `?` one, `[a-z]` one of these, `[!a-z]` none of these.
  In `path` these stop at "/"; `**` in place of a folder is any number of them, at the end all that lies below; and a
  pattern that does not begin with "/" may begin at any folder.
- `path` is a document's source, or its id where it came from no file; `title` its title; `type` the suffix of its file
  without the dot; `lang` its metadata's `lang` or `language`, where "en" also finds "en-GB"; `modified` when its file
  was last changed. `type` and `lang` know no upper case. All else is metadata; `metadata.type` is what that calls so.
  What metadata hold under a name that begins with two underscores is kept, but neither found nor shown.
"""

from __future__ import annotations

import dataclasses
import math
import re
from calendar import monthrange
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, NoReturn

from semsearch.errors import InvalidInput
from semsearch.types import storable

__all__ = [
    "BUILT_IN", "NEGATED", "And", "Comparison", "Date", "Exists", "Filter", "Not", "Or", "Value", "parse", "parse_date",
]  # fmt: skip

BUILT_IN = ("path", "title", "type", "lang", "modified")
NEGATED = {"!=": "=", "!~": "~", "not in": "in"}
OPERATORS = ("=", "!=", "<", "<=", ">", ">=", "~", "!~")
MAX_CHARS = 20_000  # of a filter
MAX_DEPTH = 40  # parentheses and `not` within one another
MAX_VALUES = 1_000  # of one `in`
MAX_DIGITS = 300  # of a number; floats end there
WORDS = ("and", "or", "not", "in", "exists", "true", "false")

_MONTH = r"(?P<year>\d{4})-(?P<month>\d\d)"
_CLOCK = r"(?P<hour>\d\d):(?P<minute>\d\d)(?::(?P<second>\d\d)(?:\.(?P<fraction>\d{1,6})\d*)?)?"
_ZONE = r"Z|z|[+-]\d\d(?::?\d\d)?"
_DATE = rf"{_MONTH}(?:-(?P<day>\d\d)(?:[Tt ]{_CLOCK}[ ]?(?P<zone>{_ZONE})?)?)?"
_DATE_ONLY = re.compile(_DATE, re.ASCII)
_NAME = r"[^\W\d]\w*(?:-\w+)*"
_TOKEN = re.compile(
    rf"""[ \t\r\n]*(?:
        (?P<date>\d{{4}}-\d\d(?:-\d\d(?:[Tt]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:{_ZONE})?)?)?(?![\w.:-]))
      | (?P<number>-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?(?![\w.]))
      | (?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
      | (?P<name>{_NAME}(?:\.(?:{_NAME}|\d+))*)
      | (?P<sign>!=|!~|<=|>=|==|[=<>~(),])
      | (?P<end>\Z)
    )""",
    re.VERBOSE | re.DOTALL,
)
_MICROSECONDS = 1_000_000


@dataclass(frozen=True, slots=True)
class Date:
    """A month, a day or a point in time, as ISO 8601; equal where it covers the same time.

    Attributes:
        start, end: microseconds since the epoch; the first that belongs to it, and the first that does not.
        text: how it was written.
    """

    start: int
    end: int
    text: str = dataclasses.field(compare=False)


Value = str | int | float | bool | Date


@dataclass(frozen=True, slots=True)
class Comparison:
    """A field's values and an operator: one value, or one or more for `in` and `not in`. `at`: where it was read."""

    field: str
    operator: str
    values: tuple[Value, ...]
    at: str = dataclasses.field(default="", compare=False, repr=False)

    def __str__(self) -> str:
        values = [_written(value) for value in self.values]
        return f"{_named(self.field)} {self.operator} " + (
            f"({', '.join(values)})" if self.operator in ("in", "not in") else values[0]
        )


@dataclass(frozen=True, slots=True)
class Exists:
    """Whether a document has a field."""

    field: str
    at: str = dataclasses.field(default="", compare=False, repr=False)

    def __str__(self) -> str:
        return f"exists({_named(self.field)})"


@dataclass(frozen=True, slots=True)
class Not:
    """All documents that a filter leaves out."""

    part: Filter

    def __str__(self) -> str:
        return f"not {_grouped(self.part)}"


@dataclass(frozen=True, slots=True)
class And:
    """Documents that match each of two or more parts."""

    parts: tuple[Filter, ...]

    def __str__(self) -> str:
        return " and ".join(map(_grouped, self.parts))


@dataclass(frozen=True, slots=True)
class Or:
    """Documents that match one of two or more parts."""

    parts: tuple[Filter, ...]

    def __str__(self) -> str:
        return " or ".join(map(_grouped, self.parts))


Filter = Comparison | Exists | Not | And | Or


def parse(where: str | Mapping[str, Any]) -> Filter:
    """Read a filter, written in the grammar above or as a mapping.

    A mapping's entries must all match: `{"lang": "en", "year": {">=": 2020, "<": 2024}, "tags": ["a", "b"]}` is
    `lang = "en" and year >= 2020 and year < 2024 and tags in ("a", "b")`. Beside the operators there are
    `{"exists": True}`, `{"in": [...]}` and `{"not in": [...]}`; `{"or": [...]}`, `{"and": [...]}` and `{"not": ...}`
    hold mappings. Dates are `datetime.date` or `datetime.datetime`, the latter in UTC where they name no zone.

    Raises:
        InvalidInput: it cannot be read; the text names the place and what would do.
    """
    if isinstance(where, str):
        return _Parser(storable(where)).parse()
    if isinstance(where, Mapping):
        return _of_mapping(where, "where", 0)
    raise InvalidInput(f"where = {where!r}: give a filter as a string or a mapping, or None for all documents")


def parse_date(text: str) -> Date | None:
    """An ISO 8601 month, day or time of day; None for any other text."""
    match = _DATE_ONLY.fullmatch(text) if 7 <= len(text) <= 64 and text[0].isdigit() else None
    if match is None:
        return None
    year, month, day = int(match["year"]), int(match["month"]), int(match["day"] or 1)
    try:
        start = (date(year, month, day).toordinal() - date(1970, 1, 1).toordinal()) * 86_400 * _MICROSECONDS
    except ValueError:
        return None
    if match["hour"] is None:
        days = 1 if match["day"] else monthrange(year, month)[1]
        return Date(start, start + days * 86_400 * _MICROSECONDS, text)
    hour, minute, second = int(match["hour"]), int(match["minute"]), int(match["second"] or 0)
    fraction = int((match["fraction"] or "").ljust(6, "0"))
    zone = _zone_minutes(match["zone"])
    if hour > 23 or minute > 59 or second > 59 or zone is None:
        return None
    start += ((hour * 60 + minute - zone) * 60 + second) * _MICROSECONDS + fraction
    length = 1 if match["fraction"] else _MICROSECONDS if match["second"] else 60 * _MICROSECONDS
    return Date(start, start + length, text)


def _zone_minutes(zone: str | None) -> int | None:
    """Minutes east of UTC; None for a zone that cannot be."""
    if zone is None or zone in "Zz":
        return 0
    hours, minutes = int(zone[1:3]), int(zone[3:].lstrip(":") or 0)
    return (hours * 60 + minutes) * (-1 if zone[0] == "-" else 1) if hours < 24 and minutes < 60 else None


class _Parser:
    """Recursive descent; one token ahead."""

    def __init__(self, text: str) -> None:
        if len(text) > MAX_CHARS:
            raise InvalidInput(f"the filter has {len(text):,} characters; {MAX_CHARS:,} are the most")
        self._text = text
        self._depth = 0
        self._kind, self._token, self._start, self._end = "", "", 0, 0
        self._next()

    def parse(self) -> Filter:
        if self._kind == "end":
            raise InvalidInput('the filter is empty; give one such as: lang = "en" and year >= 2020')
        found = self._any()
        if self._kind != "end":
            self._fail("put `and` or `or` before it" if self._token != ")" else 'there is no "(" for it')
        return found

    def _any(self) -> Filter:
        parts = [self._all()]
        while self._take_word("or"):
            parts.append(self._all())
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def _all(self) -> Filter:
        parts = [self._part()]
        while self._take_word("and"):
            parts.append(self._part())
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def _part(self) -> Filter:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._fail(f"more than {MAX_DEPTH} parentheses or `not` within one another; write it flatter")
        try:
            if self._take_word("not"):
                return Not(self._part())
            if self._take_sign("("):
                found = self._any()
                if not self._take_sign(")"):
                    self._fail('close the parenthesis with ")", or put `and` or `or` before this')
                return found
            if self._take_word("exists"):
                return self._exists()
            return self._comparison()
        finally:
            self._depth -= 1

    def _exists(self) -> Filter:
        if not self._take_sign("("):
            self._fail("write exists(FIELD)")
        at, name = self._at(), self._field()
        if not self._take_sign(")"):
            self._fail('close the parenthesis with ")"')
        return Exists(name, at)

    def _comparison(self) -> Filter:
        at, name = self._at(), self._field()
        negated = self._take_word("not")
        if self._take_word("in"):
            return Comparison(name, "not in" if negated else "in", self._list(), at)
        operator = "=" if self._token == "==" else self._token
        if negated or self._kind != "sign" or operator not in OPERATORS:
            self._fail(f"after a field comes one of {' '.join(OPERATORS)}, `in` or `not in`")
        self._next()
        at_value, value = self._at(), self._value()
        _check_fits(operator, value, at_value)
        return Comparison(name, operator, (value,), at)

    def _list(self) -> tuple[Value, ...]:
        if not self._take_sign("("):
            self._fail('after `in` comes a list, as in: in ("en", "de")')
        values = [self._value()]
        while self._take_sign(","):
            values.append(self._value())
        if not self._take_sign(")"):
            self._fail('put "," between values and ")" after the last')
        if len(values) > MAX_VALUES:
            self._fail(f"`in` takes {MAX_VALUES:,} values at most")
        return tuple(values)

    def _field(self) -> str:
        kind, token = self._kind, self._token
        if kind not in ("name", "text") or token.lower() in WORDS or not _unquoted(kind, token):
            self._fail('give the name of a field here, such as path, lang or a metadata key ("in quotes" if need be)')
        self._next()
        return _unquoted(kind, token)

    def _value(self) -> Value:
        kind, token = self._kind, self._token
        value: Value | None = None
        if kind == "text":
            value = _unquoted(kind, token)
        elif kind == "date":
            value = parse_date(token)
            if value is None:
                self._fail("there is no such date")
        elif kind == "number":
            value = _number(token)
            if value is None:
                self._fail("the number is too large")
        elif token.lower() in ("true", "false"):
            value = token.lower() == "true"
        elif kind == "name":
            self._fail(f'put text in quotes: "{token}"')
        if value is None:
            self._fail("give a value here: a text in quotes, a number, a date such as 2024-05-01, true or false")
        self._next()
        return value

    def _next(self) -> None:
        match = _TOKEN.match(self._text, self._end)
        if match is None:
            rest = self._text[self._end :].lstrip(" \t\r\n")
            self._start, self._token = len(self._text) - len(rest), rest[:1]
            self._fail(_advice(rest))
        self._kind = str(match.lastgroup)
        self._token, self._start, self._end = match[self._kind], match.start(self._kind), match.end()

    def _take_word(self, word: str) -> bool:
        return self._take("name", word)

    def _take_sign(self, sign: str) -> bool:
        return self._take("sign", sign)

    def _take(self, kind: str, token: str) -> bool:
        is_it = self._kind == kind and self._token.lower() == token
        if is_it:
            self._next()
        return is_it

    def _at(self) -> str:
        return f"the filter, character {self._start + 1}"

    def _fail(self, advice: str) -> NoReturn:
        shown = self._token if len(self._token) <= 40 else f"{self._token[:40]}…"
        what = f" ({shown})" if shown else " (its end)"
        raise InvalidInput(f"{self._at()}{what}: {advice}")


def _advice(rest: str) -> str:
    """What to do about a place where no token begins."""
    if rest[:1] in "\"'":
        return f"this quotation mark has no partner; close the text with {rest[0]}"
    if rest[:1] in "&|":
        return "write `and` and `or`"
    if rest[:1] == "!":
        return "write `not`, or one of !=, !~"
    if rest[:1].isdigit() or rest[:1] == "-":
        return "neither a number nor a date such as 2024-05-01; put text in quotes"
    return "this means nothing here; put names and texts with signs in them in quotes"


def _unquoted(kind: str, token: str) -> str:
    return re.sub(r"\\([\\\"'])", r"\1", token[1:-1]) if kind == "text" else token


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _number(token: str) -> int | float | None:
    """None where it is too large."""
    if len(token) > MAX_DIGITS:
        return None
    if token.lstrip("-").isdigit():
        return int(token)
    value = float(token)
    return value if math.isfinite(value) else None


def _check_fits(operator: str, value: Value, at: str) -> None:
    if "~" in operator and not isinstance(value, str):
        raise InvalidInput(f'{at}: {operator} takes a pattern in quotes, as in: path {operator} "guides/**"')
    if isinstance(value, bool) and ("<" in operator or ">" in operator):
        raise InvalidInput(f"{at}: true and false have no order; use = or !=")


def _written(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Date):
        return value.text.replace(" ", "T", 1).replace(" ", "")
    return _quoted(value) if isinstance(value, str) else repr(value)


def _named(name: str) -> str:
    match = _TOKEN.fullmatch(name)
    plain = match is not None and match["name"] == name and name.lower() not in WORDS
    return name if plain else _quoted(name)


def _grouped(part: Filter) -> str:
    return f"({part})" if isinstance(part, And | Or) else str(part)


def _of_mapping(where: Any, at: str, depth: int) -> Filter:
    """A mapping of fields, `and`, `or` and `not`; `at` is how one would write where it is."""
    if depth > MAX_DEPTH:
        raise InvalidInput(f"{at}: more than {MAX_DEPTH} filters within one another; make it flatter")
    if not isinstance(where, Mapping) or not where:
        raise InvalidInput(f'{at} = {where!r}: give a mapping that is not empty, such as {{"lang": "en"}}')
    parts: list[Filter] = []
    for name, wanted in where.items():
        here = f"{at}[{name!r}]"
        if not isinstance(name, str) or not name:
            raise InvalidInput(f"{here}: the name of a field is a string that is not empty")
        if name == "not":
            parts.append(Not(_of_mapping(wanted, here, depth + 1)))
        elif name in ("and", "or"):
            if not isinstance(wanted, Sequence) or isinstance(wanted, str) or not wanted:
                raise InvalidInput(f"{here} = {wanted!r}: give a list of mappings")
            inner = [_of_mapping(part, f"{here}[{i}]", depth + 1) for i, part in enumerate(wanted)]
            parts.append(inner[0] if len(inner) == 1 else (And if name == "and" else Or)(tuple(inner)))
        else:
            parts.extend(_of_field(storable(name), wanted, here))
    return parts[0] if len(parts) == 1 else And(tuple(parts))


def _of_field(name: str, wanted: Any, at: str) -> Iterator[Filter]:
    """The conditions on one field: a value, a list for `in`, or a mapping of operators."""
    if not isinstance(wanted, Mapping):
        is_list = isinstance(wanted, list | tuple | set | frozenset)
        wanted = {"in" if is_list else "=": wanted}
    if not wanted:
        raise InvalidInput(f'{at} is empty; give a value or an operator, such as {{">=": 2020}}')
    for operator, value in wanted.items():
        here = f"{at}[{operator!r}]"
        if operator == "exists":
            if not isinstance(value, bool):
                raise InvalidInput(f"{here} = {value!r}: give True or False")
            yield Exists(name, at) if value else Not(Exists(name, at))
        elif operator in ("in", "not in"):
            if not isinstance(value, list | tuple | set | frozenset) or not 1 <= len(value) <= MAX_VALUES:
                raise InvalidInput(f"{here}: give a list of 1 to {MAX_VALUES:,} values")
            yield Comparison(name, operator, tuple(_of_value(v, here) for v in value), at)
        elif operator in (*OPERATORS, "=="):
            operator, value = operator.replace("==", "="), _of_value(value, here)
            _check_fits(operator, value, here)
            yield Comparison(name, operator, (value,), at)
        else:
            known = ", ".join((*OPERATORS, "in", "not in", "exists"))
            raise InvalidInput(f"{here}: there is no such operator; use one of {known}")


def _of_value(value: Any, at: str) -> Value:
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, bool):
        return value
    if isinstance(value, int) and abs(value) < 10 ** (MAX_DIGITS - 1):
        return int(value)
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    if isinstance(value, date | datetime) and (found_date := parse_date(value.isoformat())) is not None:
        return found_date
    advice = "; for documents without it: {'exists': False}" if value is None else ""
    raise InvalidInput(f"{at} = {value!r}: give a string, a finite number, True, False or a date{advice}")
