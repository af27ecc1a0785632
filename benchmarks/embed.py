"""Images a second of embedding, beside bare decoding and the bare network.

    python benchmarks/embed.py --net mobilenetv2_100 --net resnet50
    python benchmarks/embed.py --photos 1000 --catalogue 1000 --thumbnails 10000   # in full

Three kinds of JPEG files, drawn here: photos of a phone (12 megapixels), of a catalogue (1000 x
1000), thumbnails (256 x 256), all with the fine detail of photos. Parts, each in a process of its
own, the repeats in turns; imports and the making of a graph don't count:

- decoding: files to pictures at the network's size, on all cores, nothing else
- network: the best engine (ONNX Runtime on a CPU) on pictures in memory
- resight: `embed_images`, from files to vectors; and the same by torch
- usual: torchvision's ImageFolder and transforms in a DataLoader with a worker a core, timm's
  model, as their documentation has it (a decoder that knows nothing of the size that is wanted)

`of the slower` is resight / min(decoding, network), the goal 0.9 where they don't share the cores.
On a CPU they do: an image costs what both cost, and `of both` is resight beside 1 / (1 / decoding
+ 1 / network), 1.0 where no time is lost between them. `first` is the time from the start of
`embed_images` to the vectors of ten images. Writes benchmarks/results/embed.json.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from peers.watch import machine

HERE = Path(__file__).parent
SPAWN = multiprocessing.get_context("spawn")
KINDS = {"photos": (3000, 4000), "catalogue": (1000, 1000), "thumbnails": (256, 256)}
PARTS = ("decoding", "network", "resight", "resight, torch", "usual")
DISTINCT = 24  # files of a kind; sets that are larger name them again


def draw(folder: Path, kind: str) -> None:
    """Files of a kind, in one sub-folder: smooth colours, edges, and grain as of a sensor."""
    height, width = KINDS[kind]
    (folder / kind / "all").mkdir(parents=True)
    for number in range(DISTINCT):
        rng = np.random.default_rng([number, height])
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        picture = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.int16)
        blocks = rng.integers(-30, 30, (height // 32 + 1, width // 32 + 1, 1))
        picture = picture + np.kron(blocks, np.ones((32, 32, 1), int))[:height, :width]
        picture = picture + rng.integers(-10, 11, (height, width, 1))
        pixels = np.clip(picture, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / kind / "all" / f"{number:03d}.jpg", quality=90)


def image_set(folder: Path, kind: str, count: int) -> Any:
    """So many rows over the files of a kind."""
    import polars as pl

    from resight.data.imageset import ImageSet, normalise

    files = sorted((folder / kind / "all").iterdir())
    paths = [str(files[n % len(files)]) for n in range(count)]
    return ImageSet(normalise(pl.DataFrame({"path": paths})), folder, kind)


def opened(net: str, size: int, runtime: str) -> Any:
    """The network with random weights, by a runtime."""
    import torch

    from resight.models.export.choose import for_use
    from resight.models.open import open_embedder

    torch.manual_seed(0)
    embedder = open_embedder(net, weights="none", size=(size, size))
    return for_use(embedder, runtime)


def decoding(folder: Path, kind: str, net: str, size: int, count: int) -> dict[str, float]:
    """Bare decoding and resizing on all cores."""
    from resight.data.pixels import Pixels
    from resight.data.transforms import Preprocess

    pixels = Pixels(image_set(folder, kind, count), Preprocess(size=(size, size)))
    batches = [range(at, min(at + 32, count)) for at in range(0, count, 32)]
    next(pixels.batches(batches[:1]))
    return clocked(lambda: sum(len(batch.rows) for batch in pixels.batches(batches)))


def network(folder: Path, kind: str, net: str, size: int, count: int) -> dict[str, float]:
    """The bare engine on a batch in memory."""
    batch = np.random.default_rng(0).integers(0, 256, (32, size, size, 3), dtype=np.uint8)
    runtime = opened(net, size, "auto")
    if runtime.runtime == "torch":  # a GPU
        import torch

        given = torch.rand(32, 3, size, size).to(runtime.device)
        run = lambda: runtime.embed_tensor(given).cpu()  # noqa: E731
    else:
        run = lambda: runtime.embed_pixels(batch)  # noqa: E731
    run()
    return clocked(lambda: sum(len(run()) for _ in range(max(2, count // 32))))


def ours(folder: Path, kind: str, net: str, size: int, count: int, runtime: str = "auto") -> Any:
    """`embed_images`, whole; and the time to the vectors of ten images."""
    from resight.features.write import embed_images

    images, embedder = image_set(folder, kind, count), opened(net, size, runtime)
    begin = time.perf_counter()
    embed_images(embedder, images.rows(range(10)), runtime=runtime)
    first = time.perf_counter() - begin
    found = clocked(lambda: len(embed_images(embedder, images, runtime=runtime)))
    return found | {"first": first}


def by_torch(*given: Any) -> Any:
    """The same by torch."""
    return ours(*given, runtime="torch")


def usual(folder: Path, kind: str, net: str, size: int, count: int) -> dict[str, float]:
    """ImageFolder, transforms, DataLoader, timm."""
    import timm
    import torch
    from torch.utils.data import DataLoader, Subset
    from torchvision import datasets, transforms

    steps = [transforms.Resize((size, size)), transforms.ToTensor()]
    steps += [transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
    files = datasets.ImageFolder(str(folder / kind), transforms.Compose(steps))
    rows = Subset(files, [n % len(files) for n in range(count)])
    loader = DataLoader(rows, batch_size=32, num_workers=machine()["cores"])
    model = timm.create_model(net, pretrained=False, num_classes=0).eval()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model.to(device)

    def work() -> int:
        with torch.inference_mode():
            return sum(len(model(images.to(device)).cpu()) for images, _ in loader)

    with torch.inference_mode():
        model(torch.zeros(2, 3, size, size, device=device))
    return clocked(work)


def clocked(work: Any) -> dict[str, float]:
    """Images a second, and the processor's milliseconds an image (of this process alone)."""
    wall, cpu = time.perf_counter(), time.process_time()
    done = work()
    seconds = time.perf_counter() - wall
    return {"rate": done / seconds, "cpu_ms": 1000 * (time.process_time() - cpu) / done}


WORK = dict(zip(PARTS, (decoding, network, ours, by_torch, usual), strict=True))


def child(part: str, given: tuple[Any, ...], answer: Connection) -> None:
    """Measure one part and tell the parent."""
    answer.send(WORK[part](*given))


def measured(part: str, *given: Any) -> dict[str, float]:
    """One part, in a fresh process."""
    ours_, theirs = SPAWN.Pipe(duplex=False)
    process = SPAWN.Process(target=child, args=(part, given, theirs))
    process.start()
    theirs.close()
    try:
        return dict(ours_.recv())
    except EOFError:
        raise SystemExit(f"{part}: failed, see above") from None
    finally:
        process.join()


def summary(repeats: list[dict[str, dict[str, float]]]) -> dict[str, Any]:
    """Medians of the parts, and of the ratios within each repeat also least and most."""
    found: dict[str, Any] = {}
    for part in repeats[0]:
        keys = repeats[0][part]
        found[part] = {k: round(statistics.median(r[part][k] for r in repeats), 3) for k in keys}
    ratios: dict[str, list[float]] = {"of the slower": [], "of both": [], "of usual": []}
    for one in repeats:
        rate = {part: values["rate"] for part, values in one.items()}
        ratios["of the slower"].append(rate["resight"] / min(rate["decoding"], rate["network"]))
        both = 1 / (1 / rate["decoding"] + 1 / rate["network"])
        ratios["of both"].append(rate["resight"] / both)
        ratios["of usual"].append(rate["resight"] / rate["usual"])
    found["ratios (median, least, most)"] = {
        name: [round(f(values), 3) for f in (statistics.median, min, max)]
        for name, values in ratios.items()
    }
    return found


def main() -> None:
    """Draw, measure, print, and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--net", action="append", help="by default mobilenetv2_100 and resnet50")
    parser.add_argument("--size", type=int, default=224)
    for kind, count in (("photos", 100), ("catalogue", 200), ("thumbnails", 1000)):
        parser.add_argument(f"--{kind}", type=int, default=count, help="how many; 0: none")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "embed.json")
    args = parser.parse_args()
    result: dict[str, Any] = {"machine": machine(), "size": args.size, "repeats": args.repeats}
    result["runs"] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ.setdefault("RESIGHT_CACHE", str(folder / "cache"))
        counts = {kind: getattr(args, kind) for kind in KINDS if getattr(args, kind)}
        for kind in counts:
            draw(folder, kind)
        for net in args.net or ["mobilenetv2_100", "resnet50"]:
            for kind, count in counts.items():
                repeats = []
                for _ in range(args.repeats):
                    given = (folder, kind, net, args.size, count)
                    repeats.append({part: measured(part, *given) for part in PARTS})
                    rates = ", ".join(f"{p} {v['rate']:.0f}" for p, v in repeats[-1].items())
                    print(f"{net}, {count} {kind}: {rates} images/s", flush=True)
                found = summary(repeats) | {"images": count, "load": round(os.getloadavg()[0], 1)}
                result["runs"][f"{net}, {kind}"] = found
                print(f"  {found['ratios (median, least, most)']}", flush=True)
                args.out.parent.mkdir(exist_ok=True)
                args.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
