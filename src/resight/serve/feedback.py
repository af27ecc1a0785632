"""Right and wrong, as users say it: kept as an image set that `resight train` reads.

GALLERY/feedback/answers.jsonl   every answer, one a line: the truth
GALLERY/feedback/photos/         the photos asked with, by their content
GALLERY/feedback/index.csv       made from it, a row a photo: object, not_object (a JSON list)
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from resight.files import write_bytes, write_text
from resight.search.engines.turns import Turns
from resight.serve.problems import Problem
from resight.serve.writing import ENDINGS

ANSWERS, INDEX, PHOTOS = "answers.jsonl", "index.csv", "photos"
Answer = dict[str, Any]


class Feedback:
    """Keeps answers; several processes may. `limit`: how many at most."""

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self._limit = folder, limit
        self._turns: Turns | None = None

    def add(
        self,
        photo: bytes,
        format: str,
        box: Iterable[float] | None,
        hit: int,
        object: str | None,
        right: bool,
        request: str | None,
    ) -> int:
        """Keep an answer; its number. Durable when this returns. Raises Problem when full."""
        with self._turn():
            answers = self._read()
            if len(answers) >= self._limit:
                raise Problem(422, "feedback: no more is kept; the service's keeper must look")
            name = f"{hashlib.sha256(photo).hexdigest()}.{ENDINGS.get(format, 'img')}"
            path = self.folder / PHOTOS / name
            if not path.exists():
                write_bytes(path, photo)
            number = 1 + max((one["feedback"] for one in answers), default=0)
            answer: Answer = {"feedback": number, "photo": name, "hit": hit, "object": object}
            answer |= {"box": list(box) if box is not None else None, "right": right}
            answer |= {"request": request, "time": round(time.time(), 3)}
            self._write([*answers, answer])
        return number

    def remove(self, number: int) -> bool:
        """Forget an answer, and its photo where no other is about it; whether it was there."""
        with self._turn():
            answers = self._read()
            left = [one for one in answers if one["feedback"] != number]
            if len(left) == len(answers):
                return False
            self._write(left)
            for name in {one["photo"] for one in answers} - {one["photo"] for one in left}:
                (self.folder / PHOTOS / name).unlink(missing_ok=True)
        return True

    def _turn(self) -> Any:
        if self._turns is None:
            self.folder.mkdir(exist_ok=True)
            self._turns = Turns(self.folder / "writer.lock")
        return self._turns.taken("feedback")

    def _read(self) -> list[Answer]:
        path = self.folder / ANSWERS
        if not path.exists():
            return []
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

    def _write(self, answers: list[Answer]) -> None:
        lines = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in answers)
        write_text(self.folder / ANSWERS, lines)
        if answers:
            write_text(self.folder / INDEX, table(answers))
        else:
            (self.folder / INDEX).unlink(missing_ok=True)


def table(answers: list[Answer]) -> str:
    """The image set as CSV; of a photo and an object the last answer holds."""
    said: dict[tuple[str, str], dict[str, bool]] = {}
    for one in answers:
        box = "" if one["box"] is None else " ".join(f"{side:g}" for side in one["box"])
        of = said.setdefault((one["photo"], box), {})
        if one["object"] is not None:
            of.pop(one["object"], None)  # the last one stands last
            of[one["object"]] = one["right"]
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["path", "object", "not_object", "box"])
    for (photo, box), of in said.items():
        right = [name for name, is_right in of.items() if is_right]
        wrong = [name for name, is_right in of.items() if not is_right]
        told = json.dumps(wrong, ensure_ascii=False) if wrong else ""
        rows.writerow([os.path.join(PHOTOS, photo), right[-1] if right else "", told, box])
    return text.getvalue()
