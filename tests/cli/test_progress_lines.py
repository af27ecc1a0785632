"""What a long job says of itself where there is no terminal."""

from __future__ import annotations

import pytest

from resight.cli import common


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(common.time, "monotonic", lambda: now[0])
    return now


def test_rates_time_left_and_counting_anew(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    line = common._PlainProgress("training", "batches", every=30.0)
    line(20, 100)  # resumed: these were done before
    for seconds, done in ((10, 21), (30, 26), (60, 38), (90, 3), (120, 3), (150, 603)):
        clock[0] = 100.0 + seconds
        line(done, 1000 if done == 603 else 100, "loss 1.5" if done == 38 else "")
    assert capsys.readouterr().err.splitlines() == [
        "training: 26 of 100, 0.20 batches/s, 6 min left",
        "training: 38 of 100, 0.30 batches/s, 3 min left  loss 1.5",
        "training: 3 of 100",  # another stage has begun: nothing is known of its pace
        "training: 3 of 100",
        "training: 603 of 1,000, 10 batches/s, 1 min left",
    ]
