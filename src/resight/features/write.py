"""Embed an image set: into memory, or into a folder of shards that survives kill -9."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from resight.checksums import Summed, differing, file_sum, sums_in
from resight.data.imageset import ImageSet
from resight.errors import UserError
from resight.features.compute import (
    Block,
    EmbedOptions,
    Progress,
    embed_blocks,
    embed_rows,
    find_batch_size,
)
from resight.features.store import (
    EMBEDDER,
    IMAGES,
    RECORD,
    Features,
    open_shard,
    read_record,
    read_skipped,
    shard_name,
    shard_path,
    shard_sums,
)
from resight.files import atomic_open, fresh_folder, write_json
from resight.models.export.choose import carry, for_use
from resight.models.folders import CONFIG

if TYPE_CHECKING:
    from resight.models.export.choose import Network

SHARD_BYTES = 32 * 2**20
SHARD_ROWS = 4096


def embed_images(
    embedder: Network,
    images: ImageSet,
    out: str | Path | None = None,
    *,
    dtype: Literal["float32", "float16"] = "float32",
    options: EmbedOptions | None = None,
    runtime: str | None = None,
    progress: Progress = lambda done, total: None,
    tell: Callable[[str], None] = lambda line: None,
    force: bool = False,
    ray: str | None = None,
) -> Features:
    """Embed every image of a set; bad ones are skipped and marked.

    Without `out` the features stay in memory. With it they are written shard by shard, and a
    call that was interrupted goes on where it stopped when made again. Shards that are damaged
    are then made anew, which `tell` is told.

    runtime: "torch", "onnx" (ONNX Runtime, on the CPU) or "auto" (default: onnx on a CPU, where
    its graph is there or there are enough images for making it to pay). Features of the two agree
    to 1e-4 (of unit length) and may be mixed; a call goes on with the one it began with.

    ray: with `out`, embed on a cluster, see `cluster_blocks`; what is written is the same.

    Raises UserError: `out` holds something else or features of other images, another embedder
    or other options; no image could be used; with `options.strict`, the first bad image.
    """
    options = options or EmbedOptions()
    if out is None:
        if ray is not None:
            raise UserError("embedding on a cluster needs a folder to write to: give out")
        network = _network(embedder, runtime, options, len(images), tell)
        vectors, bad = embed_rows(network, images, options=options, progress=progress)
        valid = np.asarray(np.isfinite(vectors).all(axis=1))
        info: dict[str, Any] = {"runtime": network.runtime}
        info["skipped"] = [{"path": error.path, "reason": error.reason} for error in bad]
        found = Features(images, (vectors.astype(dtype, copy=False),), valid, info)
        return _usable(found, images.source)
    out = Path(out)
    key: dict[str, Any] = {
        "embedder": embedder.fingerprint(),
        "images": images.fingerprint(),
        "dtype": dtype,
        "flip": options.flip,
        "scales": list(options.scales),
    }
    size = options.batch_size or find_batch_size(embedder, options)
    begun = None if force else _begun(out)
    network = _network(embedder, begun or runtime, options, len(images), tell, begun is not None)
    record = _begin(out, key | {"runtime": network.runtime}, embedder, images, force, size)
    if options.batch_size is None:
        options = replace(options, batch_size=record["batch_size"])  # as before an interruption
    todo = list(_todo(out, record, len(images), tell))
    done = len(images) - sum(
        min(record["shard_rows"], len(images) - n * record["shard_rows"]) for n in todo
    )
    progress(done, len(images))
    blocks: Iterator[Block] = iter(())
    if todo and ray is None:
        blocks = embed_blocks(network, images, record["shard_rows"], blocks=todo, options=options)
    elif todo:
        from resight.features.cluster import cluster_blocks

        assert ray is not None
        carry(network, out / EMBEDDER, flip=options.flip, scales=options.scales)
        how = (images, record["shard_rows"], todo, options)
        blocks = cluster_blocks(ray, network, out / EMBEDDER, *how)
    for block in blocks:
        number = block.start // record["shard_rows"]
        _write_shard(out, number, block, dtype, record)
        done += len(block.vectors)
        progress(done, len(images))
    skipped = [entry for n in range(record["shards"]) for entry in read_skipped(out, n)]
    write_json(out / RECORD, record | {"complete": True, "skipped": skipped})
    features = Features.load(out)
    try:
        return _usable(features, images.source)
    except UserError:
        shutil.rmtree(out)  # not one vector in it
        raise


def _network(
    embedder: Network,
    runtime: str | None,
    options: EmbedOptions,
    images: int,
    tell: Callable[[str], None],
    again: bool = False,
) -> Network:
    """What embeds. `again`: as a call did that this one goes on with, if that can be."""
    how: dict[str, Any] = {"flip": options.flip, "scales": options.scales, "tell": tell}
    try:
        return for_use(embedder, runtime, images=images, **how)
    except UserError as error:
        if not again:
            raise
        tell(f"begun by {runtime}, goes on by torch: {error}")
        return for_use(embedder, "torch", images=images, **how)


def _begun(out: Path) -> str | None:
    """What an interrupted call embedded with; None where there is none."""
    if not (out / RECORD).is_file():
        return None
    return str(read_record(out)["key"].get("runtime", "torch"))


def write_features(
    out: str | Path,
    images: ImageSet,
    blocks: Iterable[NDArray[np.float32]],
    key: dict[str, Any],
    embedder: Network | None,
    *,
    force: bool = False,
) -> Features:
    """Write vectors that are there already as a features folder.

    `blocks`: (n, D) float32, together the rows of `images` in order. `key`: what made them.

    Raises UserError when `out` holds something else (or features, unless `force`).
    """
    out = Path(out)
    fresh_folder(out, "features", mark=RECORD, force=force)
    out.mkdir(parents=True, exist_ok=True)
    record: dict[str, Any] = {}
    number, held = 0, np.empty((0, 0), np.float32)

    def shard(rows: NDArray[np.float32]) -> None:
        _write_shard(out, number, Block(number * SHARD_ROWS, rows), "float32", record)

    for block in blocks:
        if not record:
            key = key | {"images": images.fingerprint()}
            record |= {"format": 1, "complete": False, "rows": len(images)}
            record |= {"dim": int(block.shape[1]), "normalized": False, "batch_size": 1}
            record |= {"shard_rows": SHARD_ROWS, "shards": -(-len(images) // SHARD_ROWS)}
            record |= {"key": key, "source": images.source}
            write_json(out / RECORD, record)
            images.write(out / IMAGES)
            _record_sum(out, record, IMAGES, file_sum(out / IMAGES))
            if embedder is not None:
                embedder.save(out / EMBEDDER)
        held = np.concatenate([held, block]) if held.size else block
        while len(held) >= SHARD_ROWS:
            shard(held[:SHARD_ROWS])
            number, held = number + 1, held[SHARD_ROWS:]
    if len(held):
        shard(held)
    write_json(out / RECORD, record | {"complete": True, "skipped": []})
    return Features.load(out)


def require_made_by(features: Features, embedder: Network, whose: str) -> None:
    """Raise UserError when stored features were made by another embedder than this one."""
    made = features.info.get("key", {}).get("embedder")
    if made is not None and made != embedder.fingerprint():
        raise UserError(
            f"{features.images.source}: these features were not made by {whose} embedder "
            "(fingerprints differ); embed the images with it"
        )


def _begin(
    out: Path,
    key: dict[str, Any],
    embedder: Network,
    images: ImageSet,
    force: bool,
    batch_size: int,
) -> dict[str, Any]:
    """The record of a new folder, or that of an interrupted call with the same key."""
    if (out / RECORD).is_file() and not force:
        record = read_record(out)
        # By which of the two it was embedded matters to no one who goes on with it.
        asked = [name for name in key if name != "runtime"]
        other = [name for name in asked if record["key"].get(name) != key[name]]
        if other:
            raise UserError(
                f"{out}: holds features made with other {', '.join(other)}; "
                "give another --out, or --force to replace them"
            )
    else:
        fresh_folder(out, "features", mark=RECORD, force=force)
        row_bytes = embedder.dim * np.dtype(key["dtype"]).itemsize
        rows = max(64, min(SHARD_ROWS, SHARD_BYTES // row_bytes))
        record = {
            "format": 1,
            "complete": False,
            "rows": len(images),
            "dim": embedder.dim,
            "normalized": False,
            "batch_size": batch_size,
            "shard_rows": rows,
            "shards": -(-len(images) // rows),
            "key": key,
            "source": images.source,
        }
        write_json(out / RECORD, record)  # first: a call killed from here on can be resumed
    if not (out / IMAGES).is_file() or _outdated(out, record, images):
        images.write(out / IMAGES)
        _record_sum(out, record, IMAGES, file_sum(out / IMAGES))
    if not (out / EMBEDDER / CONFIG).is_file():
        embedder.save(out / EMBEDDER)
        carry(embedder, out / EMBEDDER)
    return record


def _outdated(out: Path, record: dict[str, Any], images: ImageSet) -> bool:
    """Whether the table there is damaged, or has the photos where they are no longer."""
    if differing(out, sums_in(record, [IMAGES])):
        return True
    paths = pl.read_parquet(out / IMAGES, columns=["path"], glob=False)["path"].to_list()
    return paths != images.absolute_paths()


def _record_sum(out: Path, record: dict[str, Any], name: str, value: str) -> None:
    record["sums"] = sums_in(record) | {name: value}
    write_json(out / RECORD, record)


def _todo(
    out: Path, record: dict[str, Any], images: int, tell: Callable[[str], None]
) -> Iterator[int]:
    """The shards that are not there yet, or not as they were written."""
    there = [n for n in range(record["shards"]) if shard_path(out, n).is_file()]
    wrong = set(differing(out, shard_sums(record, there)))
    for number in range(record["shards"]):
        if number not in there:
            yield number
            continue
        try:
            if shard_name(number) in wrong:
                raise UserError(f"{shard_path(out, number)}: damaged (its checksum differs)")
            open_shard(out, number, record, images)
        except UserError as fault:
            tell(f"{str(fault).partition(';')[0]}; embedded anew")
            yield number


def _write_shard(out: Path, number: int, block: Block, dtype: str, record: dict[str, Any]) -> None:
    skipped = shard_path(out, number).with_suffix(".json")
    if block.bad:
        entries = [
            {"row": row, "path": error.path, "reason": error.reason} for row, error in block.bad
        ]
        write_json(skipped, entries)
    else:
        skipped.unlink(missing_ok=True)  # of an earlier try, when images could not be read
    with atomic_open(shard_path(out, number)) as file:  # last: it says that the shard is done
        summed = Summed(file)
        np.save(summed, block.vectors.astype(dtype), allow_pickle=False)
        _record_sum(out, record, shard_name(number), summed.sum())


def _usable(features: Features, source: str) -> Features:
    if not features.valid.any():
        reason = features.info["skipped"][0]["reason"] if features.info.get("skipped") else ""
        raise UserError(
            f"{source}: none of its {len(features):,} images can be used "
            f"(the first: {features.images.full_paths()[0]}: {reason})"
        )
    return features
