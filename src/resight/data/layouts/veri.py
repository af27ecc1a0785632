"""VeRi-776 (Liu et al., ECCV 2016): vehicle re-identification, 20 cameras.

Folders image_train, image_query, image_test; names like 0002_c002_00030600_0.jpg give the vehicle
and the camera. The queries lie in image_test once more; of the same camera as themselves, they
are no match.
"""

from __future__ import annotations

from functools import partial

from resight.data.layouts import market1501
from resight.data.layouts.layout import GALLERY, QUERY, TRAIN, Count, Layout

_TITLE = "VeRi-776"
_FOLDERS = {
    "image_train": ("train", None),
    "image_query": ("test", "query"),
    "image_test": ("test", "gallery"),
}
LAYOUT = Layout(
    name="veri",
    title=_TITLE,
    page="https://github.com/JDAI-CV/VeRidataset",
    terms="academic research, on request",
    parts=tuple(f"{name}/" for name in _FOLDERS),
    signature=("image_query/", "name_query.txt"),
    counts=(  # the read-me file of the release
        Count("training images", (37_778,), TRAIN),
        Count("training objects", (576,), TRAIN, objects=True),
        Count("query images", (1_678,), QUERY),
        Count("query objects", (200,), QUERY, objects=True),
        Count("gallery images", (11_579,), GALLERY),
        Count("gallery objects", (200,), GALLERY, objects=True),
    ),
    read=partial(
        market1501.read, title=_TITLE, folders=_FOLDERS, example="0002_c002_00030600_0.jpg"
    ),
)
