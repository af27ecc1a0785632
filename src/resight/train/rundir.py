"""The run folder: what was run, on what, with what outcome."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from resight import __version__
from resight.data.addresses import absolute, shown, to_open
from resight.data.imageset import ImageSet
from resight.errors import UserError
from resight.files import check_folder, fresh_folder, read_json, write_json, write_text
from resight.provenance import git_state, versions
from resight.settings import dump_yaml

RECORD, SETTINGS, LOG, IMAGES = "run.json", "settings.yaml", "log.jsonl", "images.parquet"


class Run:
    """A training run's folder: run.json, settings.yaml, images.parquet, log.jsonl, embedder/."""

    def __init__(self, folder: Path):
        self.folder = folder

    @classmethod
    def create(
        cls, folder: Path, settings: BaseModel, images: ImageSet, *, force: bool = False
    ) -> Run:
        """A new run folder with everything known before the first step.

        Raises UserError when `folder` holds something else, or a run (unless `force`).
        """
        fresh_folder(folder, "a training run", mark=RECORD, force=force)
        folder.mkdir(parents=True, exist_ok=True)
        run = cls(folder)
        write_text(folder / SETTINGS, dump_yaml(settings))
        images.write(folder / IMAGES)
        record = {
            "format": 1,
            "resight": __version__,
            "command": [shown(word) for word in sys.argv],
            "working_folder": str(Path.cwd()),
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "finished": None,
            "settings": settings.model_dump(mode="json"),
            "data": {
                "source": absolute(to_open(images.source)),
                "fingerprint": images.fingerprint(),
                "images": len(images),
                "objects": len(images.objects()),
            },
            "versions": versions(),
            "git": git_state(Path.cwd()),
        }
        write_json(folder / RECORD, record)
        return run

    @classmethod
    def open(cls, folder: Path) -> Run:
        """An existing run. Raises UserError when `folder` is none."""
        if not (folder / RECORD).is_file():
            raise UserError(f"{folder}: not a training run ({RECORD} not found)")
        return cls(folder)

    @property
    def record(self) -> dict[str, Any]:
        """The content of run.json."""
        content: dict[str, Any] = read_json(self.folder / RECORD, "a run's record")
        return content

    def update(self, **values: Any) -> None:
        """Change entries of run.json."""
        write_json(self.folder / RECORD, self.record | values)

    def finish(self, **values: Any) -> None:
        """Mark the run as finished, with what came out."""
        self.update(finished=time.strftime("%Y-%m-%dT%H:%M:%S%z"), **values)

    def log(self, entry: dict[str, Any]) -> None:
        """Append one line to log.jsonl."""
        with open(self.folder / LOG, "a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def cut_log(self, step: int) -> None:
        """Drop the lines after `step`: they are of steps that will be run again."""
        path = self.folder / LOG
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        kept = []
        for line in lines:
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line + "\n")
            except (ValueError, KeyError):  # the last line of a killed run may be half a line
                continue
        write_text(path, "".join(kept))


def check_out(out: Path, force: bool) -> None:
    """Check that a run can be written to `out`, before any work; raises UserError.

    Of several processes the first one looks: to the others its run may be there already.
    """
    if os.environ.get("RANK", "0") == "0":
        check_folder(out, "a training run", mark=RECORD, force=force)
