"""Photo-like pictures of made-up printed objects, for trying and testing without a download."""

from resight.data.rendered.write import render

__all__ = ["render"]
