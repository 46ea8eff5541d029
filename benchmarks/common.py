"""What the benchmarks share: the form of a result page, data, features, and a log for the person who waits.

A result page has sections of one form: a question, the set-up, a table, an answer, the command. The
benchmarks print everything except the answer, which a person writes after reading the numbers.

Importing this module makes the closed forms in tests/ (``exact``, ``gaussian_restoration``) importable.
"""

import argparse
import shlex
import sys
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from numpy.typing import NDArray
from torch import Tensor

from alphabar.codecs.base import Codec
from alphabar.data.dataset import Dataset, cache_root, prepare
from alphabar.data.items import Source
from alphabar.data.sources import open_source
from alphabar.metrics.features import Extractor, extract
from alphabar.progress import last
from alphabar.runs.model import Model

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))  # the tests' data of known denoisers

WIDTH = 110  # characters in a line of a result page


def argument_parser(doc: str | None) -> argparse.ArgumentParser:
    """A parser that shows a benchmark's docstring as it is written."""
    return argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)


def note(text: str) -> None:
    """A line for the person who waits; it goes to stderr, beside the page."""
    print(text, file=sys.stderr, flush=True)


def print_paragraph(text: str) -> None:
    """A paragraph of a result page, wrapped, and an empty line."""
    lines = textwrap.wrap(" ".join(text.split()), WIDTH, break_long_words=False, break_on_hyphens=False)
    print(*lines, "", sep="\n", flush=True)


def print_section(title: str, question: str, setup: str) -> None:
    """The beginning of a section of a result page, down to its table. title: with its hashes."""
    print(f"{title}\n")
    print_paragraph(f"**Question.** {question}")
    print_paragraph(f"**Set-up.** {setup}")
    print("**Table.**\n", flush=True)


def print_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A markdown table, each row as soon as it is known."""
    print_row(head)
    print_row(["---"] * len(head))
    for row in rows:
        print_row(row)
    print()


def print_row(cells: Sequence[str]) -> None:
    """One row of a markdown table."""
    print("| " + " | ".join(cells) + " |", flush=True)


def print_command() -> None:
    """The end of a section: the command that printed it."""
    script = Path(sys.argv[0]).name
    print(f"**Command.**\n\n```\n{shlex.join(['python', f'benchmarks/{script}', *sys.argv[1:]])}\n```\n")


def load_dataset(data: str | Source, codec: Codec, fit: str = "squash") -> Dataset:
    """A source, or what a folder or a built-in name stands for, prepared."""
    return last(prepare(open_source(data) if isinstance(data, str) else data, codec, fit))


def dataset_of(model: Model, data: str) -> Dataset:
    """A data set prepared as for the training of a model."""
    return load_dataset(data, model.codec, model.recipe.data.fit)


def compute_features(extractor: Extractor, items: NDArray | Tensor, *, cached: bool = False) -> Tensor:
    """Features (n, d) of pictures (n, h, w, 3) uint8. cached: kept on the disk, for real pictures."""
    pictures = torch.as_tensor(items)
    return last(extract(extractor, pictures, cache=cache_root() / "features" if cached else None)).features
