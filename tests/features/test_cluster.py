"""Embedding on a cluster of this machine: as one process does, whoever is killed meanwhile."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from resight.data.imageset import ImageSet, normalise
from resight.errors import UserError
from resight.features import cluster
from resight.features.compute import EmbedOptions
from resight.features.store import Features
from resight.features.write import embed_images
from resight.models.embedder import Embedder

pytest.importorskip("ray")
OPTIONS = EmbedOptions(batch_size=16)


@pytest.fixture(scope="module")
def model(embedder, tmp_path_factory) -> Embedder:
    folder = tmp_path_factory.mktemp("model")
    embedder.save(folder)
    return Embedder.load(folder)


@pytest.fixture(scope="module")
def many(crops: ImageSet) -> ImageSet:
    """540 rows in nine shards; three of the pictures are not there."""
    pictures = crops.table[:60].drop("box")
    boxes = [[float(k), 0, 48, 48 - k] for k in range(9)]
    column = [pl.Series("box", [box] * 60, dtype=pl.List(pl.Float64)) for box in boxes]
    table = normalise(pl.concat([pictures.with_columns(one) for one in column]))
    gone = table[-3:].with_columns(pl.format("gone {}", pl.col("path")).alias("path"))
    return replace(crops, table=pl.concat([table[:-3], gone]))


@pytest.fixture(scope="module")
def alone(model, many, tmp_path_factory) -> Path:
    """What one process writes."""
    out = tmp_path_factory.mktemp("alone") / "features"
    embed_images(model, many, out, options=replace(OPTIONS, workers=0), runtime="onnx")
    return out


def same(one: Path, other: Path) -> None:
    """File by file, byte by byte; of the JSON, what is said, in any order."""
    names = [
        sorted(str(p.relative_to(f)) for p in f.rglob("*") if p.is_file()) for f in (one, other)
    ]
    assert names[0] == names[1]
    for name in names[0]:
        a, b = (one / name).read_bytes(), (other / name).read_bytes()
        if name in ("features.json", "images.parquet"):
            continue  # the second holds the folder it lies in
        assert a == b, name
    records = [json.loads((f / "features.json").read_text()) for f in (one, other)]
    for record in records:
        record["sums"].pop("images.parquet")
        record.pop("source")
    assert records[0] == records[1]
    Features.load(other, check=True)


def descendants() -> dict[int, str]:
    """Processes that come from this one, and their titles."""
    parents, titles = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                status = (entry / "stat").read_text().rpartition(")")[2].split()
                titles[int(entry.name)] = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            parents[int(entry.name)] = int(status[1])

    def ours(process: int) -> bool:
        while process > 1:
            process = parents.get(process, 0)
            if process == os.getpid():
                return True
        return False

    return {process: title for process, title in titles.items() if ours(process)}


class Killer(threading.Thread):
    """Ends the first worker that is seen at a shard."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.killed: list[int] = []
        self.stop = False

    def run(self) -> None:
        while not self.stop and not self.killed:
            for process, title in descendants().items():
                if title.startswith("ray::_embedded"):
                    os.kill(process, signal.SIGKILL)
                    self.killed.append(process)
                    return
            time.sleep(0.002)


def test_a_killed_worker_changes_nothing(model, many, alone, tmp_path):
    """Equal to one process byte for byte, bad images and checksums too."""
    killer, seen = Killer(), []
    killer.start()
    try:
        features = embed_images(
            model,
            many,
            tmp_path / "features",
            options=OPTIONS,
            runtime="onnx",
            ray="local",
            progress=lambda done, total: seen.append((done, total)),
        )
    finally:
        killer.stop = True
    assert killer.killed
    assert len(features.shards) == 9 and (~features.valid).sum() == 3
    same(alone, tmp_path / "features")
    assert seen[0] == (0, 540) and seen[-1] == (540, 540) and len(seen) == 10
    assert not [title for title in descendants().values() if title.startswith("ray::_emb")]


def test_a_killed_command_is_gone_on_with(model, many, alone, tmp_path):
    out = tmp_path / "features"
    table = tmp_path / "many.parquet"
    many.write(table)
    script = f"""
import time
from pathlib import Path
from resight.data.sources import load_images
from resight.features import write
from resight.features.compute import EmbedOptions
from resight.models.embedder import Embedder
write.SHARD_ROWS = 64
write.embed_images(Embedder.load({str(model.folder)!r}), load_images({str(table)!r}), {str(out)!r},
    options=EmbedOptions(batch_size=16), runtime="onnx", ray="local",
    progress=lambda done, total: time.sleep(1) if done else None)
"""
    command = subprocess.Popen([sys.executable, "-c", script])
    try:
        deadline = time.monotonic() + 240
        while len(list(out.glob("shard-*.npy"))) < 2:
            assert time.monotonic() < deadline and command.poll() is None
            time.sleep(0.02)
    finally:
        command.kill()
        command.wait()
    done = {path: path.stat().st_mtime_ns for path in out.glob("shard-*.npy")}
    assert 2 <= len(done) < 9
    embed_images(model, many, out, options=OPTIONS, runtime="onnx", ray="local")
    record = json.loads((out / "features.json").read_text())["sums"]
    for path, made in done.items():  # one may have been written and not yet noted
        assert path.stat().st_mtime_ns == made and path.name in record
    same(alone, out)


def test_mistakes_are_one_line(model, many, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="give out"):
        embed_images(model, many, ray="local")
    with pytest.raises(UserError, match=r"--ray 127.0.0.1:9: nothing answers there"):
        embed_images(model, many, tmp_path / "a", ray="127.0.0.1:9", options=OPTIONS)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'resight\[ray\]'"):
        embed_images(model, many, tmp_path / "a", ray="local", options=OPTIONS)


class Stub:
    """As much of Ray as an answer needs."""

    class exceptions:
        RayTaskError = WorkerCrashedError = OutOfMemoryError = RayError = ZeroDivisionError

    @staticmethod
    def get(one):
        return one


def test_what_a_worker_says(model, many, tmp_path):
    files = cluster._files(Path(str(model.folder)))
    part = cluster._part(many, 512, 64)
    assert len(part) == 28 and part.root.is_absolute()
    machine, block = cluster._embedded("0.0.0", files, "torch", part, OPTIONS)
    assert "resight" in block and "0.0.0" in block
    with pytest.raises(UserError, match=rf"--ray: on {machine}: resight .* is installed"):
        cluster._answer(Stub, (machine, block), 0)
    how = replace(OPTIONS, workers=0)
    machine, block = cluster._embedded(cluster.__version__, files, "torch", part, how)
    assert [row for row, _ in block.bad] == [25, 26, 27]
    assert np.isfinite(block.vectors[:25]).all()
    assert cluster._answer(Stub, (machine, block), 8) is block  # they are not here either
    lost = part.full_paths()[0]
    block.bad.append((0, cluster.BadImage(lost, "no such file")))
    with pytest.raises(UserError, match=r"is here, and not on .* under one path"):
        cluster._answer(Stub, (machine, block), 8)
