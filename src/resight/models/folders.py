"""Where a saved embedder lies, and its files: known without loading torch."""

from __future__ import annotations

import re
from pathlib import Path

from resight.files import read_json
from resight.models.hub import fetch, is_hub_name

CONFIG, WEIGHTS, CARD = "embedder.json", "model.safetensors", "README.md"


def embedder_folder(model: str | Path) -> Path | None:
    """The folder of a saved embedder that `model` names: itself, or that in a run, a features
    folder or a gallery (whose gallery.json says which, as it can be given another).

    What "hub:OWNER/NAME" names is fetched. Raises UserError when it can't be.
    """
    path = fetch(str(model)) if is_hub_name(model) else Path(model)
    inner = ["embedder"]
    if (path / "gallery.json").is_file():
        named = read_json(path / "gallery.json", "a gallery")
        if isinstance(named, dict) and re.fullmatch(r"embedder(-\d+)?", str(named.get("embedder"))):
            inner.insert(0, named["embedder"])
    for folder in (path, *(path / name for name in inner)):
        if (folder / CONFIG).is_file():
            return folder
    return None
