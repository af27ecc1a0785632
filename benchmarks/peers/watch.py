"""Run a contender's process, watch its memory and time, and see where resight's time goes."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

MARK = "@@ "  # starts the lines, JSON, by which a child tells its parent


def anonymous(pid: int | str = "self") -> float:
    """Anonymous resident memory of a process, bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return 1024.0 * int(line.split()[1])
    return 0.0


def run(command: list[str], limit: float, memory: float) -> dict[str, Any]:
    """Start a child, watch its memory and time; its result, or {"failed": why}."""
    # With compiled files kept, as they normally are: some modules are loaded at the first call.
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    env["LIMIT"] = str(limit)
    told: list[dict[str, Any]] = []
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env=env
        )

        def listen() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith(MARK):
                    told.append(json.loads(line[len(MARK) :]))

        listener = threading.Thread(target=listen)
        listener.start()
        try:
            peak, failed = _watch(process, told, limit, memory)
        finally:
            process.kill()
            listener.join()
        result = {key: value for line in told for key, value in line.items()}
        if process.wait() and "seconds" not in result:
            errors.seek(0)
            lines = [f"exit {process.returncode}", *errors.read().strip().splitlines()]
            failed = failed or lines[-1]
    if failed:
        result["failed"] = failed
    result["mb"] = max(0.0, peak - result.pop("before", 0.0)) / 1e6
    return result


def _watch(
    process: subprocess.Popen[str], told: list[dict[str, Any]], limit: float, memory: float
) -> tuple[float, str]:
    """Peak anonymous memory between a child's first and second line; why it was stopped, if so."""
    peak, start = 0.0, time.perf_counter()
    while process.poll() is None:
        if not told:
            start = time.perf_counter()
        elif len(told) == 1:
            try:
                peak = max(peak, anonymous(process.pid))
            except (FileNotFoundError, ProcessLookupError):
                continue
            if peak > memory:
                return peak, f"passed {memory / 1e9:.0f} GB"
            if time.perf_counter() - start > limit:
                return peak, f"passed {limit:,.0f} s"
        time.sleep(0.01)
    return peak, ""


def profile(command: list[str], size: str, folder: Path) -> None:
    """Where resight's time goes: seconds of its Python threads by line, sampled by py-spy."""
    spy = shutil.which("py-spy") or str(Path(sys.executable).with_name("py-spy"))
    stacks, rate = folder / "stacks.txt", 200
    options = ["record", "-r", str(rate), "-f", "raw", "-o", str(stacks), "--"]
    subprocess.run([spy, *options, *command], check=True, capture_output=True)
    spent: dict[str, float] = {}
    for line in stacks.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        frames = [frame for frame in stack.split(";") if "resight/" in frame]
        if frames and "_find_and_load" not in stack and "(ours.py" not in frames[-1]:
            name, _, place = frames[-1].partition(" (")
            key = f"{place.rpartition('resight/')[2].rstrip(')')} {name}"
            spent[key] = spent.get(key, 0.0) + int(count) / rate
    print(f"\n{size}: seconds of resight's Python threads (threads at work at once add up)")
    for key, seconds in sorted(spent.items(), key=lambda item: -item[1])[:15]:
        print(f"  {seconds:8.2f}  {key}")


def machine() -> dict[str, Any]:
    """Cores and processor."""
    names = [x for x in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in x]
    cores = len(os.sched_getaffinity(0))
    cpu = names[0].partition(": ")[2] if names else platform.machine()
    return {"cores": cores, "cpu": cpu, "python": platform.python_version()}
