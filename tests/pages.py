"""HTML pages, as far as tests look into them."""

from __future__ import annotations

from html.parser import HTMLParser


class Page(HTMLParser):
    """Tags, and the addresses that the page refers to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [v for k, v in attributes if k in ("src", "href", "xlink:href") and v]
