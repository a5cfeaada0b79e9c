"""The site builds without warnings, its links lead somewhere, and it has every public name."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urljoin, urlsplit

import pytest
from sphinx.util.inventory import InventoryFile

import anyio_writer
from anyio_writer import protocol, telemetry, testing
from tests.blocks import ROOT

PUBLIC: Final = (anyio_writer, protocol, telemetry, testing)


class Page(HTMLParser):
    """The links and the anchors of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.anchors: set[str] = {""}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if value and name in ("href", "src"):
                self.links.add(value)
            elif value and name == "id":
                self.anchors.add(value)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site, as `python -m sphinx -W docs` makes it; ``SITE`` says where to keep it."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent  # of all workers of this run
    html = Path(os.environ.get("SITE") or shared / "html")
    with (shared / "site.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.fstat(lock.fileno()).st_size:  # one worker builds it, and the others wait
            build(html, shared / "doctrees")
            lock.write("built")
    return html


def build(html: Path, doctrees: Path) -> None:
    shutil.rmtree(html, ignore_errors=True)  # pages that are no more
    built = subprocess.run(
        [
            *(sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-j", "auto"),
            *("-d", doctrees, ROOT / "docs", html),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert built.returncode == 0, built.stderr
    assert not built.stderr


def test_every_link_leads_somewhere(site: Path) -> None:
    """Those that lead out of the site are not followed."""
    paths = [path for path in site.rglob("*.html") if "_static" not in path.parts]
    pages = {path.relative_to(site).as_posix(): Page(path) for path in paths}
    assert len(pages) > 20
    broken = [(name, link) for name, page in pages.items() for link in broken_links(name, pages)]
    assert not broken


def broken_links(name: str, pages: dict[str, Page]) -> Iterator[str]:
    for link in pages[name].links:
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            continue
        target = unquote(urljoin(name, parts.path)) if parts.path else name
        if target in pages:
            if unquote(parts.fragment) not in pages[target].anchors:
                yield link
        elif target.endswith(".html"):
            yield link


def test_every_public_name_is_in_the_reference(site: Path) -> None:
    inventory = InventoryFile.loads((site / "objects.inv").read_bytes(), uri="")
    documented = {
        name
        for kind, entries in inventory.data.items()
        if kind.startswith("py:")
        for name in entries
    }
    missing = [
        f"{module.__name__}.{name}"
        for module in PUBLIC
        for name in getattr(module, "__all__", ())
        if f"{module.__name__}.{name}" not in documented
        # What two packages have is described in the first one.
        and not (module is not testing and f"anyio_writer.{name}" in documented)
    ]
    assert not missing


def test_the_reference_can_be_taken_in(site: Path) -> None:
    """A function has one signature, or two; no class spells out a union that has a name."""
    for path in sorted((site / "reference").glob("*.html")):
        text = path.read_text(encoding="utf-8")
        for entry in re.findall(r'<dl class="py [^"]*">(.*?)<dd>', text, re.DOTALL):
            assert entry.count("<dt") <= 2, entry
        shown = unescape(re.sub(r"<[^>]+>", "", text))
        for noise in ("Alias for field number", "RefusalDeltaEvent | "):
            assert noise not in shown, path.name
        assert not re.search(r"exception anyio_writer\.\w+\(", shown)
