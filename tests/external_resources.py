"""What the pages of a built book would load from the network: python tests/external_resources.py HTML_FOLDER"""

import re
import sys
from pathlib import Path

_LOADING = re.compile(r"<(?:script|link|img|image|iframe|source|video|audio|embed|object|use)\b[^>]*>", re.I)
_FOLLOWED = re.compile(r"\brel=[\"']?(?:canonical|next|prev|search|author)\b", re.I)
_ADDRESS = re.compile(r"\b(?:src|srcset|href|data|poster)\s*=\s*[\"']?\s*((?:https?:)?//[^\"'\s>]+)", re.I)
_CSS_ADDRESS = re.compile(r"(?:url\(|@import)\s*[\"']?((?:https?:)?//[^\"')\s;]+)", re.I)


def external_resources(html_dir: Path) -> list[str]:
    """What the pages in a folder would load from the network, as `file: address`; empty if all is shipped.

    Looks at scripts, style sheets, fonts, images, frames and media, not at links for a reader to follow.
    """
    found = []
    for file in sorted(path for path in html_dir.rglob("*") if path.suffix in (".html", ".css")):
        text = file.read_text("utf-8")
        addresses = _CSS_ADDRESS.findall(text)
        if file.suffix == ".html":
            tags = (tag for tag in _LOADING.findall(text) if not _FOLLOWED.search(tag))
            addresses += [address for tag in tags for address in _ADDRESS.findall(tag)]
        found += [f"{file.relative_to(html_dir)}: {address}" for address in addresses]
    return found


if __name__ == "__main__":
    loaded = external_resources(Path(sys.argv[1]))
    print("\n".join(loaded) or "the pages load nothing from the network")
    sys.exit(bool(loaded))
