"""Images a second of training, beside the bare network and the bare reading of images.

    python benchmarks/train.py signs/index.csv --net mobilenetv2_100:96 --net resnet18:128
    python benchmarks/train.py photos/ --net resnet50:256x128 --set precision=bf16  # on a GPU

Five parts, each in a process of its own, the repeats in turns:

- network: forward, a weighted sum, backward and optimiser on a batch that stays in memory
- step: the package's own step with its losses on that batch
- reading: the loader alone (decode and augment), with the workers that training uses
- reading, all cores: the same with as many workers as cores
- training: `fit`, the loop as `resight train` runs it: its second epoch, from the start (of
  its workers too) to the last step

`of the slower` is training / min(network, reading): at least 0.9 is the goal where a GPU does the
network's work. On a CPU alone both draw on the same cores: an image costs what the network and what
the reading cost, so that the most one can hope for is about 1 / (1/network + 1/reading on all
cores); `of both` is training beside that. CPU time (milliseconds of cores an image) doesn't depend
on who else uses the machine: `work` is that of network and reading over that of training. Ratios
are taken within each repeat; medians, least and most are given. Memory is the peak of the main
process and of its largest worker (which shares pages with it). Linux only.
Writes benchmarks/results/train.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

import resight
from peers.watch import machine
from resight.cli.common import parse_size
from resight.data.imageset import ImageSet
from resight.data.loading import Draw, Pictures, default_workers, loader
from resight.data.sources import load_images
from resight.data.splits import training_parts
from resight.settings import apply_pairs
from resight.train.loop import LoopOptions, Watcher, fit
from resight.train.prepare import build_story, definite
from resight.train.recipes import settings_of
from resight.train.rundir import Run
from resight.train.step import Stepper
from resight.train.story import Story

HERE = Path(__file__).parent
WARM = 2  # steps before the clock starts, where a batch is in memory
SPAWN = multiprocessing.get_context("spawn")
PARTS = ("network", "step", "reading", "reading, all cores", "training")


class Clocked(Story):
    """A story of a short first epoch, to warm up, and a second one, whose beginning it notes."""

    steps = 0
    epoch = -1
    began = (0.0, 0.0)

    def batches(self, epoch: int) -> list[list[Draw]]:
        """The first batches of the epoch."""
        return super().batches(epoch)[: self.steps if epoch else WARM]

    def set_rates(self, epoch: int, step: int) -> float:
        """As ever, and note when an epoch begins."""
        if epoch != self.epoch:
            self.epoch, self.began = epoch, now()
        return super().set_rates(epoch, step)


def now() -> tuple[float, float]:
    """Seconds by the clock, and CPU seconds of this process."""
    return time.perf_counter(), time.process_time()


def workers_time() -> float:
    """CPU seconds of the workers that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def prepared(net: str, args: argparse.Namespace) -> tuple[Clocked, ImageSet]:
    """The story and its training images."""
    backbone, _, size = net.partition(":")
    values = {"backbone": backbone, "size": parse_size(size), "weights": "none", "epochs": 2}
    settings = settings_of(apply_pairs(values, args.set), "--set")
    parts = training_parts(load_images(args.images), val_share=settings.val_share, seed=0)
    settings = definite(settings, parts.train, lambda line: None)
    story = Clocked(**vars(build_story(settings, parts, lambda line: None)))
    story.steps = args.steps
    return story, parts.train


def in_memory(
    story: Clocked, images: ImageSet, step: Callable[[torch.Tensor, torch.Tensor], object]
) -> dict[str, float]:
    """Time `step` on the first batch, as often as the epoch has batches."""
    pictures = Pictures(images, story.embedder.preprocess, story.settings.augment)
    batch = next(iter(loader(pictures, story.batches(1), 0)))
    labels = torch.tensor(story.labels)[batch.rows]
    for _ in range(WARM):
        step(batch.images, labels)
    synchronize()
    began = now()
    for _ in range(story.steps):
        step(batch.images, labels)
    synchronize()
    return figures(story.steps * len(labels), began, now())


def bare(story: Clocked, images: ImageSet, args: argparse.Namespace) -> dict[str, float]:
    """The network alone: what any loop must do with it."""
    torch.use_deterministic_algorithms(False)
    accelerator = Accelerator(mixed_precision=args.precision)
    embedder = story.embedder.to(accelerator.device).train()
    # With a sum of what the neck has centred there would be no gradient.
    weights = torch.randn(embedder.dim, device=accelerator.device)
    optimizer = story.optimizers[0]
    for group in optimizer.param_groups:
        group["lr"] = 1e-9  # nothing is learned here: the weights stay what they are

    def step(pictures: torch.Tensor, labels: torch.Tensor) -> None:
        with accelerator.autocast():
            e = embedder(pictures.to(accelerator.device, non_blocking=True))[1]
        (e * weights).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    return in_memory(story, images, step)


def own_step(story: Clocked, images: ImageSet, args: argparse.Namespace) -> dict[str, float]:
    """The package's step."""
    stepper = Stepper(story, Accelerator(mixed_precision=args.precision))
    story.set_rates(0, 0)
    return in_memory(story, images, lambda x, labels: stepper(x, labels, update=True))


def reading(story: Clocked, images: ImageSet, workers: int) -> dict[str, float]:
    """The loader alone."""
    batches = story.batches(1)
    pictures = Pictures(images, story.embedder.preprocess, story.settings.augment)
    began = now()
    taken = sum(len(batch.rows) for batch in loader(pictures, batches, workers))
    return figures(taken, began, now(), workers_time())


def training(story: Clocked, images: ImageSet, args: argparse.Namespace) -> dict[str, float]:
    """The loop, from the start of its second epoch to the last step."""
    last = [now()]

    def note(done: int, total: int, text: str) -> None:
        last[0] = now()  # at the last step its losses have been fetched: a GPU is done with them

    options = LoopOptions(precision=args.precision, workers=args.workers)
    with tempfile.TemporaryDirectory() as folder:
        run = Run.create(Path(folder) / "run", story.settings, images)
        before = workers_time()
        fit(story, images, None, run, options, watcher=Watcher(step=note))
    warm, taken = (sum(len(batch) for batch in story.batches(epoch)) for epoch in (0, 1))
    # Known only when they have ended, of both epochs together.
    workers = (workers_time() - before) * taken / (warm + taken)
    return figures(taken, story.began, last[0], workers)


def figures(
    taken: int, began: tuple[float, float], ended: tuple[float, float], workers: float = 0.0
) -> dict[str, float]:
    """Images a second, and CPU milliseconds an image."""
    work = ended[1] - began[1] + workers
    return {"rate": taken / (ended[0] - began[0]), "cpu_ms": 1000 * work / taken}


def synchronize() -> None:
    """Wait for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def child(part: str, net: str, threads: int, args: argparse.Namespace, answer: Connection) -> None:
    """Measure one part and tell the parent."""
    multiprocessing.set_start_method("fork", force=True)  # of the loader's workers, as ever
    if threads:
        torch.set_num_threads(threads)
    story, images = prepared(net, args)
    if part == "network":
        found = bare(story, images, args)
    elif part == "step":
        found = own_step(story, images, args)
    elif part == "training":
        found = training(story, images, args)
    else:
        found = reading(story, images, args.workers if part == "reading" else machine()["cores"])
    found["main_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    found["worker_mb"] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e6
    if torch.cuda.is_available():
        found["gpu_mb"] = torch.cuda.max_memory_allocated() / 1e6
    answer.send(found)


def measured(part: str, net: str, threads: int, args: argparse.Namespace) -> dict[str, float]:
    """One part, in a fresh process: a fork of threads that have worked already is far slower."""
    ours, theirs = SPAWN.Pipe(duplex=False)
    process = SPAWN.Process(target=child, args=(part, net, threads, args, theirs))
    process.start()
    theirs.close()
    try:
        return dict(ours.recv())
    except EOFError:
        raise SystemExit(f"{net}, {part}: failed, see above") from None
    finally:
        process.join()


def ratios(parts: dict[str, dict[str, float]]) -> dict[str, float]:
    """Training beside its floors, in one repeat."""
    rate = {part: found["rate"] for part, found in parts.items()}
    work = {part: found["cpu_ms"] for part, found in parts.items()}
    out = {
        "of the slower": rate["training"] / min(rate["network"], rate["reading"]),
        "step of network": work["network"] / work["step"],
        "work": (work["network"] + work["reading"]) / work["training"],
    }
    if "gpu_mb" not in parts["network"]:
        both = 1 / (1 / rate["network"] + 1 / rate["reading, all cores"])
        out["of both"] = rate["training"] / both
    return out


def summary(repeats: list[dict[str, dict[str, float]]]) -> dict[str, Any]:
    """Medians of the parts; of the ratios also least and most."""
    parts = {
        part: {
            key: round(statistics.median(repeat[part][key] for repeat in repeats), 2)
            for key in repeats[0][part]
        }
        for part in repeats[0]
    }
    each = [ratios(repeat) for repeat in repeats]
    spread = {}
    for name in each[0]:
        values = sorted(one[name] for one in each)
        spread[name] = [round(x, 3) for x in (statistics.median(values), values[0], values[-1])]
    return {"parts": parts, "ratios (median, least, most)": spread}


def main() -> None:
    """Measure, print, and write benchmarks/results/train.json."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", type=Path, help="an image set with objects")
    parser.add_argument("--net", action="append", required=True, metavar="BACKBONE:SIZE")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--steps", type=int, default=30, help="batches of an epoch")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--workers", type=int, default=default_workers())
    parser.add_argument("--threads", type=int, nargs="+", default=[0], help="of torch; 0: its own")
    parser.add_argument("--precision", default="no", choices=["no", "bf16", "fp16"])
    parser.add_argument("--out", type=Path, default=HERE / "results" / "train.json")
    args = parser.parse_args()
    result: dict[str, Any] = {
        "images": f"{args.images.parent.name}/{args.images.name}",
        "machine": machine(),
        "versions": {"resight": resight.__version__, "torch": torch.__version__},
        "settings": args.set,
        "workers": args.workers,
        "precision": args.precision,
        "repeats": args.repeats,
        "steps": args.steps,
        "nets": {},
    }
    for net, threads in itertools.product(args.net, args.threads):
        name = f"{net}, {threads or 'all'} threads"
        repeats = []
        for _ in range(args.repeats):
            repeats.append({part: measured(part, net, threads, args) for part in PARTS})
            load = " ".join(f"{x:.1f}" for x in os.getloadavg())
            rates = ", ".join(f"{part} {found['rate']:.0f}" for part, found in repeats[-1].items())
            print(f"{name}: {rates} images/s (load {load})", flush=True)
        result["nets"][name] = found = summary(repeats)
        for ratio, (middle, least, most) in found["ratios (median, least, most)"].items():
            print(f"  {ratio:16} {middle:.2f} ({least:.2f} to {most:.2f})")
        for part, values in found["parts"].items():
            memory = f"{values['main_mb']:.0f} MB, worker {values['worker_mb']:.0f} MB"
            print(
                f"  {part:18} {values['rate']:7.1f} images/s {values['cpu_ms']:6.2f} ms  {memory}"
            )
    if torch.cuda.is_available():  # asked for last: a process that did can't fork for CUDA
        result["machine"]["gpu"] = torch.cuda.get_device_name()
    args.out.parent.mkdir(exist_ok=True)
    args.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
