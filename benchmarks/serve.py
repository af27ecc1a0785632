"""The service over loopback beside the bare loop: decode, model, search.

    python benchmarks/serve.py [--seconds 20] [--backbone resnet18] [--memory 2000] [--mutations 0]

Drawn pictures as JPEG, a network without weights, a gallery of them. The floor is a loop in one
process that searches one photo after the other; the service is `resight serve` as a user starts it,
asked by clients that each send the next photo when they have an answer. Clients, service and
decoders share the machine's cores, as they would not; with other work on it the processor's
milliseconds say more. Then: ten times as many clients as the queue holds, and how long the first
request after it takes; memory over many requests; mutated uploads.
Writes benchmarks/results/serve.json.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

RESULT = Path(__file__).parent / "results" / "serve.json"
HEAD = (
    b'--b\r\nContent-Disposition: form-data; name="photo"; filename="p"\r\n'
    b"Content-Type: image/jpeg\r\n\r\n"
)


def picture(number: int, side: int) -> bytes:
    """A photo of one of 50 objects, as JPEG."""
    base = np.random.default_rng([1, number % 50]).integers(0, 256, (8, 8, 3))
    noise = np.random.default_rng([2, number]).normal(0, 25, (side, side, 3))
    whole = np.kron(base, np.ones((side // 8, side // 8, 1))) + noise
    file = io.BytesIO()
    Image.fromarray(np.clip(whole, 0, 255).astype(np.uint8)).save(file, "JPEG", quality=85)
    return file.getvalue()


def message(photo: bytes) -> bytes:
    """A whole request."""
    body = HEAD + photo + b"\r\n--b--\r\n"
    head = "POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Length: "
    kind = "\r\nContent-Type: multipart/form-data; boundary=b\r\n\r\n"
    return f"{head}{len(body)}{kind}".encode() + body


async def ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes
) -> tuple[int, bool]:
    """Status, and whether the connection stays open."""
    writer.write(request)
    await writer.drain()
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
    await reader.readexactly(length)
    return int(head.split()[1]), b"connection: close" not in head


async def load(
    port: int, requests: list[bytes], clients: int, seconds: float, total: int | None = None
) -> tuple[list[tuple[int, float]], float]:
    """(status, seconds) of every request, and how long it took in all."""
    told: list[tuple[int, float]] = []
    begun, sent = time.perf_counter(), 0

    async def client(number: int) -> None:
        nonlocal sent
        at, link = number, None
        while time.perf_counter() - begun < seconds and (total is None or sent < total):
            sent += 1
            started = time.perf_counter()
            try:
                if link is None:
                    link = await asyncio.open_connection("127.0.0.1", port)
                status, stays = await ask(*link, requests[at % len(requests)])
            except (OSError, asyncio.IncompleteReadError, IndexError):
                status, stays = 0, False
            told.append((status, time.perf_counter() - started))
            if not stays and link is not None:
                link[1].close()
                link = None
            if status in (0, 429):
                await asyncio.sleep(0.02)
            at += 7
        if link is not None:
            link[1].close()

    await asyncio.gather(*(client(number) for number in range(clients)))
    return told, time.perf_counter() - begun


def summary(told: list[tuple[int, float]], took: float) -> dict[str, Any]:
    """What is reported of a load."""
    good = np.array([seconds for status, seconds in told if status == 200])
    codes = sorted({status for status, _ in told})
    found: dict[str, Any] = {"requests a second": round(len(good) / took, 2)}
    for part in (50, 95, 99):
        found[f"p{part} ms"] = round(1000 * float(np.percentile(good, part)), 1) if len(good) else 0
    return found | {"status": {str(c): sum(s == c for s, _ in told) for c in codes}}


def memory(pid: int) -> int:
    """MB of a process and its children."""
    pids, total = [pid], 0
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for one in [*pids, *map(int, children)]:
        for line in Path(f"/proc/{one}/status").read_text().splitlines():
            total += int(line.split()[1]) if line.startswith("VmRSS") else 0
    return total // 1024


def processor(pid: int) -> float:
    """Seconds of the processor that a process and its children have had."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    total = 0
    for one in [pid, *map(int, children)]:
        fields = Path(f"/proc/{one}/stat").read_text().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def served(folder: Path, *words: str) -> tuple[subprocess.Popen[str], int]:
    """A running service and its port."""
    command = [sys.executable, "-m", "resight.cli.main", "serve", str(folder), "--port", "0"]
    process = subprocess.Popen(
        [*command, *words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    return process, int(process.stdout.readline().rsplit(":", 1)[1])


def stop(process: subprocess.Popen[str]) -> None:
    """End it as a user does."""
    process.send_signal(signal.SIGTERM)
    process.wait(60)


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--pixels", type=int, default=480)
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--memory", type=int, default=2000)
    parser.add_argument("--mutations", type=int, default=0)
    parser.add_argument("--clients", default="1,8,64")
    told = parser.parse_args()

    from resight.data.transforms import Preprocess
    from resight.models.embedder import Embedder, EmbedderConfig
    from resight.search.gallery import Gallery

    with tempfile.TemporaryDirectory() as place:
        photos = Path(place) / "photos"
        for number in range(told.images):
            path = photos / f"object {number % 50:02d}" / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture(number, told.pixels))
        size = (told.size, told.size)
        config = EmbedderConfig(backbone=told.backbone, preprocess=Preprocess(size=size))
        folder = Path(place) / "gallery"
        with Gallery.create(folder, Embedder(config).eval()) as gallery:
            gallery.add(photos)
            gallery.calibrate()
            queries = [picture(10_000 + number, told.pixels) for number in range(64)]
            gallery.search(queries[0])
            counted, started, spent = 0, time.perf_counter(), time.process_time()
            while time.perf_counter() - started < told.seconds:
                gallery.search(queries[counted % 64])
                counted += 1
            floor = counted / (time.perf_counter() - started)
            spent = (time.process_time() - spent) / counted
        requests = [message(photo) for photo in queries]
        result: dict[str, Any] = {"cores": os.cpu_count(), "platform": platform.platform()}
        result |= {"load at start": os.getloadavg()[0], "arguments": vars(told)}
        result["floor, requests a second"] = round(floor, 2)
        result["floor, processor ms a request"] = round(1000 * spent, 1)
        process, port = served(folder)
        asyncio.run(load(port, requests, 2, 600, 20))
        result["clients"] = {}
        for clients in map(int, told.clients.split(",")):
            before = processor(process.pid)
            found = summary(*asyncio.run(load(port, requests, clients, told.seconds)))
            used = (processor(process.pid) - before) / max(1, found["status"].get("200", 0))
            found["processor ms a request"] = round(1000 * used, 1)
            found["of the floor"] = round(found["requests a second"] / floor, 3)
            result["clients"][str(clients)] = found
            print(clients, found, flush=True)
        sizes = []
        for _ in range(10):
            asyncio.run(load(port, requests, 8, 600, told.memory // 10))
            sizes.append(memory(process.pid))
        result["MB over requests"] = {"requests": told.memory, "after each tenth": sizes}
        if told.mutations:
            result["mutations"] = mutations(port, told.mutations)
        stop(process)
        process, port = served(folder, "--set", "queue=8", "--set", "deadline=5")
        asyncio.run(load(port, requests, 2, 600, 20))
        found = summary(*asyncio.run(load(port, requests, 80, told.seconds)))
        after, _ = asyncio.run(load(port, requests, 1, 600, 1))
        found |= {"deadline s": 5, "first request after, ms": round(1000 * after[0][1], 1)}
        result["overload: 80 clients, queue of 8"] = found
        stop(process)
    print(json.dumps(result, indent=2))
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def mutations(port: int, count: int) -> dict[str, int]:
    """Statuses of mutated uploads, as in tests/serve/mutations.py."""
    tests = Path(__file__).parents[1] / "tests"
    sys.path[:0] = [str(tests), str(tests / "serve")]
    from mutations import mutated, seeds

    rng, good = np.random.default_rng(0), seeds()
    requests = [message(mutated(rng, good)) for _ in range(count)]
    told, _ = asyncio.run(load(port, [*requests], 4, 3600, count))
    return {str(c): sum(s == c for s, _ in told) for c in sorted({s for s, _ in told})}


if __name__ == "__main__":
    main()
