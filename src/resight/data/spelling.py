"""Labels that differ in writing only: "007" and "7.0", capitals, spaces, composed accents.

They are left as they are: two products may well be called "7" and "007". But a set in which they
mean one object is scored wrong and trained wrong, so they are named.
"""

from __future__ import annotations

import re
import unicodedata

import polars as pl

_WHOLE = re.compile(r"([+-]?)0*(\d+)(?:[.,]0*)?")


def plainly(name: str) -> str:
    """What stays of a name whatever way it is written.

    Without capitals, spaces at the ends or several in a row, invisible characters, the ways that
    Unicode has to write one character; of a whole number without zeros in front or behind a point.
    """
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    text = "".join(c for c in text if unicodedata.category(c) != "Cf")  # zero-width and the like
    text = " ".join(text.split())
    number = _WHOLE.fullmatch(text)
    return f"{number[1].replace('+', '')}{number[2]}" if number else text


def spellings(names: pl.Series) -> list[list[str]]:
    """Groups of different names that are plainly the same, each with the most frequent first.

    The groups stand in the order of their first names; null is no name.
    """
    counts = names.drop_nulls().value_counts(sort=True).rows()
    groups: dict[str, list[tuple[int, str]]] = {}
    for name, count in counts:
        groups.setdefault(plainly(str(name)), []).append((-count, str(name)))
    return sorted([name for _, name in sorted(group)] for group in groups.values() if group[1:])


def told_apart(name: str) -> str:
    """The name in quotes, with escapes for what can't be seen.

    That is: accents that are characters of their own, unusual spaces, what is invisible.
    """
    shown = []
    for character in name:
        seen = character.isprintable() and not unicodedata.combining(character)
        shown.append(character if seen else character.encode("unicode_escape").decode())
    return '"' + "".join(shown) + '"'
