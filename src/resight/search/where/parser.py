"""From the text of a filter to its tree: words by one regular expression, then one rule a function.

any   = all {"or" all}
all   = one {"and" one}
one   = "not" one | "(" any ")" | column test
test  = ("=" | "==" | "!=" | "<>" | "<" | "<=" | ">" | ">=") value
      | ["not"] "in" "(" value {"," value} ")" | ["not"] "like" text | "is" ["not"] "null"
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from resight.errors import UserError
from resight.search.where.tree import (
    OPERATORS,
    And,
    Compare,
    In,
    IsNull,
    Like,
    Not,
    Or,
    Tree,
    Value,
    number_in,
)

LONGEST, DEEPEST = 10_000, 100
_KEYWORDS = {"and", "or", "not", "in", "is", "null", "like", "true", "false"}
_WORD = re.compile(
    r"""\s*(?:
      (?P<text>'(?:[^']|'')*')
    | (?P<column>`(?:[^`]|``)+`)
    | (?P<double>"(?:[^"]|"")*")
    | (?P<number>[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?(?![\w.]))
    | (?P<name>\w+)
    | (?P<sign>==|!=|<>|<=|>=|[=<>(),])
    )""",
    re.VERBOSE,
)
_SYNONYMS = {"==": "=", "<>": "!="}
_A_VALUE = "a value (a number, 'text' in single quotes, true or false)"
_INSTEAD = {"&": "write 'and'", "|": "write 'or'", "!": "write 'not'", "%": "text needs quotes"}


@dataclass(frozen=True)
class _Word:
    """`kind` as in _WORD, "keyword" or "end"; `shown` as written, `content` as meant."""

    kind: str
    shown: str
    content: str
    at: int


def tree_of(text: str) -> Tree:
    """The tree that a filter's text says.

    Raises UserError: what was expected where, or a text that is too long or too deeply nested.
    """
    if len(text) > LONGEST:
        raise UserError(f"the filter has {len(text)} characters; at most {LONGEST} are read")
    return _Parser(text).whole()


class _Parser:
    def __init__(self, text: str):
        self.text = text
        self.words = self._words()
        self.place = 0
        self.depth = 0

    def _words(self) -> list[_Word]:
        words, at, end = [], 0, len(self.text.rstrip())
        while at < end:
            found = _WORD.match(self.text, at)
            kind = found.lastgroup if found else None
            if found is None or kind is None:
                at += len(self.text[at:]) - len(self.text[at:].lstrip())
                raise self._unreadable(at)
            shown, start = found[kind], found.start(kind)
            content = shown
            if kind in ("text", "column", "double"):
                content = shown[1:-1].replace(shown[0] * 2, shown[0])
            elif kind == "name" and shown.lower() in _KEYWORDS:
                kind, content = "keyword", shown.lower()
            elif kind == "sign":
                content = _SYNONYMS.get(shown, shown)
            if any(ch == "\0" or "\ud800" <= ch <= "\udfff" for ch in content):
                raise self._wrong("it holds characters that no text can have", start)
            words.append(_Word(kind, shown, content, start))
            at = found.end()
        return [*words, _Word("end", "", "", end)]

    def _unreadable(self, at: int) -> UserError:
        character = self.text[at]
        if character in "'\"`":
            return self._wrong(f"the quote {character} is never closed", at)
        if character in "‘’‚“”„´":
            return self._wrong(f"{character} is no quote here; write '", at)
        hint = _INSTEAD.get(character, "a column's name with it stands in `backticks`")
        return self._wrong(f"{character!r} means nothing here; {hint}", at)

    def _wrong(self, what: str, at: int) -> UserError:
        """The error: the text, what is wrong and at which character, counted from 1."""
        first = max(0, at - 40)
        part = self.text[first : first + 80]
        shown = ("..." if first else "") + part + ("..." if first + 80 < len(self.text) else "")
        shown = "".join(ch if ch.isprintable() else " " for ch in shown)
        what = "".join(ch if ch.isprintable() else " " for ch in what)
        return UserError(f"filter {shown!r}, character {at + 1}: {what}")

    def _expected(self, what: str, hint: str = "") -> UserError:
        word = self.words[self.place]
        shown = word.shown if len(word.shown) <= 40 else word.shown[:37] + "..."
        found = "the filter ends" if word.kind == "end" else f"found {shown}"
        return self._wrong(f"expected {what}, {found}{hint}", word.at)

    def _take(self, *contents: str) -> str | None:
        """The next word if it is one of these keywords or signs."""
        word = self.words[self.place]
        if word.kind not in ("keyword", "sign") or word.content not in contents:
            return None
        self.place += 1
        return word.content

    def whole(self) -> Tree:
        tree = self._any()
        if self.words[self.place].kind != "end":
            raise self._expected("'and', 'or' or the end")
        return tree

    def _any(self) -> Tree:
        parts = [self._all()]
        while self._take("or"):
            parts.append(self._all())
        return Or(tuple(parts)) if len(parts) > 1 else parts[0]

    def _all(self) -> Tree:
        parts = [self._one()]
        while self._take("and"):
            parts.append(self._one())
        return And(tuple(parts)) if len(parts) > 1 else parts[0]

    def _one(self) -> Tree:
        begins = self._take("not", "(")
        if begins is None:
            return self._test(self._column())
        self.depth += 1
        if self.depth > DEEPEST:
            raise self._wrong(f"nested deeper than {DEEPEST}", self.words[self.place - 1].at)
        if begins == "not":
            tree: Tree = Not(self._one())
        else:
            tree = self._any()
            if not self._take(")"):
                raise self._expected("'and', 'or' or ')'")
        self.depth -= 1
        return tree

    def _column(self) -> str:
        word = self.words[self.place]
        if word.kind not in ("name", "column", "double") or not word.content:
            hint = ""
            if word.kind == "keyword":
                hint = f"; a column of this name stands in backticks: `{word.shown}`"
            elif word.kind in ("text", "number"):
                hint = "; a column is written to the left of its value"
            raise self._expected("a column's name", hint)
        self.place += 1
        return word.content

    def _test(self, column: str) -> Tree:
        op = self._take(*OPERATORS)
        if op:
            return Compare(column, op, self._value())
        if self._take("is"):
            negated = self._take("not")
            if not self._take("null"):
                raise self._expected("'null'" if negated else "'null' or 'not null'")
            return Not(IsNull(column)) if negated else IsNull(column)
        negated = self._take("not")
        if self._take("in"):
            test: Tree = In(column, self._values())
        elif self._take("like"):
            test = Like(column, self._pattern())
        elif negated:
            raise self._expected("'in' or 'like'")
        else:
            raise self._expected("a comparison (=, !=, <, <=, >, >=, in, like, is null)")
        return Not(test) if negated else test

    def _value(self) -> Value:
        word = self.words[self.place]
        if word.kind == "number":
            number = number_in(word.content)
            if number is None or not math.isfinite(number):
                raise self._expected("a number below 1e308")
            value: Value = number
        elif word.kind in ("text", "double"):
            value = word.content
        elif word.kind == "keyword" and word.content in ("true", "false"):
            value = word.content == "true"
        else:
            hint = f"; as text it is '{word.shown}'" if word.kind == "name" else ""
            if word.content == "null":
                hint = "; write 'is null' or 'is not null'"
            raise self._expected(_A_VALUE, hint)
        self.place += 1
        return value

    def _values(self) -> tuple[Value, ...]:
        if not self._take("("):
            raise self._expected("'(' and values")
        values = [self._value()]
        while self._take(","):
            values.append(self._value())
        if not self._take(")"):
            raise self._expected("',' or ')'")
        return tuple(values)

    def _pattern(self) -> str:
        word = self.words[self.place]
        if word.kind not in ("text", "double"):
            raise self._expected("a pattern such as 'abc%'")
        backslashes = len(word.content) - len(word.content.rstrip("\\"))
        if backslashes % 2:
            raise self._wrong("a pattern ends in \\; a backslash itself is \\\\", word.at)
        self.place += 1
        return word.content
