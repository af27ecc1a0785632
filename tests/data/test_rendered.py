"""Rendered photos: the same bytes every time, sound splits and roles, and not too easy."""

import csv
import json
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np
import pytest

from resight.data.rendered import render
from resight.data.rendered.objects import place_of, print_of, word_of
from resight.data.rendered.scenes import photograph
from resight.errors import UserError

Row = dict[str, str]
OBJECTS, IMAGES, SIZE = 60, 4, 64


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished set, shared by the tests that only read it."""
    return render(
        tmp_path_factory.mktemp("rendered"), objects=OBJECTS, images=IMAGES, size=SIZE
    ).parent


def rows_of(folder: Path) -> list[Row]:
    with open(folder / "index.csv", newline="") as file:
        return list(csv.DictReader(file))


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_two_runs_give_the_same_bytes_and_another_seed_gives_others(tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        render(tmp_path / name, objects=4, images=2, size=48, seed=seed)
    first, again, other = (bytes_of(tmp_path / name) for name in "abc")
    assert first == again
    assert first.keys() == other.keys()
    assert all(first[name] != other[name] for name in first if name.endswith(".jpg"))


def test_an_object_does_not_depend_on_how_many_there_are(photos: Path, tmp_path: Path) -> None:
    render(tmp_path / "few", objects=5, images=2, size=SIZE)
    few, many = bytes_of(tmp_path / "few"), bytes_of(photos)
    pictures = [name for name in few if name.endswith(".jpg")]
    assert len(pictures) == 10
    assert all(few[name] == many[name] for name in pictures)


def test_pictures_do_not_depend_on_the_order_of_drawing() -> None:
    ahead = [photograph(0, k, i, 48)[0] for k in range(6) for i in range(2)]
    back = [photograph(0, k, i, 48)[0] for k in reversed(range(6)) for i in reversed(range(2))]
    assert all(np.array_equal(a, b) for a, b in zip(ahead, reversed(back), strict=True))


def test_the_number_of_processes_does_not_matter(tmp_path: Path) -> None:
    for workers in (1, 2):
        render(tmp_path / str(workers), objects=4, images=2, size=48, workers=workers)
    assert bytes_of(tmp_path / "1") == bytes_of(tmp_path / "2")


def test_index_lists_every_picture_once_and_they_decode_at_the_asked_size(photos: Path) -> None:
    rows = rows_of(photos)
    assert list(rows[0]) == ["path", "object", "camera", "split", "role", "box", "kind"]
    paths = {row["path"] for row in rows}
    assert len(rows) == len(paths) == OBJECTS * IMAGES
    assert paths == {name for name in bytes_of(photos) if name.endswith(".jpg")}
    for row in rows[:: IMAGES + 1]:
        picture = cv2.imread(str(photos / row["path"]))
        assert picture is not None and picture.shape == (SIZE, SIZE, 3)
        assert picture.std() > 4, f"{row['path']} is nearly blank"


def test_splits_share_no_object_and_have_their_shares(photos: Path) -> None:
    split_of: dict[str, set[str]] = defaultdict(set)
    for row in rows_of(photos):
        split_of[row["object"]].add(row["split"])
    assert all(len(splits) == 1 for splits in split_of.values())
    counts = {s: sum(s in splits for splits in split_of.values()) for s in ("train", "val", "test")}
    assert counts == {"train": 30, "val": 6, "test": 24}


def test_every_query_has_a_gallery_picture_by_another_camera(photos: Path) -> None:
    rows = rows_of(photos)
    assert all((row["role"] != "") == (row["split"] == "test") for row in rows)
    cameras: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        if row["role"] == "gallery":
            cameras[row["object"]].add(row["camera"])
    queries = [row for row in rows if row["role"] == "query"]
    assert {row["object"] for row in queries} == {r["object"] for r in rows if r["role"]}
    assert all(cameras[row["object"]] - {row["camera"]} for row in queries)


def test_look_alikes_share_colours_but_no_two_objects_share_all() -> None:
    places = [place_of(number) for number in range(400)]
    prints = [print_of(0, place) for place in places]
    families: dict[tuple[int, int], list[int]] = defaultdict(list)
    for place in places:
        families[place.family].append(place.number)
    for members in families.values():
        assert len({places[k].kind for k in members}) == 1
        assert len({places[k].split for k in members}) == 1
        assert len({prints[k].palette for k in members}) == 1
        assert len({prints[k].emblem for k in members}) == len(members)
    assert len({word_of(0, number) for number in range(5000)}) == 5000


class Stopped(Exception):
    pass


def test_an_interrupted_run_is_completed(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        assert total == 8
        if done == 4:
            raise Stopped

    with pytest.raises(Stopped):
        render(tmp_path / "a", objects=4, images=2, size=48, progress=stop)
    assert not (tmp_path / "a" / "index.csv").exists()
    torn = sorted((tmp_path / "a").rglob("*.jpg"))[0]
    torn.write_bytes(torn.read_bytes()[:200])  # as a power cut may leave it
    kept = sorted((tmp_path / "a").rglob("*.jpg"))[1]
    stamp = kept.stat().st_mtime_ns
    render(tmp_path / "a", objects=4, images=2, size=48)
    render(tmp_path / "b", objects=4, images=2, size=48)
    assert bytes_of(tmp_path / "a") == bytes_of(tmp_path / "b")
    assert kept.stat().st_mtime_ns == stamp, "a whole picture was drawn again"


def test_a_finished_set_is_left_alone(photos: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in photos.rglob("*")}

    def never(done: int, total: int) -> None:
        raise AssertionError("drew again")

    index = render(photos, objects=OBJECTS, images=IMAGES, size=SIZE, progress=never)
    assert index == photos / "index.csv"
    assert before == {path: path.stat().st_mtime_ns for path in photos.rglob("*")}
    settings = json.loads((photos / "rendered.json").read_text())
    assert (settings["objects"], settings["seed"]) == (OBJECTS, 0)


def test_refuses_other_folders_and_leaves_them_untouched(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(UserError, match="holds other files"):
        render(tmp_path / "mine", objects=2, images=2, size=48)
    assert bytes_of(tmp_path / "mine") == {"letter.txt": b"dear"}
    with pytest.raises(UserError, match="seed 0 there, 1 asked for"):
        render(photos, objects=OBJECTS, images=IMAGES, size=SIZE, seed=1)
    with pytest.raises(UserError, match="is a file"):
        render(tmp_path / "mine" / "letter.txt", objects=2, images=2, size=48)


@pytest.mark.parametrize(
    "wrong", [{"objects": 0}, {"images": 1}, {"size": 8}, {"seed": -1}], ids=lambda w: next(iter(w))
)
def test_refuses_settings_out_of_range(tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(UserError, match=f"{next(iter(wrong))} must be"):
        render(tmp_path / "out", **wrong)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_colours_alone_find_few_objects(photos: Path) -> None:
    """Nearest neighbour by RGB histogram of the picture's middle, query to gallery."""
    rows = [row for row in rows_of(photos) if row["role"]]
    features = np.stack([_histogram(photos / row["path"]) for row in rows])
    query = np.array([row["role"] == "query" for row in rows])
    names = np.array([row["object"] for row in rows])
    nearest = (features[query] @ features[~query].T).argmax(axis=1)
    right = float((names[~query][nearest] == names[query]).mean())
    assert right < 0.35


def _histogram(path: Path) -> np.ndarray:
    picture = cv2.imread(str(path))
    assert picture is not None
    middle = picture[SIZE // 4 : -SIZE // 4, SIZE // 4 : -SIZE // 4]
    counts = cv2.calcHist([middle], [0, 1, 2], None, [8] * 3, [0, 256] * 3).ravel()
    return np.asarray(np.sqrt(counts / counts.sum()))
