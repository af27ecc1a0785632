"""Two processes give what one gives, to the last digit."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from command import resight
from pictures import save
from resight.evaluate.share import Share

# Evaluations that the processes do one after the other, each with a port of its own.
WAYS: dict[str, list[str]] = {
    "query-gallery": ["-p", "cross-camera", "-p", "query-gallery"],
    "leave-one-out": ["-p", "leave-one-out", "-p", "draws.yaml", "-p", "within.yaml"],
    "object": ["-p", "query-gallery", "-p", "leave-one-out", "--level", "object"],
    "legacy": ["-p", "market1501-centroid-legacy"],
    "two queries": ["-p", "query-gallery"],
}
OF = {"legacy": ["features.npy", "test.csv"], "two queries": ["few.npy", "few.csv"]}
FILES = {
    "draws.yaml": "mode: leave-one-out\ngallery_images: 1\nrepeats: 3\n",
    "within.yaml": "mode: leave-one-out\nwithin: kind\npairs: true\nopen_set: true\n",
}
WORKER = """
import json, os, sys
from command import resight
for port, words in json.loads(sys.argv[1]):
    os.environ["MASTER_PORT"] = str(port)
    status = resight("evaluate", *words)
    if status:
        sys.exit(status)
"""


def words(name: str, out: Path) -> list[str]:
    measured = OF.get(name, ["features.npy", "set.csv"])
    return [*measured, *WAYS[name], "--out", str(out / name), "--json"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set with roles, cameras and distractors, and features that say something."""
    made = tmp_path_factory.mktemp("share")
    rng = np.random.default_rng(0)
    for name, content in FILES.items():
        (made / name).write_text(content)
    save(made / "0.png")
    header = "path,object,camera,role,kind,split"
    rows = [
        f"{i}.png,{'' if i % 13 == 0 else f'o{i % 12}'},c{rng.integers(5)},"
        f"{('query', 'gallery', 'gallery', 'both')[rng.integers(4)]},k{rng.integers(3)},"
        for i in range(181)
    ]
    (made / "set.csv").write_text("\n".join([header, *rows]))
    (made / "test.csv").write_text("\n".join([header, *(row + "test" for row in rows)]))
    features = rng.normal(size=(181, 16)) + np.eye(16)[np.arange(181) % 12]
    np.save(made / "features.npy", features.astype(np.float32))
    few = [f"{i}.png,o{i // 2},c,{('query', 'gallery')[i % 2]},k,test" for i in range(4)]
    (made / "few.csv").write_text("\n".join([header, *few]))
    np.save(made / "few.npy", features[:4].astype(np.float32))
    return made


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def together(folder: Path, jobs: list[list[str]], count: int = 2) -> list[tuple[int, str, str]]:
    """Status, stdout and stderr of `count` processes that do the jobs together."""
    plan = json.dumps(list(zip(free_ports(len(jobs)), jobs, strict=True)))
    path = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    common = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "PYTHONPATH": path}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, plan],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | common | {"RANK": str(rank), "OMP_NUM_THREADS": "1"},
        )
        for rank in range(count)
    ]
    try:
        said = [process.communicate(timeout=120) for process in running]
    finally:
        for process in running:
            process.kill()
    return [(p.returncode, *texts) for p, texts in zip(running, said, strict=True)]


@pytest.fixture(scope="module")
def shared(folder: Path) -> tuple[Path, list[tuple[int, str, str]]]:
    out = folder / "two processes"
    return out, together(folder, [words(name, out) for name in WAYS])


@pytest.mark.parametrize("name", WAYS)
def test_two_processes_give_what_one_gives(
    name: str, folder: Path, shared, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    both, done = shared
    for status, _, err in done:
        assert status == 0, err[-3000:]
    monkeypatch.chdir(folder)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert resight("evaluate", *words(name, folder / "one process")) == 0
    alone = json.loads(capfd.readouterr().out)
    printed = [json.loads(line) for line in done[0][1].splitlines()]
    assert len(printed) == len(WAYS) and done[1][1] == "", "only the first of the two talks"
    assert "report: " in done[0][2] and "report: " not in done[1][2]
    # As text, where NaN is NaN.
    assert json.dumps(printed[list(WAYS).index(name)]) == json.dumps(alone)
    folders = [folder / "one process" / name, both / name]
    one, two = (json.loads((out / "scores.json").read_text()) for out in folders)
    for key in ("scores", "protocols", "data", "origin"):
        assert json.dumps(one[key]) == json.dumps(two[key])
    assert one["scores"]
    for summary in one["scores"]:
        files = [out / summary["protocol"] / "per_query.parquet" for out in folders]
        tables = [pl.read_parquet(file) for file in files]
        assert tables[0].height == summary["queries"] and tables[0].equals(tables[1])
        assert files[0].read_bytes() == files[1].read_bytes()


def test_a_mistake_stops_both(folder: Path) -> None:
    bad = ["few.npy", "set.csv", "--out", str(folder / "bad")]
    for status, out, err in together(folder, [bad]):
        assert status == 2 and out == "" and "4 features for 181 images" in err
    assert not (folder / "bad").exists()


@pytest.mark.parametrize("queries", [0, 1, 2, 7, 1000])
@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_shares_are_all_queries_once(queries: int, count: int) -> None:
    parts = [Share(index, count).part(queries) for index in range(count)]
    assert [q for part in parts for q in range(*part)] == list(range(queries))
    sizes = [stop - start for start, stop in parts]
    assert max(sizes) - min(sizes) <= 1
