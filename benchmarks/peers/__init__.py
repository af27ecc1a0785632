"""The contenders of benchmarks/evaluate.py, one small file each.

Each has `prepare(data)`, which imports what it needs and returns the work to be timed; the work
returns at least {"mAP": ...}. Peers are only imported inside `prepare`.
"""
