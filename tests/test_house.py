"""The structure itself: no circle of imports, arrows that run one way, a light front door."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import resight

HOUSE = Path(resight.__file__).parent
# Lower floors know nothing of higher ones; rooms of one line know nothing of each other.
FLOORS = [
    {"errors", "compiled"},
    {"files", "checksums", "lightly", "client", "losses"},
    {"settings", "provenance", "data"},
    {"models", "sampling"},
    {"features", "spatial"},
    {"graph"},
    {"search", "mining"},
    {"evaluate"},
    {"train"},
    {"api", "serve"},
    {"cli"},
]


def imports() -> dict[str, set[str]]:
    """module -> the modules of resight that it imports, anywhere in the file."""
    names = {
        path: "resight." + ".".join(path.relative_to(HOUSE).with_suffix("").parts)
        for path in HOUSE.rglob("*.py")
    }
    known = {name.removesuffix(".__init__") for name in names.values()}
    found: dict[str, set[str]] = {}
    for path, name in names.items():
        targets: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                targets |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    inner = f"{node.module}.{alias.name}"
                    targets.add(inner if inner in known else node.module)
        found[name.removesuffix(".__init__")] = {t for t in targets if t in known}
    return found


def test_no_circles() -> None:
    graph = {name: targets - {name} for name, targets in imports().items() if name != "resight"}
    TopologicalSorter(graph).prepare()  # raises CycleError


def test_arrows_run_one_way() -> None:
    floor = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}
    for name, targets in imports().items():
        if name.count(".") == 0:
            continue
        room = name.split(".")[1]
        for target in targets - {"resight"}:
            other = target.split(".")[1]
            assert other == room or floor[other] < floor[room], f"{name} imports {target}"


def test_the_front_door_is_light() -> None:
    heavy = "{'torch', 'numpy', 'polars', 'PIL', 'rich', 'timm', 'pydantic', 'fastapi', 'httpx'}"
    for code in ("import resight", "import resight.cli.main"):
        check = f"{code}; import sys; print(sorted({heavy} & set(sys.modules)))"
        done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
        assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_evaluation_needs_no_torch() -> None:
    code = "import resight.evaluate.run, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_public_names() -> None:
    for name in resight.__all__:
        assert getattr(resight, name) is not None
