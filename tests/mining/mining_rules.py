"""Rules of selection and mining, drawn at random."""

from __future__ import annotations

from hypothesis import strategies as st

from resight.mining.selection import Rule

EIGHTHS = st.integers(-8, 8).map(lambda n: n / 8)
RULES = st.builds(
    Rule,
    score=st.sampled_from(["average", "max"]),
    choose=st.sampled_from(["threshold", "topk"]),
    threshold=EIGHTHS | st.just(0.6),
    top=st.integers(1, 4),
    rounds=st.integers(0, 5),
    floor=EIGHTHS | st.just(0.6),
)
