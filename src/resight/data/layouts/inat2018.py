"""iNaturalist 2018 (Van Horn et al., CVPR 2018), split for retrieval by Smooth-AP (ECCV 2020).

Images train_val2018/CATEGORY/SPECIES/NAME.jpg; the lists of the authors of Smooth-AP,
Inat_dataset_splits/Inaturalist_train_set1.txt and Inaturalist_test_set1.txt, hold one such path
a line. The species is the object, the category (Aves, Plantae, ...) the column `category`.
No species is in both lists; every test image asks all the others.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from resight.data.layouts.layout import TEST, TRAIN, Count, Layout, words
from resight.errors import UserError

_LISTS = {split: f"Inaturalist_{split}_set1.txt" for split in ("train", "test")}
# The archive of the lists has a folder of its own, which some leave out.
_FILES = {split: (f"Inat_dataset_splits/{name}", name) for split, name in _LISTS.items()}


def read(folder: Path) -> pl.DataFrame:
    """The images of both lists. Raises UserError when a line is no path of the layout."""
    rows: list[tuple[str, str, str, str]] = []
    for split, names in _FILES.items():
        path = next(folder / name for name in names if (folder / name).is_file())
        for (image,) in words(path, 1):
            parts = image.split("/")
            if len(parts) != 4 or parts[0] != "train_val2018":
                lines = [line.strip() for line in path.read_text("utf-8-sig").splitlines()]
                raise UserError(
                    f"{path}, line {lines.index(image) + 1}: {image!r} is no path like"
                    " train_val2018/Aves/2761/NAME.jpg"
                )
            rows.append((image, parts[2], split, parts[1]))
    return pl.DataFrame(rows, schema=["path", "object", "split", "category"], orient="row")


LAYOUT = Layout(
    name="inat2018",
    title="iNaturalist 2018",
    page="https://github.com/visipedia/inat_comp/tree/master/2018, the lists at"
    " https://github.com/Andrew-Brown1/Smooth_AP",
    terms="non-commercial research and education",
    parts=("train_val2018/", *(" or ".join(names) for names in _FILES.values())),
    signature=(" or ".join(_FILES["test"]),),
    counts=(  # section 5 of Smooth-AP
        Count("training images", (325_846,), TRAIN),
        Count("training objects", (5_690,), TRAIN, objects=True),
        Count("test images", (136_093,), TEST),
        Count("test objects", (2_452,), TEST, objects=True),
    ),
    read=read,
)
