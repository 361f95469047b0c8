"""The folder of a built book: its pages, what they link to, and a server for them."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit


class Anchors(HTMLParser):
    """Where a page leads, and the places within it that links can name."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.followed: list[str] = []  # of these, what a reader can follow
        self.places: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag's link and name."""
        found = {name: value or "" for name, value in attrs}
        links = [found[name] for name in ("href", "src") if name in found]
        if tag == "meta" and found.get("http-equiv", "").lower() == "refresh":
            links.append(found["content"].partition("url=")[2])
        self.links += links
        if tag in ("a", "meta"):
            self.followed += links
        self.places |= {found[name] for name in ("id", "name") if name in found}


class BuiltBook:
    """The pages of a built book; `folder` is its `_build/html`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shown = [path for path in sorted(folder.rglob("*.html")) if "_static" not in path.parts]
        self.anchors = {str(path.relative_to(folder)): Anchors(path.read_text("utf-8")) for path in shown}

    def pages(self) -> list[str]:
        """Every page that a reader can come to: linked to by another page, or the search."""
        linked = {
            str(target)
            for page, anchors in self.anchors.items()
            for _, target, _ in self._targets(page, anchors.followed)
            if target != Path(page)
        }
        return [page for page in self.anchors if page in linked or page == "search.html"]

    def _targets(self, page: str, links: list[str]) -> Iterator[tuple[str, Path, str]]:
        """Those links of a page that stay within the book: as written, the file in the folder, the place in it."""
        for link in links:
            parts = urlsplit(link)
            if not parts.scheme and not parts.netloc:
                file = (self.folder / page).parent / unquote(parts.path) if parts.path else self.folder / page
                yield link, _within(file, self.folder), unquote(parts.fragment)

    def broken_links(self, page: str) -> list[str]:
        """Links of a page to files that do not exist or are empty, or to places that no tag names."""
        found = []
        for link, target, place in self._targets(page, self.anchors[page].links):
            file = self.folder / target
            if not file.is_file():
                found.append(f"{link}: no such file")
            elif not file.stat().st_size:
                found.append(f"{link}: empty")
            elif place and str(target) in self.anchors and place not in self.anchors[str(target)].places:
                found.append(f"{link}: no such place")
        return found


def _within(file: Path, folder: Path) -> Path:
    """A path as seen from the folder; as it is where it leads out of it."""
    file = file.resolve()
    return file.relative_to(folder.resolve()) if file.is_relative_to(folder.resolve()) else file


class _Quiet(SimpleHTTPRequestHandler):
    """Sends the files of a folder and prints nothing."""

    protocol_version = "HTTP/1.1"  # connections stay open

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is logged."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a folder's files while a thread serves them: the search cannot read files of the disk."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
