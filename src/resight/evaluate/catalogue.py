"""The built-in protocols: the benchmarks' own, and those for image sets of any origin."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from resight.errors import UserError
from resight.evaluate.protocols import Level, Protocol


@dataclass(frozen=True)
class Entry:
    """A protocol of the catalogue: which layout it is for ("" for any), what it is, its source."""

    protocol: Protocol
    layout: str
    about: str
    default: bool = True  # of its layout


_REID = Protocol("query-gallery", cross_camera=True, split="test")
_SHOP = Protocol("query-gallery", split="test", cutoffs=(1, 10, 20, 50))
_ALONE = Protocol("leave-one-out", split="test")
_LANDMARKS = Protocol(
    "query-gallery", split="test", ap="trapezoidal", cutoffs=(1, 5, 10),
    size=1024, resize="fit", scales=(1.0, 2**-0.5, 0.5),
)  # fmt: skip


def _named(protocol: Protocol, name: str) -> Protocol:
    return replace(protocol, name=name)


def _with_centroids(
    protocol: Protocol, name: str, about: str, legacy: bool = False
) -> Iterable[Entry]:
    layout = name
    yield Entry(_named(protocol, name), layout, about)
    centroid = replace(protocol, name=f"{name}-centroid", level="object")
    yield Entry(centroid, layout, "the same with one centroid an object (CTL, ICONIP 2021)")
    if legacy:
        old = replace(centroid, name=f"{name}-centroid-legacy", legacy=True)
        about = "LEGACY: the centroids of CTL's released code, for comparison with its figures"
        yield Entry(old, layout, about, default=False)


def _vehicles() -> Iterable[Entry]:
    for size in ("small", "medium", "large"):
        base = replace(_ALONE, rows=size, cutoffs=(1, 5))
        name = f"vehicleid-{size}"
        yield Entry(_named(base, name), "vehicleid", "leave one out (Smooth-AP, ECCV 2020)")
        drawn = replace(base, gallery_images=1, repeats=10, name=f"{name}-one-gallery")
        about = "one random gallery image a vehicle, mean of 10 draws (Liu et al., CVPR 2016)"
        yield Entry(drawn, "vehicleid", about)


def _revisited() -> Iterable[Entry]:
    rules = {
        "easy": (("easy",), ("junk", "hard")),
        "medium": (("easy", "hard"), ("junk",)),
        "hard": (("hard",), ("junk", "easy")),
    }
    for layout in ("roxford5k", "rparis6k"):
        for name, (positives, junk) in rules.items():
            protocol = replace(
                _LANDMARKS, positives=positives, junk=junk, precisions=(1, 5, 10),
                name=f"{layout}-{name}",
            )  # fmt: skip
            yield Entry(protocol, layout, f"{name.title()} (Radenovic et al., CVPR 2018)")


def _entries() -> Iterable[Entry]:
    yield from _with_centroids(
        _REID, "market1501", "matches by the query's camera are junk (Zheng et al., ICCV 2015)",
        legacy=True,
    )  # fmt: skip
    yield from _with_centroids(
        _REID, "dukemtmc", "as Market-1501 (Zheng et al., ICCV 2017)", legacy=True
    )
    yield from _with_centroids(_SHOP, "deepfashion", "test users' photos in test shops' photos")
    for base in _with_centroids(_SHOP, "deepfashion", "with the validation shops' photos too"):
        name = base.protocol.name.replace("deepfashion", "deepfashion-val-gallery")
        wider = replace(base.protocol, gallery="gallery_of_val", name=name)
        about = "the same, and the validation shops' photos in the gallery (CTL's code)"
        yield Entry(wider, "deepfashion", about, default=False)
    yield from _with_centroids(_SHOP, "street2shop", "all categories in one gallery (CTL's code)")
    yield Entry(
        replace(_SHOP, within="category", name="street2shop-per-category"), "street2shop",
        "each query in the gallery of its category (Kiapour et al., ICCV 2015)",
    )  # fmt: skip
    yield Entry(
        replace(_ALONE, name="sop", cutoffs=(1, 10, 100, 1000)), "sop",
        "every test image queries all others (Song et al., CVPR 2016)",
    )  # fmt: skip
    yield from _vehicles()
    yield Entry(
        replace(_ALONE, name="inat2018", cutoffs=(1, 4, 16, 32)), "inat2018",
        "retrieval split of classes, leave one out (Smooth-AP, ECCV 2020)",
    )  # fmt: skip
    yield Entry(_named(_ALONE, "vggface2"), "vggface2", "test ids, leave one out (Smooth-AP)")
    yield Entry(
        replace(_ALONE, name="ijbc", templates="template", min_images=5), "ijbc",
        "a video is one vector, ids of five or more, leave one out (Smooth-AP)",
    )  # fmt: skip
    yield from _revisited()
    for usage in ("public", "private"):
        yield Entry(
            replace(
                _LANDMARKS, ap="rectangular", ap_at=100, ap_divisor="min", positives=("positives",),
                queries=f"usage={usage}", name=f"gldv2-{usage}", cutoffs=(1, 10, 100),
            ),
            "gldv2", f"{usage} queries, mAP@100 (Weyand et al., CVPR 2020)",
        )  # fmt: skip
    yield Entry(
        Protocol(
            "query-gallery", split="test", positives=("positives",), size=256, resize="fit",
            name="instre", ap="trapezoidal", cutoffs=(1, 5, 10),
        ),
        "instre", "1,250 queries cut to their boxes (Iscen et al., CVPR 2017)",
    )  # fmt: skip
    yield Entry(Protocol("leave-one-out"), "", "every image queries all others")
    yield Entry(Protocol("query-gallery"), "", "rows of role query search those of role gallery")
    yield Entry(
        Protocol("query-gallery", cross_camera=True), "", "and matches by its own camera are junk"
    )
    yield Entry(
        Protocol("query-gallery", gallery_images=1, repeats=100, name="single-shot"), "",
        "one random gallery image an object, mean of 100 draws (CMC of CUHK03, Li et al., 2014)",
    )  # fmt: skip


ENTRIES: tuple[Entry, ...] = tuple(_entries())


def protocol(name: str) -> Protocol:
    """The protocol of a name in the catalogue, or of a YAML file.

    Raises UserError when there is none.
    """
    for entry in ENTRIES:
        if entry.protocol.name == name:
            return entry.protocol
    path = Path(name)
    if path.suffix.lower() in (".yaml", ".yml"):
        return Protocol.read(path)
    near = [entry.protocol.name for entry in ENTRIES if name.split("-")[0] in entry.protocol.name]
    names = ", ".join(near or [entry.protocol.name for entry in ENTRIES])
    raise UserError(f"no protocol {name!r}; there are {names}, or give a .yaml file")


def of_layout(layout: str, level: Level | None = None) -> list[Protocol]:
    """What a benchmark is evaluated by: its usual protocols, of one level if that is asked for."""
    usual = [e.protocol for e in ENTRIES if layout and e.layout == layout and e.default]
    return [one for one in usual if level is None or one.level == level]
