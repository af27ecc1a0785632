"""Evaluations as files: what was asked, what came out, how two of them differ."""
