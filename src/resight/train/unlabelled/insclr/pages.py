"""The evidence as pages: one a stage with sample anchors, and one over all stages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup

from resight.data.imageset import ImageSet
from resight.evaluate.report.plots import figure
from resight.evaluate.report.render import write_page
from resight.evaluate.report.thumbnails import LoadThumbnail, data_uri, open_thumbnails
from resight.train.unlabelled.insclr.record import Checked, Evidence, Item, Sample, Similarities
from resight.train.unlabelled.insclr.words import sentences
from resight.train.unlabelled.quality import BINS
from resight.train.unlabelled.shown import over_stages, percent

PAGE = "evidence.html"
_SIDES = (80, 64, 48, 32, 16)  # pixels of a thumbnail: the first with which all fit
_ROOM = 2_200_000  # characters of all thumbnails of a page
_TITLES = {
    "kept": "neighbours that stay",
    "filtered": "filtered neighbours",
    "initial": "positives at once",
    "joined": "joined in rounds",
    "undecided": "undecided",
    "hard": "hard negatives",
}
_POSITIVE = ("kept", "initial", "joined")
_COLOURS = {"random": "#8a8f98", "nearest": "#3f7fd8", "mined": "#2e9e5b"}
_KINDS = {"random": "random pairs", "nearest": "nearest neighbours", "mined": "mined positives"}


@dataclass(frozen=True)
class _Picture:
    source: str
    title: str
    shape: str  # CSS class: query, right, wrong, or nothing
    caption: str
    mark: str = ""


@dataclass(frozen=True)
class _Group:
    title: str
    count: int
    pictures: list[_Picture]


@dataclass(frozen=True)
class _Sheet:
    anchor: _Picture
    path: str
    object: str | None
    groups: list[_Group]


def write_stage(
    folder: Path,
    evidence: Evidence,
    images: ImageSet,
    *,
    load_thumbnail: LoadThumbnail | None = None,
) -> Path:
    """Write folder/evidence.json and folder/evidence.html; the path of the page.

    The page is one file with everything inside, below 3 MB. load_thumbnail gives a small picture
    of a row, or None; by default the file is opened. Raises OSError when it can't be written.
    """
    evidence.save(folder)
    sources = _thumbnails(evidence.samples, load_thumbnail or open_thumbnails(images))
    return write_page(
        folder / PAGE,
        "stage.html.j2",
        package=__package__,
        title=f"Stage {evidence.stage}: what it learned from",
        one=evidence,
        source=images.source,
        sentences=sentences(evidence),
        numbers=_numbers(evidence),
        similarities=Markup(similarity_plot(evidence.similarities)),
        sheets=[_sheet(sample, images, sources) for sample in evidence.samples],
    )


def write_index(path: Path, found: Sequence[Evidence], images: ImageSet) -> Path:
    """Write the page over the stages so far, with links to theirs; its path.

    Raises OSError when it can't be written.
    """
    return write_page(
        path,
        "stages.html.j2",
        package=__package__,
        title="What was learned from, stage by stage",
        source=images.source,
        found=found,
        table=_table(found),
        checked=any(one.checked for one in found),
        plots=[(title, Markup(svg)) for title, svg in _over_stages(found)],
    )


def _thumbnails(samples: Sequence[Sample], load: LoadThumbnail) -> dict[int, str]:
    """row -> picture, at the largest size with which all fit in the page."""
    times = Counter(one.anchor for one in samples)
    times.update(item.row for one in samples for some in one.items.values() for item in some)
    pictures = {row: load(row) for row in times}
    for side in _SIDES:
        made = {row: data_uri(picture, side) for row, picture in pictures.items()}
        if sum(len(made[row]) * count for row, count in times.items()) <= _ROOM:
            break
    return made


def _sheet(sample: Sample, images: ImageSet, sources: dict[int, str]) -> _Sheet:
    paths, objects = images.table["path"], images.table["object"]
    own = objects[sample.anchor]

    def picture(item: Item, group: str) -> _Picture:
        theirs = objects[item.row]
        same = None if own is None or theirs is None else own == theirs
        # A mistake is red: a positive of another object, a negative of the anchor's own.
        shape = ""
        if same is not None and group != "undecided":
            good = same is (group in _POSITIVE)
            shape = "wrong" if not good else "right" if same else ""
        title = paths[item.row] + ("" if theirs is None else f" · {theirs}")
        caption = f"{item.similarity:.2f}" + (f" · {item.round}" if group == "joined" else "")
        mark = "" if same is None else "✓" if same else "✗"
        return _Picture(sources[item.row], title, shape, caption, mark)

    path = paths[sample.anchor]
    anchor = _Picture(sources[sample.anchor], path, "query", "anchor")
    groups = [
        _Group(title, sample.counts[name], [picture(item, name) for item in sample.items[name]])
        for name, title in _TITLES.items()
        if sample.counts[name]
    ]
    return _Sheet(anchor, path, own, groups)


def _numbers(one: Evidence) -> list[tuple[str, str, str]]:
    """Name, value, what it means."""
    similar, own = one.similarities, one.checked
    found = [
        ("mutual neighbours", percent(one.mutual), "of the 10 nearest that have each other"),
        ("kept from the stage before", percent(one.as_before), "of the 10 nearest neighbours"),
        ("median nearest neighbour", _plain(similar.nearest_median), "cosine similarity"),
        ("mean of random pairs", _plain(similar.random_mean), "cosine similarity"),
        (
            "random pairs above that median",
            percent(similar.random_above_nearest),
            "0 where neighbours stand apart from chance",
        ),
    ]
    if own is None:
        return found
    for n, share in own.first.items():
        first = "nearest neighbour right" if n == "1" else f"{n} nearest neighbours right"
        few = "" if n == "1" else "; objects of few images lower it"
        found.append((first, percent(share), "all images" + few))
    found += [
        ("neighbours that stay: right", percent(own.kept), "precision"),
        ("filtered neighbours: of the object", percent(own.filtered_right), "lost positives"),
        ("positives at once: right", percent(own.initial), "precision"),
        ("joined in rounds: right", percent(own.joined), "precision"),
        ("mined in all: right", percent(own.mined), "precision"),
        ("hard negatives: of the object", percent(own.hard_right), "false negatives"),
        ("of an object's images kept or mined", percent(own.recall), "recall, mean of anchors"),
        ("of an object's images looked at", percent(own.reachable), "what recall could reach"),
    ]
    return found


def _plain(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _table(found: Sequence[Evidence]) -> list[tuple[str, list[str]]]:
    """Rows of the table over the stages: name, one cell a stage; none where all are empty."""
    rows = [
        ("images learned from", [f"{one.rows:,}" for one in found]),
        ("neighbours that stay", [percent(one.means.kept_share) for one in found]),
        ("positives mined per anchor", [_number(one.means.mined) for one in found]),
        ("undecided", [_number(one.means.undecided) for one in found]),
        ("hard negatives", [_number(one.means.hard) for one in found]),
        ("mutual neighbours, of 10", [percent(one.mutual) for one in found]),
        ("10 nearest as before", [percent(one.as_before) for one in found]),
        ("median nearest neighbour", [_plain(one.similarities.nearest_median) for one in found]),
        ("mean of random pairs", [_plain(one.similarities.random_mean) for one in found]),
        *((name, [percent(share) for share in line]) for name, line in _checks(found).items()),
    ]
    return [(name, cells) for name, cells in rows if set(cells) != {"–"}]


def _checks(found: Sequence[Evidence]) -> dict[str, list[float | None]]:
    """What the labels say, a value a stage."""
    fields: dict[str, Callable[[Checked], float | None]] = {
        "nearest neighbour right": lambda one: one.first["1"],
        "10 nearest right": lambda one: one.first["10"],
        "neighbours that stay: right": lambda one: one.kept,
        "mined: right": lambda one: one.mined,
        "recall of positives": lambda one: one.recall,
        "hard negatives: of the object": lambda one: one.hard_right,
    }
    return {
        name: [None if one.checked is None else field(one.checked) for one in found]
        for name, field in fields.items()
    }


def similarity_plot(found: Similarities) -> str:
    """The three histograms, each scaled to its own total, where there is something."""
    counts = {name: np.array(getattr(found, name)) for name in _KINDS}
    filled = np.flatnonzero(sum(counts.values()))
    low, high = (filled[0], filled[-1] + 1) if len(filled) else (0, len(BINS) - 1)
    svg: list[str] = []
    with figure(svg) as axes:
        for name, label in _KINDS.items():
            if not counts[name].sum():
                continue
            shares = (100 * counts[name] / counts[name].sum())[low:high]
            bins = BINS[low : high + 1]
            axes.stairs(shares, bins, color=_COLOURS[name], fill=True, alpha=0.25)
            axes.stairs(shares, bins, color=_COLOURS[name], label=label, linewidth=1.4)
        axes.set(xlabel="cosine similarity", ylabel="pairs of a kind (%)")
        if len(filled):
            axes.legend(loc="best")
    return svg[0]


def _over_stages(found: Sequence[Evidence]) -> list[tuple[str, str]]:
    """Small plots: what labels say, where there are any, and what can be said without."""
    plots, stages = [], [one.stage for one in found]
    if any(one.checked for one in found):
        plots.append(("Checked against the labels", over_stages(stages, _checks(found))))
    without = {
        "neighbours that stay": [one.means.kept_share for one in found],
        "mutual neighbours": [one.mutual for one in found],
        "10 nearest as before": [one.as_before for one in found],
        "random pairs above the neighbours": [
            one.similarities.random_above_nearest for one in found
        ],
    }
    return [*plots, ("Without labels", over_stages(stages, without))]
