"""What counting reaches on a run's held-out text: `python -m model.training.yardstick RUN_FOLDER`.

A model of short stretches of tokens, smoothed as Kneser and Ney did, modified by Chen and Goodman (1999), learns from
the same tokens as the GPT and is asked for the same held-out ones: each token, and the end of each text. KenLM
(Heafield et al. 2013) counts and smooths; nothing is cut off, however rare. A token that is nowhere in the text to
learn from gets its share of what smoothing sets aside, so both models spread their belief over the same vocabulary.

KenLM's `lmplz` and `query` are built from its source on PyPI (LGPL 2.1 or later):

    apt-get install cmake g++ libboost-program-options-dev libboost-system-dev libboost-test-dev libboost-thread-dev
    .venv/bin/python -m pip download --no-deps --no-binary kenlm --dest data/kenlm kenlm==0.3.0
    tar -xf data/kenlm/kenlm-0.3.0.tar.gz -C data/kenlm
    cmake -S data/kenlm/kenlm-0.3.0 -B data/kenlm/build
    cmake --build data/kenlm/build --target lmplz query

Beside it, for information: how many bits `xz -9e` needs for a byte of the held-out text once it has read the rest.
"""

import argparse
import lzma
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from rich.console import Console

from model.tokenizer import Tokenizer, TokenizerError
from model.training.corpus import END, Ids, joined, parted
from model.training.recipe import TrainingError
from model.weights.names import WeightsError
from model.weights.save import write_json
from model.weights.tokenizer_files import load_tokenizer

ORDER = 5  # tokens: four to look back at, and the one that comes
PROGRAMS = Path("data/kenlm/build/bin")
MEMORY = "1G"  # for sorting; what is longer is sorted on disk


@dataclass(frozen=True)
class Texts:
    """The texts of a run as the GPT reads them, without END."""

    learn: Sequence[Ids]
    held: Sequence[Ids]
    n_held_bytes: int  # in UTF-8, without what stands between two texts
    tokenizer: Tokenizer


@dataclass(frozen=True)
class Score:
    """How well the held-out tokens were foreseen."""

    smoothing: str
    perplexity: float
    n_tokens: int  # that were asked for, ends of texts among them
    n_unseen: int  # of them, not one in the text to learn from


def read_texts(run: Path) -> Texts:
    """The texts that `write_corpus` wrote.

    Raises:
        TrainingError: when the tokens do not begin with END, or belong to other texts than held.txt.
        WeightsError, TokenizerError: when the run's tokenizer cannot be read.
        OSError: when something else cannot be read.
    """
    tokenizer = load_tokenizer(run)
    if END not in tokenizer.special:
        raise TrainingError(f"The tokenizer in {run} has no {END}, which stands between texts.")
    learn, held = (list(_texts(np.load(run / "corpus" / f"{name}.npy"), tokenizer)) for name in ("learn", "held"))
    written = parted((run / "corpus" / "held.txt").read_text(encoding="utf-8"))
    if len(written) != len(held):
        raise TrainingError(f"{run / 'corpus'} has {len(written):,} held-out texts, but the tokens of {len(held):,}.")
    return Texts(learn, held, sum(len(text.encode()) for text in written), tokenizer)


def _texts(ids: Ids, tokenizer: Tokenizer) -> Iterator[Ids]:
    starts = np.flatnonzero(ids == tokenizer.special[END])
    if not len(starts) or starts[0] > 0:
        raise TrainingError(f"These tokens do not begin with {END}, so no one can tell where a text begins.")
    for text in np.split(ids, starts)[1:]:
        yield text[1:]


def score(texts: Texts, order: int, programs: Path) -> Score:
    """Learn stretches of up to `order` tokens, and foresee the held-out texts with them.

    Raises:
        TrainingError: when KenLM is not there, or fails.
    """
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name, part in (("learn", texts.learn), ("held", texts.held)):
            with (folder / name).open("w") as file:
                file.writelines(" ".join(map(str, text.tolist())) + "\n" for text in part)
        fallback = ["--discount_fallback"]  # a small vocabulary has no token that came only once
        pad = ["--vocab_pad", str(len(texts.tokenizer))]
        files = ["--text", str(folder / "learn"), "--arpa", str(folder / "model"), "--temp_prefix", temporary]
        log = _run(programs / "lmplz", "--order", str(order), "--memory", MEMORY, *fallback, *pad, *files).stderr
        answer = _run(programs / "query", "-v", "summary", str(folder / "model"), read=folder / "held").stdout
    found = re.search(r"including OOVs:\s+(\S+)\n(?:.*\n)*?OOVs:\s+(\d+)\nTokens:\s+(\d+)", answer)
    n_wanted = sum(len(text) + 1 for text in texts.held)
    if not found or int(found[3]) != n_wanted:
        raise TrainingError(f"KenLM's query was to foresee {n_wanted:,} tokens; it said: {answer.strip()}")
    return Score(_smoothing(log), float(found[1]), int(found[3]), int(found[2]))


def _smoothing(log: str) -> str:
    """What lmplz did, as it tells it.

    >>> _smoothing("Substituting fallback discounts for order 0: D1=0.5 D2=1 D3+=1.5")
    'interpolated modified Kneser-Ney, no cut-offs; discounts of order 1 not estimated but 0.5, 1, 1.5'
    """
    given = [str(int(order) + 1) for order in re.findall(r"fallback discounts for order (\d+)", log)]
    note = f"; discounts of order {', '.join(given)} not estimated but 0.5, 1, 1.5" if given else ""
    return f"interpolated modified Kneser-Ney, no cut-offs{note}"


def _run(program: Path, *options: str, read: Path = Path(os.devnull)) -> subprocess.CompletedProcess[str]:
    try:
        with read.open("rb") as file:
            return subprocess.run([program, *options], stdin=file, capture_output=True, text=True, check=True)
    except FileNotFoundError as error:
        raise TrainingError(
            f"{program} is not there. The top of {__file__} says how to build it; --kenlm names its folder."
        ) from error
    except subprocess.CalledProcessError as error:
        raise TrainingError(f"{program} failed: {error.stderr.strip() or error}") from error


def xz_bits_per_byte(texts: Texts) -> float:
    """By how many bits the file that `xz -9e` writes grows with each byte of the held-out text."""
    learn, held = (_written(part, texts.tokenizer) for part in (texts.learn, texts.held))
    return 8 * (_packed(learn + held) - _packed(learn)) / texts.n_held_bytes


def _written(texts: Sequence[Ids], tokenizer: Tokenizer) -> bytes:
    """Texts as they stand in a file, END between two; without the space that the tokenizer put before each."""
    added = " " if tokenizer.prefix_space else ""
    return joined([*(tokenizer.decode(text.tolist()).removeprefix(added) for text in texts), ""]).encode()


def _packed(text: bytes) -> int:
    return len(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME))


def main() -> None:
    """Print the figures of a run, and write them to a file where one is named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("run", type=Path, metavar="RUN_FOLDER", help="folder of a run, with its corpus")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file, too")
    parser.add_argument("--kenlm", type=Path, default=PROGRAMS, help="folder of lmplz and query: %(default)s")
    parser.add_argument("--order", type=int, default=ORDER, choices=range(2, 7), help="tokens: %(default)s")
    given = parser.parse_args()
    console = Console(soft_wrap=True, highlight=False)
    try:
        texts = read_texts(given.run)
        found = score(texts, given.order, given.kenlm)
        bits = found.n_tokens * math.log2(found.perplexity) / texts.n_held_bytes
        xz = xz_bits_per_byte(texts)
        console.print(f"{given.order}-gram model, {found.smoothing}")
        console.print(f"perplexity    {found.perplexity:.3f} a token")
        console.print(f"tokens        {found.n_tokens:,} ({len(texts.held):,} ends, {found.n_unseen:,} never seen)")
        console.print(f"bits a byte   {bits:.4f} ({texts.n_held_bytes:,} bytes)")
        console.print(f"xz -9e        {xz:.4f} bits a byte")
        if given.json:
            figures = {
                "program": "KenLM (lmplz, query)",
                "order": given.order,
                "smoothing": found.smoothing,
                "perplexity": found.perplexity,
                "n_tokens": found.n_tokens,
                "n_unseen": found.n_unseen,
                "n_held_bytes": texts.n_held_bytes,
                "bits_per_byte": bits,
                "xz_bits_per_byte": xz,
            }
            write_json(given.json, figures)
    except (TrainingError, WeightsError, TokenizerError, OSError) as error:
        console.print(f"[bold red]Error:[/] {error}")
        sys.exit(1)


if __name__ == "__main__":
    main()
