"""What simpler models reach on a run's held-out text: `python -m bench.lookback_gpt.baselines RUN_FOLDER`.

An n-gram model with modified Kneser-Ney smoothing (Chen and Goodman 1999) learns from the same tokens as the GPT and
predicts the same held-out ones: each token, and the end of each text. KenLM (Heafield et al. 2013) estimates it; rare
n-grams are not pruned. A token that does not occur in the training text gets a part of the probability that smoothing
sets aside, so both models distribute probability over the same vocabulary.

KenLM's `lmplz` and `query` are built from its source on PyPI (LGPL 2.1 or later):

    apt-get install cmake g++ libboost-program-options-dev libboost-system-dev libboost-test-dev libboost-thread-dev
    .venv/bin/python -m pip download --no-deps --no-binary kenlm --dest data/kenlm kenlm==0.3.0
    tar -xf data/kenlm/kenlm-0.3.0.tar.gz -C data/kenlm
    cmake -S data/kenlm/kenlm-0.3.0 -B data/kenlm/build
    cmake --build data/kenlm/build --target lmplz query

For comparison, also the bits per byte that `xz -9e` needs for the held-out text after it has read the training text.
"""

import argparse
import json
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
from typing import TypedDict

import numpy as np
from rich.console import Console

from model.tokenizer import Tokenizer, TokenizerError
from model.training.corpus import END_OF_TEXT, TokenIds, join_texts, split_texts
from model.training.recipe import TrainingError
from model.weights.names import WeightsError
from model.weights.save import write_json
from model.weights.tokenizer_files import load_tokenizer

ORDER = 5  # tokens per n-gram: the token that is predicted and the four before it
PROGRAMS = Path("data/kenlm/build/bin")
MEMORY = "1G"  # for sorting; larger data is sorted on disk


@dataclass(frozen=True)
class Texts:
    """The texts of a run as token ids, without END_OF_TEXT."""

    learn: Sequence[TokenIds]
    held_out: Sequence[TokenIds]
    n_held_out_bytes: int  # in UTF-8, without what separates the texts
    tokenizer: Tokenizer


@dataclass(frozen=True)
class Score:
    """How well an n-gram model predicts the held-out tokens."""

    smoothing: str
    perplexity: float  # per token
    n_tokens: int  # predicted tokens, including the ends of texts
    n_unseen: int  # of them, those that do not occur in the training text


class Baselines(TypedDict):
    """The content of baselines.json."""

    program: str
    order: int
    smoothing: str
    perplexity: float
    n_tokens: int
    n_unseen: int
    n_held_out_bytes: int
    bits_per_byte: float
    xz_bits_per_byte: float


def read_baselines(path: Path) -> Baselines:
    """The content of a file that `main` has written."""
    baselines: Baselines = json.loads(path.read_text(encoding="utf-8"))
    return baselines


def read_texts(run: Path) -> Texts:
    """The texts that `write_corpus` wrote.

    Raises:
        TrainingError: if the tokens do not begin with END_OF_TEXT, or do not belong to the texts in held.txt.
        WeightsError, TokenizerError: if the run's tokenizer cannot be read.
        OSError: if another file cannot be read.
    """
    tokenizer = load_tokenizer(run)
    if END_OF_TEXT not in tokenizer.special:
        raise TrainingError(f"The tokenizer in {run} has no {END_OF_TEXT}, which separates texts.")
    corpus = run / "corpus"
    learn, held_out = (list(_split_at_end(np.load(corpus / f"{name}.npy"), tokenizer)) for name in ("learn", "held"))
    texts = split_texts((corpus / "held.txt").read_text(encoding="utf-8"))
    if len(texts) != len(held_out):
        raise TrainingError(f"{corpus} has {len(texts):,} held-out texts, but the tokens of {len(held_out):,}.")
    return Texts(learn, held_out, sum(len(text.encode()) for text in texts), tokenizer)


def _split_at_end(ids: TokenIds, tokenizer: Tokenizer) -> Iterator[TokenIds]:
    starts = np.flatnonzero(ids == tokenizer.special[END_OF_TEXT])
    if not len(starts) or starts[0] > 0:
        raise TrainingError(f"The tokens do not begin with {END_OF_TEXT}, so the beginnings of texts cannot be found.")
    for text in np.split(ids, starts)[1:]:
        yield text[1:]


def score(texts: Texts, order: int, programs: Path) -> Score:
    """Estimate a model of n-grams of up to `order` tokens, and predict the held-out texts with it.

    Raises:
        TrainingError: if KenLM is not installed, or fails.
    """
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name, part in (("learn", texts.learn), ("held_out", texts.held_out)):
            with (folder / name).open("w") as file:
                file.writelines(" ".join(map(str, text.tolist())) + "\n" for text in part)
        fallback = ["--discount_fallback"]  # in a small vocabulary, no token occurs only once
        pad = ["--vocab_pad", str(len(texts.tokenizer))]
        files = ["--text", str(folder / "learn"), "--arpa", str(folder / "model"), "--temp_prefix", temporary]
        log = _run(programs / "lmplz", "--order", str(order), "--memory", MEMORY, *fallback, *pad, *files).stderr
        output = _run(programs / "query", "-v", "summary", str(folder / "model"), stdin=folder / "held_out").stdout
    summary = re.search(r"including OOVs:\s+(\S+)\n(?:.*\n)*?OOVs:\s+(\d+)\nTokens:\s+(\d+)", output)
    n_tokens = sum(len(text) + 1 for text in texts.held_out)
    if not summary or int(summary[3]) != n_tokens:
        raise TrainingError(f"KenLM's query should predict {n_tokens:,} tokens, but it printed: {output.strip()}")
    return Score(_smoothing(log), float(summary[1]), n_tokens, int(summary[2]))


def _smoothing(log: str) -> str:
    """The smoothing that lmplz used, taken from its log.

    >>> _smoothing("Substituting fallback discounts for order 0: D1=0.5 D2=1 D3+=1.5")
    'interpolated modified Kneser-Ney, not pruned; discounts of order 1 not estimated but 0.5, 1, 1.5'
    """
    orders = [str(int(order) + 1) for order in re.findall(r"fallback discounts for order (\d+)", log)]
    note = f"; discounts of order {', '.join(orders)} not estimated but 0.5, 1, 1.5" if orders else ""
    return f"interpolated modified Kneser-Ney, not pruned{note}"


def _run(program: Path, *options: str, stdin: Path = Path(os.devnull)) -> subprocess.CompletedProcess[str]:
    try:
        with stdin.open("rb") as file:
            return subprocess.run([program, *options], stdin=file, capture_output=True, text=True, check=True)
    except FileNotFoundError as error:
        raise TrainingError(
            f"{program} does not exist. The top of {__file__} shows how to build it; --kenlm sets its folder."
        ) from error
    except subprocess.CalledProcessError as error:
        raise TrainingError(f"{program} failed: {error.stderr.strip() or error}") from error


def xz_bits_per_byte(texts: Texts) -> float:
    """By how many bits the output of `xz -9e` grows for each byte of held-out text after the training text."""
    learn, held_out = (_as_file(part, texts.tokenizer) for part in (texts.learn, texts.held_out))
    return 8 * (_compressed_size(learn + held_out) - _compressed_size(learn)) / texts.n_held_out_bytes


def _as_file(texts: Sequence[TokenIds], tokenizer: Tokenizer) -> bytes:
    """Texts as in a file, separated by END, without the space that the tokenizer put before each of them."""
    added = " " if tokenizer.prefix_space else ""
    return join_texts([*(tokenizer.decode(text.tolist()).removeprefix(added) for text in texts), ""]).encode()


def _compressed_size(text: bytes) -> int:
    return len(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME))


def compute_baselines(run: Path, order: int, programs: Path) -> Baselines:
    """All baselines of a run.

    Raises:
        TrainingError, WeightsError, TokenizerError, OSError: as `read_texts` and `score` do.
    """
    texts = read_texts(run)
    result = score(texts, order, programs)
    return Baselines(
        program="KenLM (lmplz, query)",
        order=order,
        smoothing=result.smoothing,
        perplexity=result.perplexity,
        n_tokens=result.n_tokens,
        n_unseen=result.n_unseen,
        n_held_out_bytes=texts.n_held_out_bytes,
        bits_per_byte=result.n_tokens * math.log2(result.perplexity) / texts.n_held_out_bytes,
        xz_bits_per_byte=xz_bits_per_byte(texts),
    )


def main() -> None:
    """Print the baselines of a run, and write them to a file if one is named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("run", type=Path, metavar="RUN_FOLDER", help="folder of a run, with its corpus")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results to this file")
    parser.add_argument("--kenlm", type=Path, default=PROGRAMS, help="folder of lmplz and query: %(default)s")
    parser.add_argument("--order", type=int, default=ORDER, choices=range(2, 7), help="tokens: %(default)s")
    options = parser.parse_args()
    console = Console(soft_wrap=True, highlight=False)
    try:
        baselines = compute_baselines(options.run, options.order, options.kenlm)
        for name, value in baselines.items():
            console.print(f"{name:16} {value}")
        if options.json:
            write_json(options.json, baselines)
    except (TrainingError, WeightsError, TokenizerError, OSError) as error:
        console.print(f"[bold red]Error:[/] {error}")
        sys.exit(1)


if __name__ == "__main__":
    main()
