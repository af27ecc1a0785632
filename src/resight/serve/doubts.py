"""What looks doubtful, as JSON: of the overview that there is, what still holds."""

from __future__ import annotations

from resight.search.overview import Overview
from resight.serve.catalogue import Catalogue, Json, image_json, page

KINDS = ("pairs", "outliers")


def doubtful(
    catalogue: Catalogue, made: Overview | None, kind: str, least: float, offset: int, limit: int
) -> Json:
    """A page of pairs nearly equal, or of images far from their object's others.

    Where an image was moved or removed since, what was doubtful for its sake is left out.
    """
    if made is None:
        empty: Json = page(0, offset, limit) | {"current": False, "usual": None}
        return empty | {"pairs": [], "outliers": []}
    version = int(made.told["version"])
    current = version == catalogue.gallery.engine.version()
    usual = float(made.told["usual"])
    head: Json = {"current": current, "usual": usual if usual == usual else None}
    if kind == "pairs":
        pairs = catalogue.once(("pairs", str(version)), lambda: _pairs(catalogue, made))
        pairs = [one for one in pairs if one["similarity"] >= least]
        some = pairs[offset : offset + limit]
        return page(len(pairs), offset, limit) | head | {"pairs": some, "outliers": []}
    far = catalogue.once(("outliers", str(version)), lambda: _outliers(catalogue, made))
    some = far[offset : offset + limit]
    return page(len(far), offset, limit) | head | {"pairs": [], "outliers": some}


def _pairs(catalogue: Catalogue, made: Overview) -> list[Json]:
    ids = sorted({int(id_) for id_ in made.pairs.reshape(-1)})
    rows = {row.id: row for row in catalogue.gallery.engine.rows(ids)}
    found = []
    for (a, b), alike in zip(made.pairs.tolist(), made.alike.tolist(), strict=True):
        if a not in rows or b not in rows:
            continue
        one, two = rows[a], rows[b]
        same = one.content is not None and one.content == two.content
        apart = None not in (one.object, two.object) and one.object != two.object
        if same or apart:
            both = [image_json(one), image_json(two)]
            found.append({"images": both, "similarity": round(alike, 6), "same_file": same})
    return found


def _outliers(catalogue: Catalogue, made: Overview) -> list[Json]:
    rows = {row.id: row for row in catalogue.gallery.engine.rows(made.far.tolist())}
    found = []
    for id_, object_id, alike in zip(
        made.far.tolist(), made.far_objects.tolist(), made.far_alike.tolist(), strict=True
    ):
        if id_ in rows and rows[id_].object_id == object_id:
            found.append(image_json(rows[id_]) | {"similarity": round(alike, 6)})
    return found
