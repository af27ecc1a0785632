"""Templates to pages: everything that a page needs is in its one file."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

from resight.files import write_text


def write_page(path: Path, template: str, /, *, package: str = "", **values: Any) -> Path:
    """Fill the template of this name, write the page, whole or not at all; its path.

    Templates are looked for in `package`, where one is given, and then beside this module. Names
    from outside are escaped; a value that the template wants and lacks is an error.
    """
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    folders = [resources.files(name) for name in (package, __package__) if name]

    def load(name: str) -> str | None:
        there = [folder / name for folder in folders if (folder / name).is_file()]
        return there[0].read_text(encoding="utf-8") if there else None

    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        loader=FunctionLoader(load),
    )
    environment.filters["percent"] = lambda value: f"{100 * value:.1f}"
    write_text(Path(path), environment.get_template(template).render(**values))
    return Path(path)
