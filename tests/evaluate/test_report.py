"""The page: written, self-contained, safe with hostile names; its hits are those of the scores."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from pages import Page
from resight.data.imageset import ImageSet, normalise
from resight.evaluate.report import write_report
from resight.evaluate.report.hits import first_hits, first_right
from resight.evaluate.report.thumbnails import open_thumbnails
from resight.evaluate.scores import evaluate

HOSTILE = "<script>alert('1')</script>&\"x\""


def make(count: int = 40, **columns) -> tuple[np.ndarray, ImageSet]:
    """Random features of 8 objects under 3 cameras, one object with a hostile name."""
    rng = np.random.default_rng(0)
    names = [HOSTILE, *"bcdefgh"]
    frame = pl.DataFrame(
        {
            "path": [f"folder/{HOSTILE}{i}.jpg" for i in range(count)],
            "object": [names[i % 8] for i in range(count)],
            "camera": [f"<b>{i % 3}</b>" for i in range(count)],
        }
        | columns
    )
    return rng.normal(size=(count, 5)), ImageSet(normalise(frame), Path("."), source="<i>set</i>")


def thumbnail(row: int) -> Image.Image | None:
    return Image.new("RGB", (300, 200), (row, 0, 0)) if row % 5 else None


def test_the_page_stands_alone_and_escapes_names(tmp_path):
    features, images = make()
    scores = [evaluate(features, images, level=level) for level in ("image", "object")]
    path = write_report(
        tmp_path / "report.html", scores, images,
        title=HOSTILE, load_thumbnail=thumbnail, command="resight evaluate <x>",
    )  # fmt: skip
    text = path.read_text()
    page = Page(text)
    assert "script" not in page.tags and "i" in page.tags and "link" not in page.tags
    assert "<b>1</b>" not in text and "<i>set</i>" not in text and HOSTILE not in text
    assert "&lt;script&gt;" in text and "evaluate &lt;x&gt;" in text
    for address in page.addresses:
        assert address.startswith(("data:image/jpeg;base64,", "#"))
    assert page.tags.count("svg") == 4 and "no picture" in text
    mean = f"{100 * scores[0].mAP:.1f}"
    assert re.search(rf"<th>mAP</th><td>{re.escape(mean)} <span", text)
    assert "not comparable with an image-level mAP" in text and "rule of Market-1501" in text
    assert len(text) < 3_000_000


@pytest.mark.parametrize("level", ["image", "object"])
def test_one_level_and_a_tiny_set_are_enough(tmp_path, level):
    features, images = make(9)  # a single object has two images
    scores = evaluate(features, images, level=level)
    path = write_report(tmp_path / "one.html", [scores], images, title="tiny")
    assert "no picture" in path.read_text()  # no such files


def test_identical_features_can_be_drawn(tmp_path):
    _, images = make()
    features = np.ones((40, 3), dtype=np.float16)
    scores = [evaluate(features, images)]
    write_report(tmp_path / "same.html", scores, images, title="same")


@pytest.mark.parametrize("level", ["image", "object"])
@pytest.mark.parametrize("cross_camera", [True, False])
def test_hits_stand_where_the_scores_say(level, cross_camera):
    rng = np.random.default_rng(1)
    features, images = make()
    features = rng.integers(-1, 2, features.shape).astype(float)  # with ties
    scores = evaluate(features, images, level=level, cross_camera=cross_camera)
    asked = list(range(scores.per_query.height))[::-1]
    hits = first_hits(scores, asked, 1000)
    for q, row in zip(asked, hits, strict=True):
        of_q = scores.per_query.row(q, named=True)
        assert len(row) == of_q["gallery"]
        right = [hit.rank for hit in row if hit.right]
        precisions = [k / rank for k, rank in enumerate(right, start=1)]
        assert len(right) == of_q["positives"] and right[0] == of_q["first_rank"]
        assert np.mean(precisions) == pytest.approx(of_q["AP"], abs=1e-15)
        assert [hit.similarity for hit in row] == sorted((h.similarity for h in row), reverse=True)
        assert first_right(scores, q) == next(hit for hit in row if hit.right)
        wrong = next((hit for hit in row if not hit.right), None)
        assert (wrong and wrong.row) == of_q["wrong"]
        assert (wrong and wrong.similarity) == of_q["wrong_similarity"]


def test_thumbnails_are_upright_and_cut_to_the_box(tmp_path):
    picture = Image.new("RGB", (400, 200), "red")
    picture.paste("blue", (200, 0, 400, 200))
    picture.save(tmp_path / "a.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    picture.save(tmp_path / "b.jpg", exif=turned)
    (tmp_path / "c.png").write_bytes(b"not a picture")
    Image.new("RGBA", (10, 10), (0, 0, 0, 0)).save(tmp_path / "d.png")
    box = [[200.0, 0.0, 400.0, 200.0], None, None, None]
    frame = pl.DataFrame({"path": ["a.png", "b.jpg", "c.png", "d.png"], "box": box})
    load = open_thumbnails(ImageSet(normalise(frame), tmp_path))
    first, second, third, fourth = (load(row) for row in range(4))
    assert first and first.size == (96, 96) and first.getpixel((2, 2)) == (0, 0, 255)
    assert second and second.size == (48, 96)
    assert third is None
    assert fourth and fourth.getpixel((5, 5)) == (255, 255, 255)


def test_no_scores_are_refused(tmp_path):
    _, images = make()
    with pytest.raises(ValueError, match="at least one"):
        write_report(tmp_path / "none.html", [], images, title="none")
