"""Closed forms behind a frozen network: candidates, their sums in one pass, the choice."""
