"""A second look on a large gallery made ready by a process of its own.

python -m resight.search.made_ready GALLERY LEVEL CHAIN

What it makes lies in the gallery's index/ afterwards, where `reranking` reads it.
"""

from __future__ import annotations

import fcntl
import os
import sys
from pathlib import Path

from resight.errors import UserError
from resight.graph.rerank import parse
from resight.search.cache import FOLDER


def make_ready(folder: Path, level: str, chain: str) -> bool:
    """Make `chain` ready over a gallery on disk as it is now; False where another process does.

    Raises UserError and OSError.
    """
    from resight.search.gallery import Gallery

    (folder / FOLDER).mkdir(exist_ok=True)
    handle = os.open(folder / FOLDER / "second.lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    try:
        with Gallery.open(folder) as gallery, gallery.views.lock:
            gallery.views.ready(level, (), gallery.views.get(level), parse(chain), whole=True)
        return True
    finally:
        os.close(handle)


def main() -> int:
    """The process itself."""
    os.nice(5)
    folder, level, chain = sys.argv[1:]
    try:
        make_ready(Path(folder), level, chain)
    except (UserError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
