"""Embedding on several machines: a shard is a task of Ray's; who gave the command writes it.

A task has the rows of its shard and the embedder, and answers as `embed_blocks` does in one
process, batch by batch the same. Ray gives the task of a worker that died to another one; what has
come back is written before more is asked for.
"""

from __future__ import annotations

import hashlib
import os
import socket
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resight import __version__
from resight.data.decode import BadImage
from resight.data.imageset import ImageSet
from resight.data.pixels import strict_stop
from resight.data.stores import READERS
from resight.errors import UserError
from resight.features.compute import Block, EmbedOptions, embed_blocks

if TYPE_CHECKING:
    from resight.models.export.choose import Network

LOCAL = "local"
_RETRIES = 5  # deaths of a worker that a shard survives
_GONE = "no such file"
_WAIT = 5.0  # seconds after which it is looked whether machines have come or gone
_kept: dict[str, Any] = {}  # of a worker: its embedder


def cluster_blocks(
    address: str,
    network: Network,
    folder: Path,
    images: ImageSet,
    block_rows: int,
    blocks: Sequence[int],
    options: EmbedOptions,
) -> Iterator[Block]:
    """As `embed_blocks` with these numbers, each on a machine of a cluster; as they are ready.

    `address`: "local" for a cluster of this machine's cores that ends with the call, "auto" for the
    one that this machine belongs to, else HOST:PORT or ray://HOST:PORT. `folder`: where the
    embedder is saved, with its graph. `options.batch_size` is given.

    Raises UserError: Ray is missing, or no such cluster; another version of resight there; images
    that this machine has and another has not; with `options.strict`, a bad image.
    """
    ray = _connected(address)
    cuda = network.runtime == "torch" and network.device.type == "cuda"
    try:
        cpus = _cpus(ray, cuda)
        task = ray.remote(_embedded).options(
            num_cpus=cpus, num_gpus=int(cuda), max_retries=_RETRIES, scheduling_strategy="SPREAD"
        )
        kept = ray.put(_files(folder))
        how = replace(options, strict=False)
        if how.workers is None:  # a task has its cores, not its machine
            readers = READERS if images.remote and network.runtime == "onnx" else 0
            how = replace(how, workers=cpus if cuda else readers)
        waiting: dict[Any, int] = {}
        left = list(reversed(blocks))
        paths = images.full_paths()
        while left or waiting:
            most = 2 * _places(ray, cpus, cuda)
            while left and len(waiting) < most:
                number = left.pop()
                part = _part(images, number * block_rows, block_rows)
                waiting[task.remote(__version__, kept, network.runtime, part, how)] = number
            done, _ = ray.wait(list(waiting), num_returns=1, timeout=_WAIT)
            for one in done:
                number = waiting.pop(one)
                block = _answer(ray, one, number)
                block.start = start = number * block_rows
                block.bad = [
                    (start + row, BadImage(paths[start + row], error.reason))
                    for row, error in block.bad
                ]
                if options.strict and block.bad:
                    raise strict_stop(block.bad[0][1])
                yield block
    except ray.exceptions.RaySystemError as error:
        raise _lost(error) from None
    finally:
        ray.shutdown()  # of a cluster that was there: leave it


def _connected(address: str) -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody is told what is done here
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError:
        raise UserError("--ray needs ray, which is missing: pip install 'resight[ray]'") from None
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdigit():  # Ray itself goes on trying for ten minutes
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except (OSError, OverflowError):
            raise UserError(f"--ray {address}: nothing answers there") from None
    how: dict[str, Any] = {"include_dashboard": False} if address == LOCAL else {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ray.init(address=address, log_to_driver=False, logging_level="ERROR", **how)
    except Exception as error:  # it has many
        first = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise UserError(f"--ray {address}: no such cluster can be reached ({first})") from None
    return ray


def _cpus(ray: Any, cuda: bool) -> int:
    """Cores of a task: one, as that makes most of a CPU; a GPU's share of its machine's."""
    if not cuda:
        return 1
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    shares = [one.get("CPU", 1) // one["GPU"] for one in machines if one.get("GPU")]
    if not shares:
        raise UserError("--ray: this machine has a GPU and the cluster has none; --device cpu")
    return max(1, int(min(shares)))


def _places(ray: Any, cpus: int, cuda: bool) -> int:
    """Tasks that run at once."""
    found = ray.cluster_resources()
    return max(1, int(found.get("GPU", 0) if cuda else found.get("CPU", 1) // cpus))


def _files(folder: Path) -> dict[str, bytes]:
    """All files of a saved embedder."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def _part(images: ImageSet, start: int, count: int) -> ImageSet:
    """The rows of a shard, as another machine can find them: only what it takes to read them."""
    part = images.rows(range(start, min(start + count, len(images))))
    opens = {path: part.opens[path] for path in part.table["path"] if path in part.opens}
    table = part.table.select("path", "object", "camera", "split", "role", "box")
    return replace(part, table=table, root=part.root.absolute(), opens=opens)


def _answer(ray: Any, one: Any, number: int) -> Block:
    try:
        answer = ray.get(one)
    except ray.exceptions.RayTaskError as error:
        reason = " ".join(str(error.cause or type(error).__name__).split())[:300]
        raise UserError(f"--ray: shard {number} could not be embedded: {reason}") from None
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError) as error:
        raise UserError(
            f"--ray: shard {number}: its worker died {_RETRIES + 1} times "
            f"({type(error).__name__}; is there memory enough?); what is done is kept"
        ) from None
    except ray.exceptions.RayError as error:
        raise _lost(error) from None
    machine: str
    block: Block | str
    machine, block = answer
    if isinstance(block, str):
        raise UserError(f"--ray: on {machine}: {block}")
    unseen = [error for _, error in block.bad if error.reason == _GONE]
    here = next((error.path for error in unseen if os.path.exists(error.path)), None)
    if here is not None:
        raise UserError(
            f"{here}: is here, and not on {machine}; put the images where all machines have them "
            "under one path, or at addresses (s3://...)"
        )
    return block


def _lost(error: Exception) -> UserError:
    return UserError(
        f"--ray: the cluster is gone ({type(error).__name__}); what is done is kept: run the same "
        "command again"
    )


def _embedded(
    version: str, files: dict[str, bytes], runtime: str, images: ImageSet, options: EmbedOptions
) -> tuple[str, Block | str]:
    """Run by a worker: this machine's name, and the one block of these images or what is wrong."""
    machine = socket.gethostname()
    if version != __version__:
        return machine, f"resight {__version__} is installed, and {version} gave the command"
    try:
        network = _network(files, runtime, options)
        (block,) = embed_blocks(network, images, max(1, len(images)), options=options)
    except UserError as error:
        return machine, str(error)
    return machine, block


def _network(files: dict[str, bytes], runtime: str, options: EmbedOptions) -> Network:
    """The embedder, opened once in a worker."""
    digest = hashlib.sha256()
    for name, content in files.items():
        digest.update(f"{name} {len(content)} ".encode() + content)
    key = f"{digest.hexdigest()} {runtime} {options.flip} {options.scales}"
    if key not in _kept:
        _kept.clear()
        with tempfile.TemporaryDirectory(prefix="resight-") as place:
            for name, content in files.items():
                path = Path(place, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            _kept[key] = _opened(Path(place), runtime, options)
    return _kept[key]  # type: ignore[no-any-return]


def _opened(folder: Path, runtime: str, options: EmbedOptions) -> Network:
    if runtime == "torch":
        from resight.models.embedder import Embedder

        return Embedder.load(folder)
    from resight.models.export.choose import saved_graph

    found = saved_graph(folder, "onnx", flip=options.flip, scales=options.scales)
    if found is None:
        raise UserError(
            "its graph can't be used here: torch and onnxruntime are of other versions than where "
            f"it was made (Python {sys.version_info.major}.{sys.version_info.minor}); "
            "or take --runtime torch"
        )
    return found
