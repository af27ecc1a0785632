"""Tables at addresses, and tables of addresses."""

from __future__ import annotations

import numpy as np
import polars as pl

from resight.data.addresses import Address, Place, is_address, joined, place
from resight.data.imageset import ImageSet
from resight.data.stores import TABLE, TABLE_BYTES, NotRead, fetch, need, reachable
from resight.data.tables import ENDINGS
from resight.errors import UserError

_TRIED = 32


def table_at(address: Address) -> bytes:
    """The bytes of a table at an address.

    Raises UserError: it can't be read, or its name is no table's.
    """
    if address.suffix.lower() not in (*ENDINGS, ".parquet"):
        raise UserError(
            f"{address}: at an address only a table can be an image set: a .csv, .tsv or .parquet "
            "file with a column path"
        )
    need([address])
    try:
        return fetch(address, TABLE_BYTES, TABLE)
    except NotRead as reason:
        raise UserError(f"{address}: {reason}") from None


def addressed(
    table: pl.DataFrame, source: Place, lines: pl.Series
) -> tuple[pl.DataFrame, dict[str, str], list[tuple[int, str]]]:
    """The table with addresses as they may be seen, and what opens those that are cut.

    Paths of a table at an address are relative to it; file:// is a file. The third: (line, what
    is wrong), of addresses that differ in nothing that may be seen.

    Raises UserError: a package is missing that reads them.
    """
    paths = table["path"]
    away = paths.str.contains("://", literal=True).fill_null(False)
    if not isinstance(source, Address) and not away.any():
        return table, {}, []
    kinds: dict[str, Address] = {}
    opens: dict[str, str] = {}
    errors: list[tuple[int, str]] = []
    found = paths.to_list()
    for row, path in enumerate(found):
        if path is None:
            continue
        if not is_address(path):
            if not isinstance(source, Address):
                continue
            path = joined(source, path)
        try:
            where = place(path)
        except UserError as error:  # its text begins with the address
            errors.append((int(lines[row]), str(error)))
            continue
        if not isinstance(where, Address):
            found[row] = str(where)
            continue
        kinds.setdefault(where.protocol, where)
        found[row] = text = "".join(where)
        if text != where.whole and opens.setdefault(text, where.whole) != where.whole:
            errors.append((int(lines[row]), f"{text} stands already, with another query or user"))
    need(kinds.values())
    return table.with_columns(pl.Series("path", found, dtype=pl.String)), opens, errors


def check_reachable(images: ImageSet) -> None:
    """Raise UserError where not one of (a sample of) the images can be read: before hours pass."""
    paths = images.full_paths()
    chosen = np.unique(np.linspace(0, len(paths) - 1, min(_TRIED, len(paths))).round().astype(int))
    sample = [paths[row] for row in chosen.tolist()]
    if any(not isinstance(path, Address) and path.is_file() for path in sample):
        return
    away = [path for path in sample if isinstance(path, Address)]
    need({path.protocol: path for path in away}.values())
    reasons = reachable(away)
    if "" in reasons:
        return
    first = f"{away[0]}: {reasons[0]}" if away else f"{sample[0]}: no such file"
    raise UserError(
        f"{images.source}: none of its images can be read, of {len(sample):,} tried of "
        f"{len(images):,} (the first: {first})"
    )
