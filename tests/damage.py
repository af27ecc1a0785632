"""What disks and cables do to files."""

from __future__ import annotations

from pathlib import Path


def flip(path: Path, at: int = -100) -> Path:
    """Flip one bit of a byte, by default one near the end; gives the path back."""
    content = bytearray(path.read_bytes())
    content[at] ^= 8
    path.write_bytes(content)
    return path
