"""DukeMTMC-reID (Ristani et al., ECCV 2016 workshops; Zheng et al., ICCV 2017): persons, 8 cameras.

Folders and names as Market-1501's: 0005_c2_f0046985.jpg is person 5 seen by camera 2. The 408
distractors are persons of the gallery whom no query shows; they keep their names.
"""

from __future__ import annotations

from functools import partial

from resight.data.layouts import market1501
from resight.data.layouts.layout import GALLERY, QUERY, TRAIN, Count, Layout

_TITLE = "DukeMTMC-reID"
LAYOUT = Layout(
    name="dukemtmc",
    title=_TITLE,
    page="https://github.com/layumi/DukeMTMC-reID_evaluation",
    terms="academic research; withdrawn by its authors",
    parts=tuple(f"{name}/" for name in market1501.FOLDERS),
    signature=("bounding_box_train/*_c?_f???????.jpg", "bounding_box_test/"),
    counts=(  # the authors' page; 1,110 are the 702 persons of the queries and 408 distractors
        Count("training images", (16_522,), TRAIN),
        Count("training objects", (702,), TRAIN, objects=True),
        Count("query images", (2_228,), QUERY),
        Count("query objects", (702,), QUERY, objects=True),
        Count("gallery images", (17_661,), GALLERY),
        Count("gallery objects", (1_110,), GALLERY, objects=True),
    ),
    read=partial(market1501.read, title=_TITLE, example="0005_c2_f0046985.jpg"),
    notice="withdrawn by its authors in 2019, for the privacy of the people in it",
)
