"""What a GPU is asked for, in at most eight minutes: does it give the CPU's digits, and how fast.

    python benchmarks/gpu.py                      # all parts, into benchmarks/results/gpu.json
    python benchmarks/gpu.py --parts losses,embedding --out there.json
    python benchmarks/gpu.py --tiny               # everything once, small, on a CPU too

A part is a process of its own with a limit of time; what it has found is written at once, so that
what comes late costs nothing that was there before. A part that fails says why, and the next goes
on. What it needs: torch, torchvision, triton, numba, accelerate, safetensors, pydantic, jinja2,
matplotlib, Pillow, opencv, PyYAML, tensorboard and huggingface_hub, and these wheels (MB), which a
bare machine may lack and `--wheels FOLDER` takes from there, without a network:

    polars 0.9, polars-runtime-32 53.9, faiss-cpu 18.8, timm 2.8, rich 0.3, typer 0.1,
    annotated-doc and shellingham 0.0 (of typer)

All else is not needed here: onnxruntime, onnx, fastapi and what belongs to the service.

1. evaluation   features of Market-1501's and SOP's size on the GPU: every number to the last
                digit that of the CPU, seconds beside torch's bare product there
2. losses       each on the GPU beside the CPU: value, gradient; Smooth-AP of B = 4,096 and 16,384
                by Triton's kernel and by plain torch: milliseconds, memory
3. training     each recipe in bf16 and fp16: images a second, memory; stopped and resumed gives
                the same weights as not stopped
4. embedding    resnet50 and a transformer at 224, last map and all depths: images a second from
                files, beside the bare network on data in memory
5. whole        a training on a set of real images at 224 px (--images, else drawn ones), by the
                recipe "auto", in what is left of the time
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
LIMITS = {"evaluation": 80, "losses": 70, "training": 130, "embedding": 80, "whole": 110}  # seconds
TOTAL = 470


def main() -> None:
    """Run the parts, or one of them as a child."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", default=",".join(LIMITS))
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--images", type=Path, help="a labelled image set for the last part")
    parser.add_argument("--wheels", type=Path, help="a folder of wheels that are unpacked and used")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "gpu.json")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child is not None:
        PARTS[args.child](args)
        return
    began, result = time.monotonic(), {"parts": {}}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        unpack(args.wheels, Path(folder) / "wheels")
        for name in args.parts.split(","):
            left = TOTAL - (time.monotonic() - began)
            limit = left if name == "whole" else min(LIMITS[name], left)
            limit = 900 if args.tiny else limit  # a dry run may be on a busy machine
            if limit < 5:
                result["parts"][name] = {"failed": "no time left"}
            else:
                run_part(name, limit, Path(folder), args, result)
            result["seconds"] = round(time.monotonic() - began, 1)
            write(args.out, result)
    print(json.dumps(result, indent=2))


def unpack(wheels: Path | None, folder: Path) -> None:
    """Wheels onto the path of the children: pure ones and those with libraries alike."""
    paths = [str(HERE.parent / "src"), str(HERE)]
    for wheel in sorted(wheels.glob("*.whl")) if wheels is not None else ():
        with zipfile.ZipFile(wheel) as packed:
            packed.extractall(folder)
    paths += [str(folder)] if folder.is_dir() else []
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([*paths, *([before] if before else [])])


def run_part(
    name: str, limit: float, folder: Path, args: argparse.Namespace, result: dict[str, Any]
) -> None:
    """A part as a child; each line that it prints is added to the results, which are written."""
    words = [sys.executable, __file__, "--child", name, "--out", str(folder)]
    words += ["--tiny"] * args.tiny + (["--images", str(args.images)] if args.images else [])
    found = result["parts"][name] = {}
    errors = folder / f"{name}.err"
    began = time.monotonic()
    os.environ["GPU_SECONDS"] = str(limit)
    with open(errors, "w") as sink:
        child = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=sink, text=True)
        timer = Timer(limit, child)
        assert child.stdout is not None
        for line in child.stdout:
            if line.startswith("{"):
                found |= json.loads(line)
                write(args.out, result)
                print(f"{name}: {line.rstrip()}", file=sys.stderr, flush=True)
        child.wait()
        timer.cancel()
    if timer.late:
        found["stopped"] = f"after {limit:.0f} s"
    elif child.returncode:
        last = errors.read_text().strip().splitlines()[-6:]
        found["failed"] = [f"exit {child.returncode}", *last]
    found["seconds"] = round(time.monotonic() - began, 1)


class Timer:
    """Kills a child when its time is up; `late` says so."""

    def __init__(self, seconds: float, child: subprocess.Popen[str]):
        import threading

        self.late, self._child = False, child
        self._timer = threading.Timer(seconds, self._stop)
        self._timer.start()

    def _stop(self) -> None:
        self.late = True
        self._child.kill()

    def cancel(self) -> None:
        """Its work is done."""
        self._timer.cancel()


def write(path: Path, content: dict[str, Any]) -> None:
    """All results, whole."""
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(json.dumps(content, indent=2) + "\n")
    temporary.replace(path)


def tell(**found: Any) -> None:
    """Results for the parent, at once."""
    print(json.dumps(found), flush=True)


# What the parts share ---------------------------------------------------------------------


def device() -> str:
    """The GPU; without one the CPU, where a dry run compares it with itself."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def wait() -> None:
    """Until the GPU has done what it was given."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def clocked(work: Callable[[], Any], times: int = 3) -> float:
    """The least seconds of some tries after one to warm up."""
    work()
    wait()
    tries = []
    for _ in range(times):
        begin = time.perf_counter()
        work()
        wait()
        tries.append(time.perf_counter() - begin)
    return min(tries)


@contextmanager
def memory(found: dict[str, Any]) -> Iterator[None]:
    """Peak megabytes of the GPU beyond what was held before, into found["mb"]."""
    import torch

    if not torch.cuda.is_available():
        yield
        return
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    yield
    wait()
    found["mb"] = round((torch.cuda.max_memory_allocated() - before) / 1e6, 1)


# The parts --------------------------------------------------------------------------------


def evaluation(args: argparse.Namespace) -> None:
    """The GPU's digits are the CPU's."""
    import numpy as np
    import polars as pl
    import torch

    from resight.data.imageset import ImageSet, normalise
    from resight.evaluate.run import measure

    where = device()
    tell(gpu=torch.cuda.get_device_name() if where == "cuda" else "none", torch=torch.__version__)
    sizes = {"market": (19281, 2048, 750, 6), "sop": (60502, 512, 11316, 0)}
    if args.tiny:
        sizes = {"market": (300, 32, 30, 3), "sop": (200, 16, 50, 0)}
    for name, (count, dim, objects, cameras) in sizes.items():
        rng = np.random.default_rng(1)
        of = rng.integers(0, objects, count)
        centres = rng.normal(size=(objects, dim)).astype(np.float32)
        vectors = centres[of] + 1.5 * rng.normal(size=(count, dim)).astype(np.float32)
        table: dict[str, Any] = {"path": [f"{n}.jpg" for n in range(count)]}
        table["object"] = [str(one) for one in of]
        if cameras:
            table["camera"] = [str(one) for one in rng.integers(0, cameras, count)]
        images = ImageSet(normalise(pl.DataFrame(table)), Path(), name)
        answers, seconds = {}, {}
        for place in ("cpu", where):
            begin = time.perf_counter()
            answers[place] = measure(vectors, images, device=place)
            seconds[place] = round(time.perf_counter() - begin, 3)
        begin = time.perf_counter()
        answers[where] = measure(vectors, images, device=where)  # warm
        seconds[where] = round(time.perf_counter() - begin, 3)
        on = torch.from_numpy(vectors).to(where)
        rows = 2048
        product = clocked(lambda: [on[a : a + rows] @ on.T for a in range(0, count, rows)], 2)  # noqa: B023
        one, other = (json.dumps(answers[p].summary(), default=str) for p in ("cpu", where))
        tell(
            **{
                name: {
                    "same digits": one == other,
                    "seconds": seconds,
                    "product": round(product, 4),
                    "mAP": answers[where].mAP,
                }
            }
        )


def losses(args: argparse.Namespace) -> None:
    """Value and gradient on both; Smooth-AP's kernel."""
    import torch

    from resight import losses as ours
    from resight.losses import smooth_ap, smooth_ap_rows

    where, classes, each, dim = device(), 48, 4, 512
    if args.tiny:
        classes, dim = 6, 16
    made: dict[str, Callable[[], torch.nn.Module]] = {
        "smooth_ap": ours.SmoothAPLoss,
        "blackbox_ap": ours.BlackboxAPLoss,
        "fastap": ours.FastAPLoss,
        "triplet": ours.TripletLoss,
        "contrastive": ours.ContrastiveLoss,
        "ctl": ours.CentroidTripletLoss,
        "center": lambda: ours.CenterLoss(classes, dim),
        "proxy_nca": lambda: ours.ProxyNCALoss(classes, dim),
        "arcface": lambda: ours.ArcFaceLoss(classes, dim),
        "classifier": lambda: ours.ClassifierLoss(classes, dim),
    }
    labels = torch.arange(classes).repeat_interleave(each)
    x = torch.randn(classes, 1, dim, generator=torch.Generator().manual_seed(0))
    x = (x + torch.randn(classes, each, dim, generator=torch.Generator().manual_seed(1))).flatten(
        0, 1
    )
    for name, make in made.items():
        try:
            answers = []
            for place in ("cpu", where):
                torch.manual_seed(0)
                loss = make()
                on = x.clone().to(place).requires_grad_()
                value = loss.to(place)(on, labels.to(place))
                value.backward()
                answers.append((float(value), on.grad.cpu()))
            (a, ga), (b, gb) = answers
            near = float((ga - gb).norm() / ga.norm().clamp(min=1e-12))
            tell(**{name: {"value": a, "gpu less cpu": b - a, "gradient, relative": near}})
        except Exception as error:  # one that fails is no reason not to see the others
            tell(**{name: {"failed": f"{type(error).__name__}: {error}"[:300]}})
    for batch in (64, 128) if args.tiny else (4096, 16384):
        big = torch.randn(batch, dim, device=where, requires_grad=True)
        same = torch.arange(batch // 4, device=where).repeat_interleave(4)
        loss, found = ours.SmoothAPLoss(), {}
        fillers = {"as it comes": smooth_ap._filler, "plain torch": lambda _: smooth_ap_rows.rows}
        for label, filler in fillers.items():
            smooth_ap._filler = filler  # type: ignore[assignment]
            one: dict[str, Any] = {"kernel": filler(torch.device(where)).__module__}

            def step() -> None:
                big.grad = None  # noqa: B023
                loss(big, same).backward()  # noqa: B023

            with memory(one):
                one["ms"] = round(1000 * clocked(step), 3)
            one["value"] = float(loss(big, same))
            found[label] = one
        smooth_ap._filler = fillers["as it comes"]  # type: ignore[assignment]
        tell(**{f"smooth_ap, B = {batch}": found})


def drawn(folder: Path, objects: int, shots: int, pixels: int) -> Any:
    """A labelled set of drawn pictures."""
    from resight.data.rendered.write import render
    from resight.data.sources import load_images

    place = folder / f"drawn-{objects}-{shots}-{pixels}"
    return load_images(
        render(place, objects=objects, images=shots, size=pixels, workers=None).parent
    )


def training(args: argparse.Namespace) -> None:
    """Each recipe in both precisions, and resumed."""
    import signal
    from dataclasses import replace

    import torch

    from resight.train import checkpoint, start
    from resight.train.loop import LoopOptions, Stopped, Watcher
    from resight.train.recipes import settings_of

    where = device()
    images = drawn(args.out, 12, 4, 32) if args.tiny else drawn(args.out, 96, 8, 224)
    shared: dict[str, Any] = {"backbone": "resnet50", "weights": "none", "size": [224, 224]}
    if args.tiny:
        shared |= {"backbone": "test_resnet", "size": [32, 32]}
    ids, steps = (3, 4) if args.tiny else (32, 12)
    recipes: dict[str, dict[str, Any]] = {
        "ctl": {"ids": ids, "images": 4 if not args.tiny else 2, "epochs": 9},
        "smooth_ap": {"ids": ids, "images": 4 if not args.tiny else 2, "epochs": 9},
        "insclr": {"epochs": 1, "steps": steps, "tuples": ids, "stages": [{}]},
    }
    kinds = ("bf16", "fp16") if where == "cuda" else ("bf16",)
    workers = 0 if args.tiny else None
    for name, own in recipes.items():
        for kind in kinds:
            try:
                settings = settings_of(shared | own | {"recipe": name}, name)
                if name != "insclr":
                    settings = settings.model_copy(update={"steps": steps})
                options = LoopOptions(precision=kind, workers=workers, log_every=1)
                found: dict[str, Any] = {}
                whole, cut = (args.out / f"{name}-{kind}-{which}" for which in ("whole", "cut"))
                with memory(found):
                    begin = time.perf_counter()
                    start.start(settings, images, whole, options, Watcher())
                    found["seconds"] = round(time.perf_counter() - begin, 2)
                logs = list(whole.rglob("log.jsonl"))
                lines = [json.loads(line) for log in logs for line in log.read_text().splitlines()]
                rates = sorted(x["images_per_second"] for x in lines if "images_per_second" in x)
                found["images a second"] = round(rates[len(rates) // 2], 1) if rates else None
                tell(**{f"{name}, {kind}": found})

                def stop(done: int, total: int, text: str) -> None:
                    if done == steps // 2 and total == steps:
                        os.kill(os.getpid(), signal.SIGTERM)

                try:
                    start.start(settings, images, cut, replace(options), Watcher(step=stop))
                    found["resumed"] = "was not stopped"
                except Stopped:
                    start.resume(cut, options, Watcher())
                    a, b = (
                        checkpoint.load(next(iter(sorted(run.rglob("last.pt")))))["model"]
                        for run in (whole, cut)
                    )
                    found["resumed"] = all(torch.equal(a[key], b[key]) for key in a)
                    worst = max(float((a[k].float() - b[k].float()).abs().max()) for k in a)
                    found["resumed, largest difference"] = worst
                tell(**{f"{name}, {kind}": found})
            except Exception as error:
                tell(**{f"{name}, {kind}": {"failed": f"{type(error).__name__}: {error}"[:300]}})


def embedding(args: argparse.Namespace) -> None:
    """Files to vectors beside the bare network."""
    import torch

    from resight.features.compute import EmbedOptions, find_batch_size
    from resight.features.write import embed_images
    from resight.models.depths import depths_of, usual_depths
    from resight.models.fitted import with_parts
    from resight.models.open import open_embedder

    where = device()
    images = drawn(args.out, 12, 4, 32) if args.tiny else drawn(args.out, 240, 8, 224)
    images = images.rows([*range(len(images))] * (1 if args.tiny else 4))
    size = (32, 32) if args.tiny else (224, 224)
    names = ("test_resnet",) if args.tiny else ("resnet50", "vit_base_patch16_224")
    for name in names:
        bare = open_embedder(name, weights="none", size=size, device=where)
        parts = [(depth, 1) for depth in usual_depths(depths_of(bare.backbone, size))]
        for label, model in (("last map", bare), ("all depths", with_parts(bare, parts))):
            found: dict[str, Any] = {}
            with memory(found):
                batch = find_batch_size(model)
                given = torch.rand(batch, 3, *size, device=where)
                found["bare"] = round(batch / clocked(lambda: model.embed_tensor(given)), 1)  # noqa: B023
            found["batch"] = batch
            options = EmbedOptions(batch_size=batch, workers=0 if args.tiny else None)
            begin = time.perf_counter()
            embed_images(model, images, options=options, runtime="torch")
            found["from files"] = round(len(images) / (time.perf_counter() - begin), 1)
            found["of bare"] = round(found["from files"] / found["bare"], 3)
            tell(**{f"{name}, {label}": found})


def whole(args: argparse.Namespace) -> None:
    """A training from the weights at hand, and what it gained on unseen objects."""
    import resight

    left = float(os.environ.get("GPU_SECONDS", "60"))
    images = resight.load_images(args.images) if args.images else None
    if images is None:
        images = drawn(args.out, 12, 4, 32) if args.tiny else drawn(args.out, 400, 8, 224)
    size, values = (32, {"backbone": "test_resnet"}) if args.tiny else (224, {})
    out = args.out / "whole"
    run = resight.train_embedder(
        images,
        out,
        recipe="ctl" if args.tiny else None,
        minutes=None if args.tiny else max(0.3, (left - 40) / 60),
        size=size,
        weights="none" if args.tiny or not args.images else "auto",
        workers=0 if args.tiny else None,
        settings={"ids": 3, "images": 2, "epochs": 1} if args.tiny else None,
        tell=lambda line: tell(line=line),
        **values,
    )
    tell(minutes=round(run.minutes, 2), score=run.score)
    scores = resight.evaluate_embedder(out, workers=0 if args.tiny else None)
    tell(
        scores={
            one.title if hasattr(one, "title") else str(n): one.mAP for n, one in enumerate(scores)
        }
    )


PARTS: dict[str, Callable[[argparse.Namespace], None]] = {
    "evaluation": evaluation,
    "losses": losses,
    "training": training,
    "embedding": embedding,
    "whole": whole,
}

if __name__ == "__main__":
    main()
