"""Changes a gallery and is killed (kill -9) at random instants, again and again.

    python gallery_dying.py FOLDER --kills 12 --seed 0

Each life is a fork that opens the gallery, changes it at random, and writes to a log what it begins
and what was acknowledged. After each death another fork opens the gallery and compares: what was
acknowledged is there, bit for bit; what was begun is there wholly or not at all (an `add`: block
by block); `check` finds no fault, and searches find. Prints how many died in which change, as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # forks of a process with threads would wait forever
sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
from gallery_sets import features_of

from resight.search import adding, views
from resight.search.check import FAULT, check
from resight.search.gallery import Gallery

KINDS = ("add", "remove", "move", "compact")
DIM = 32
State = dict[int, str | None]  # number of an image -> object


def vector(number: int) -> Any:
    return np.random.default_rng([1, number]).normal(size=DIM).astype(np.float32)


def content(gallery: Gallery) -> tuple[State, dict[int, Any]]:
    """What a gallery holds, and its vectors."""
    engine = gallery.engine
    ids = engine.ids()
    numbers = {row.id: int(Path(row.place.path).stem) for row in engine.rows(ids) if row.place}
    found, _, vectors = engine.vectors(ids)
    state: State = {numbers[row.id]: row.object for row in engine.rows(ids)}
    return state, {numbers[i]: v for i, v in zip(found.tolist(), vectors, strict=True)}


def live(folder: Path, log: Path, favourite: str, seed: int) -> None:
    """Change the gallery until killed."""
    views.LEAST, adding.BLOCK = 50, 16
    rng = np.random.default_rng(seed)
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    gallery = Gallery.open(folder)
    state, _ = content(gallery)
    new = seed * 1_000_000
    os.write(out, b'{"ready": true}\n')
    while True:
        kind = favourite if rng.random() < 0.6 else KINDS[rng.integers(3)]
        if len(state) < 100 or len(state) > 500:
            kind = "add" if len(state) < 100 else "remove"
        some = rng.choice(sorted(state), min(len(state), int(rng.integers(1, 40))), replace=False)
        to = [None, "a", "b", "c"][rng.integers(4)]
        numbers = some.tolist() if kind != "add" else list(range(new, new + len(some)))
        told = json.dumps({"kind": kind, "numbers": numbers, "to": to})
        os.write(out, told.encode() + b"\n")
        paths = [f"/g/{number}.png" for number in numbers]
        if kind == "add":
            new += len(numbers)
            rows = np.stack([vector(number) for number in numbers])
            gallery.add(features_of(rows, [to] * len(rows), numbers=numbers))
        elif kind == "remove":
            gallery.remove(paths)
        elif kind == "move":
            gallery.move(paths, to)
        else:
            gallery.compact()
        os.write(out, b'{"done": true}\n')
        state = after(state, kind, numbers, to)
        if rng.random() < 0.2:
            len(gallery)  # brings the index up to date, and sometimes builds it


def after(state: State, kind: str, numbers: list[int], to: str | None) -> State:
    """The state once a change is made."""
    if kind == "remove":
        return {n: name for n, name in state.items() if n not in set(numbers)}
    return state | dict.fromkeys(numbers, to) if kind in ("add", "move") else state


def fork(work: Callable[[], None]) -> int:
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        work()
        code = 0
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
    finally:
        os._exit(code)


def compare(folder: Path, before: Path, log: Path, after_: Path) -> None:
    """Whether what is there is what should be; the state is written to `after_`."""
    state = {int(n): name for n, name in json.loads(before.read_text()).items()}
    begun: dict[str, Any] | None = None
    for line in log.read_text().splitlines():
        said = json.loads(line)
        if "kind" in said:
            begun = said
        elif "done" in said and begun is not None:
            state, begun = after(state, **begun), None
    with Gallery.open(folder) as gallery:
        found, vectors = content(gallery)
        possible = [state]
        if begun is not None and begun["kind"] == "add":
            blocks = range(0, len(begun["numbers"]) + 16, 16)
            possible = [state | dict.fromkeys(begun["numbers"][:n], begun["to"]) for n in blocks]
        elif begun is not None:
            possible.append(after(state, **begun))
        assert found in possible, f"{len(state)} acknowledged, {len(found)} there; {begun}"
        for number, row in vectors.items():
            assert np.array_equal(row, vector(number)), f"image {number} has another vector"
        faults = [str(one) for one in check(gallery) if one.kind == FAULT]
        assert not faults, faults
        asked = sorted(found)[::17]
        for number, (hit, *_) in zip(
            asked,
            gallery.search_vectors(np.stack([vector(n) for n in asked]), level="image"),
            strict=True,
        ):
            assert hit.path == f"/g/{number}.png" and hit.object == found[number]
    after_.write_text(json.dumps(found))
    (log.parent / "begun").write_text("nothing" if begun is None else begun["kind"])


def kill(place: Path, kills: int, seed: int) -> dict[str, int]:
    """How many of the lives ended in which change. Raises AssertionError where one left a fault."""
    folder, before, log = place / "g", place / "state.json", place / "log"
    rng = np.random.default_rng(seed)

    def first() -> None:
        with Gallery.create(folder) as gallery:
            rows = np.stack([vector(number) for number in range(200)])
            gallery.add(features_of(rows, [None, "a"] * 100))
            before.write_text(json.dumps(content(gallery)[0]))

    assert os.waitpid(fork(first), 0)[1] == 0
    died: dict[str, int] = {}
    for life in range(kills):
        log.write_text("")
        favourite = KINDS[life % len(KINDS)]
        child = fork(lambda life=life, favourite=favourite: live(folder, log, favourite, life + 1))  # type: ignore[misc]
        while "ready" not in log.read_text():
            assert os.waitpid(child, os.WNOHANG) == (0, 0), "could not open the gallery"
            time.sleep(0.002)
        time.sleep(float(rng.uniform(0, 0.25)))
        os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        assert os.WIFSIGNALED(status), "it ended by itself"
        looked = os.waitpid(fork(lambda: compare(folder, before, log, before)), 0)[1]
        assert looked == 0, f"after death {life + 1}"
        last = (place / "begun").read_text()
        died[last] = died.get(last, 0) + 1
    return died


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(json.dumps(kill(options.folder, options.kills, options.seed)))
