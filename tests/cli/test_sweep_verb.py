"""`resight sweep`: with real trainings, killed and gone on with; and how it conducts commands."""

from __future__ import annotations

import csv
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from command import TINY, resight
from resight.train.sweeps import carry

CONFIG = f"""
backbone: {TINY}
weights: none
size: [32, 32]
epochs: 1
ids: 4
images: 2
lr: 0.001
sweep:
  variants:
    with CTL: {{}}
    without CTL: {{ctl_weight: 0}}
  seeds: [0, 1]
"""
SLUGS = ["with-CTL_seed0", "without-CTL_seed0", "with-CTL_seed1", "without-CTL_seed1"]


@pytest.fixture()
def config(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(CONFIG)
    return path


def test_killed_in_the_middle_the_same_command_goes_on(
    shapes: Path, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two variants, two seeds; kill -9 of everything at once when one run is done."""
    out = tmp_path / "sweep"
    words = ["sweep", str(shapes), "--config", str(config), "--out", str(out)]
    words += ["--workers", "0", "--jobs", "2"]
    process = subprocess.Popen(
        [*carry.RESIGHT, *words], stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 400
    while not (done := list(out.glob("evaluations/*/scores.json"))):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    # Both jobs at work, or the next one: something is half done.
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    kept = {path: path.stat().st_mtime_ns for path in done}
    assert len(done) < 4

    assert resight(*words, "--json") == 0
    captured = capsys.readouterr()
    assert f"{len(done)} of 4 done before" in captured.err
    assert {path: path.stat().st_mtime_ns for path in done} == kept
    for slug in SLUGS:
        settings = json.loads((out / "runs" / slug / "run.json").read_text())["settings"]
        assert settings["seed"] == int(slug[-1])
        assert settings["ctl_weight"] == (0 if slug.startswith("without") else 1)
    groups = json.loads(captured.out)["groups"]
    assert {row["group"]: row["runs"] for row in groups} == {"with CTL": 2, "without CTL": 2}
    rows = list(csv.DictReader((out / "table.csv").open()))
    assert sorted({row["run"].removeprefix("runs/") for row in rows}) == sorted(SLUGS)
    mean = sum(float(r["mAP"]) for r in rows if r["group"] == "with CTL") / 4  # two protocols
    assert mean == pytest.approx(
        sum(r["mAP"]["mean"] for r in groups if r["group"] == "with CTL") / 2
    )
    assert "without CTL" in (out / "table.html").read_text()
    assert (out / "plot.png").read_bytes().startswith(b"\x89PNG")

    assert resight("report", str(out), "--out", str(tmp_path / "page.html")) == 0
    capsys.readouterr()
    assert resight(*words, "--set", "lr=0.002") == 2
    error = capsys.readouterr().err.strip()
    assert "lr 0.001 where this one has 0.002" in error.splitlines()[-1]


# What the commands leave is played by a script, so that every way to fail takes a moment.
STUB = """
import json, os, shutil, sys, time
from pathlib import Path

verb, *words = sys.argv[1:]
given = dict(zip(words, words[1:]))
work = Path(os.environ["STUB"])
out = Path(given.get("--resume") or given["--out"])
with open(work / "calls", "a") as calls:
    line = [verb, "--resume" in given, out.name, os.environ.get("OMP_NUM_THREADS"), time.time()]
    calls.write(json.dumps(line) + "\\n")
if verb == "evaluate":
    shutil.copytree(work / "evaluation", out)
    sys.exit()
(out / "checkpoints").mkdir(parents=True, exist_ok=True)
(out / "run.json").write_text('{"finished": null}')
(out / "checkpoints" / "last.pt").touch()
if (work / "slow").exists():
    time.sleep(60)
if (work / f"broken-{out.name}").exists():
    print("step 3: loss is no longer finite", file=sys.stderr)
    sys.exit(2)
if (work / "together").exists():  # the first ones end when so many are at work
    until = time.monotonic() + 120
    wanted = int((work / "together").read_text())
    while len((work / "calls").read_text().splitlines()) < wanted and time.monotonic() < until:
        time.sleep(0.02)
(work / f"ended-{out.name}").write_text(str(time.time()))
(out / "settings.yaml").write_text("{backbone: resnet18, weights: none, size: [32, 48]}")
(out / "run.json").write_text('{"finished": "now", "seconds": 1, "best": {"epoch": 1}}')
"""


class Stub:
    """The folder of a stubbed sweep, its words, and the commands that it has called."""

    def __init__(self, tmp: Path, shapes: Path, config: Path):
        self.work, self.out = tmp, tmp / "sweep"
        self.words = ["sweep", str(shapes), "--config", str(config), "--out", str(self.out)]

    def calls(self) -> list[tuple[str, bool, str, str | None, float]]:
        path = self.work / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return [tuple(json.loads(line)) for line in lines]


@pytest.fixture(scope="module")
def evaluation(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("evaluation") / "evaluation"
    words = ["evaluate", TINY, str(shapes), "--weights", "none", "--size", "32"]
    assert resight(*words, "--workers", "0", "--out", str(out)) == 0
    return out


@pytest.fixture()
def stub(
    tmp_path: Path, shapes: Path, config: Path, evaluation: Path, monkeypatch: pytest.MonkeyPatch
) -> Stub:
    script = tmp_path / "stub.py"
    script.write_text(STUB)
    shutil.copytree(evaluation, tmp_path / "evaluation")
    monkeypatch.setenv("STUB", str(tmp_path))
    monkeypatch.setattr(carry, "RESIGHT", (sys.executable, str(script)))
    return Stub(tmp_path, shapes, config)


def test_a_failing_variant_is_told_and_the_others_go_on(
    stub: Stub, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = [stub.work / f"broken-without-CTL_seed{seed}" for seed in (0, 1)]
    for path in broken:
        path.touch()
    assert resight(*stub.words) == 1
    captured = capsys.readouterr()
    assert "without CTL, seed 0: FAILED: step 3: loss is no longer finite" in captured.err
    assert "2 runs failed; the same command tries again" in captured.err
    assert "minutes" in captured.err and "4/4" in captured.err
    assert "│ with CTL " in captured.out and "without" not in captured.out
    assert "resight train" in (stub.out / "logs" / "without-CTL_seed0.log").read_text()
    stub.calls()
    for path in broken:
        path.unlink()
    assert resight(*stub.words) == 0
    calls = stub.calls()
    assert {call[2] for call in calls} == {"without-CTL_seed0", "without-CTL_seed1"}
    assert [call[:2] for call in calls[:2]] == [("train", True), ("evaluate", False)]
    assert "2 of 4 done before" in capsys.readouterr().err
    assert resight(*stub.words) == 0 and stub.calls() == []


def test_what_is_there_decides_what_is_done(stub: Stub) -> None:
    assert resight(*stub.words) == 0
    runs, evaluations = stub.out / "runs", stub.out / "evaluations"
    for slug in SLUGS:
        (evaluations / slug / "scores.json").unlink()  # killed while it evaluated
    record = runs / SLUGS[1] / "run.json"
    record.unlink()  # killed before there was a record
    (runs / SLUGS[2] / "run.json").write_text('{"finished": null}')
    shutil.rmtree(runs / SLUGS[2] / "checkpoints")  # killed before the first checkpoint
    (runs / SLUGS[3] / "run.json").write_text('{"finished": null}')
    stub.calls()
    assert resight(*stub.words) == 0
    trained = {call[2]: call[1] for call in stub.calls() if call[0] == "train"}
    assert trained == {SLUGS[1]: False, SLUGS[2]: False, SLUGS[3]: True}
    assert all((evaluations / slug / "scores.json").is_file() for slug in SLUGS)


def test_so_many_at_a_time_with_so_many_threads(stub: Stub) -> None:
    (stub.work / "together").write_text("4")
    assert resight(*stub.words, "--jobs", "4", "--threads", "3", "--seeds", "0,1,2,3") == 0
    calls = stub.calls()
    assert len(calls) == 16 and {call[3] for call in calls} == {"3"}
    trainings = [call for call in calls if call[0] == "train"]
    ends = [float((stub.work / f"ended-{call[2]}").read_text()) for call in trainings]
    atonce = [
        sum(call[4] <= at[4] <= end for call, end in zip(trainings, ends, strict=True))
        for at in trainings
    ]
    assert max(atonce) == 4, "never more, and four at least once"


def test_the_weights_as_they_come(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*stub.words, "--untrained", "--baseline", "weights as they come"]
    assert resight(*words) == 0
    assert "│ weights as they come " in capsys.readouterr().out
    name = "start-resnet18-weights-none-size-32x48"
    assert [call[0] for call in stub.calls() if call[2] == name] == ["evaluate"]
    log = (stub.out / "logs" / f"{name}.log").read_text()
    assert "evaluate resnet18 " in log and "--weights none --size 32x48" in log
    assert "More than weights as they come" in (stub.out / "table.html").read_text()
    groups = json.loads((stub.out / "sweep.json").read_text())["groups"]
    assert groups["weights as they come"] == [f"evaluations/{name}"]


def test_a_signal_stops_all_and_keeps_what_is_there(
    stub: Stub, capsys: pytest.CaptureFixture[str]
) -> None:
    (stub.work / "slow").touch()
    sent: list[float] = []

    def stop() -> None:
        """A signal, when both have begun."""
        until = time.monotonic() + 120
        while len(list(stub.out.glob("runs/*/checkpoints/last.pt"))) < 2:
            assert time.monotonic() < until
            time.sleep(0.02)
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop, daemon=True).start()
    assert resight(*stub.words, "--jobs", "2") == 130
    assert time.monotonic() - sent[0] < 30
    assert "The same command goes on" in capsys.readouterr().err
    (stub.work / "slow").unlink()
    stub.calls()
    assert resight(*stub.words) == 0
    assert sum(call[1] for call in stub.calls() if call[0] == "train") == 2


def test_a_run_that_a_killed_sweep_left_is_waited_for(
    stub: Stub, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.out.mkdir()
    file = open(stub.out / "sweep.lock", "wb")  # noqa: SIM115
    fcntl.flock(file, fcntl.LOCK_EX)
    seen: list[int] = []

    def release() -> None:
        seen.append(len(stub.calls()))
        file.close()

    threading.Timer(1.5, release).start()
    assert resight(*stub.words, "--seeds", "0") == 0
    assert seen == [0]
    assert "is at work; waiting for its end" in capsys.readouterr().err


def test_mistakes_are_one_line(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    (stub.work / "full").mkdir()
    (stub.work / "full" / "photo.jpg").touch()
    sweep, rest = stub.words[:4], stub.words[4:]
    for words, expected in {
        ("sweep", stub.words[1], *rest): "--config is missing",
        tuple(sweep): "--out is missing",
        (*sweep, "--out", str(stub.work / "full")): "full: holds other files",
        (*stub.words, "--over", "lr"): "--over lr: not of the form name=value,value",
        (*stub.words, "--over", "lrr=1,2"): "no setting 'lrr'; did you mean lr?",
        (*stub.words, "--seeds", "a"): "--seeds a: not whole numbers",
        (*stub.words, "--minutes", "0"): "--minutes 0: must be above 0",
        (*stub.words, "--baseline", "x"): "x: no such group; there are: with CTL; without CTL",
        ("sweep", stub.words[1], "--config", "smal", *rest): "did you mean small",
    }.items():
        assert resight(*words) == 2, words
        error = capsys.readouterr().err
        assert expected in error and "Traceback" not in error
    assert not stub.out.exists() and stub.calls() == []


def test_the_list_of_runs(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    assert resight(*stub.words, "--list", "--over", "lr=1e-3,1e-2", "--seeds", "3") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "with-CTL_lr=0.001_seed3  with CTL, lr 0.001, seed 3" and len(lines) == 4
    assert not stub.out.exists()
