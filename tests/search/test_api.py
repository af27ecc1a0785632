"""The library in five lines, as a user writes them."""

from __future__ import annotations

import resight


def test_five_lines(embedder, shapes, tmp_path):
    embedder.save(tmp_path / "embedder")

    model = resight.Embedder.load(str(tmp_path / "embedder"))
    images = resight.load_images(str(shapes))
    gallery = resight.Gallery(model, "object").add(images)
    hits = gallery.search(str(shapes / "object 04" / "foto_ä0.png"), k=3)[0]
    scores = resight.measure(resight.embed_images(model, images))

    assert hits[0].object == "object 04" and len(hits) == 3
    assert hits[0].similarity > hits[1].similarity > hits[2].similarity
    assert len(scores.per_query) == 60 and 0.5 < scores.per_query["AP"].mean() <= 1


def test_every_public_name_is_there():
    for name in resight.__all__:
        assert getattr(resight, name) is not None
    assert set(resight.__all__) == set(dir(resight))
