"""Texts in simple English, written by SmolLM2: `python -m bench.lookback_gpt.synthetic_texts --out FOLDER`.

Each text follows an instruction of its own (instructions.py). Texts are generated in batches; each batch becomes one
file, which is written whole or not at all, so a stopped run continues with the batch that is missing. At the end,
FOLDER.txt gets the texts that are good enough to learn from.
"""

import argparse
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from random import Random

import torch
from platformdirs import user_cache_path
from rich.console import Console

from bench.lookback_gpt.instructions import draw_instruction
from model.cache import PrefixCache
from model.generate import Prompt, Sampling, generate
from model.gpt import GPT
from model.tokenizer import Tokenizer
from model.training.corpus import join_texts, split_texts
from model.weights.catalogue import catalogue
from model.weights.folder import load
from model.weights.save import write_atomic

TEMPERATURES = (0.5, 0.9)  # every text has its own, between these
TOP_K = 64  # tokens; selecting 64 of 49,152 costs a hundredth of sorting them all
TOP_P = 0.95
CACHE_BYTES = 64_000_000  # enough for the beginning that all prompts share

N_GRAM = 5  # words; repetition and overlap are counted in runs of this many words
MAX_REPEATED = 0.3  # fraction of a text's runs that occur earlier in it; small models often repeat themselves
MAX_OVERLAP = 0.4  # fraction of a text's runs that occur in earlier texts


def write_texts(model: GPT, tokenizer: Tokenizer, random: Random, *, n_texts: int, n_tokens: int) -> list[str]:
    """A batch of texts of at most `n_tokens` tokens each, not counting the opening that comes from the instruction."""
    instructions = [draw_instruction(random) for _ in range(n_texts)]
    prompts = [
        Prompt(
            ids=tokenizer.encode(instruction.prompt, special_tokens=True).ids,
            sampling=Sampling(temperature=random.uniform(*TEMPERATURES), top_k=TOP_K, top_p=TOP_P),
            generator=torch.Generator().manual_seed(random.getrandbits(32)),
        )
        for instruction in instructions
    ]
    texts_ids: list[list[int]] = [[] for _ in prompts]
    for number, id in generate(
        model, prompts, n_tokens=n_tokens, stop_ids=tokenizer.special.values(), cache=PrefixCache(CACHE_BYTES)
    ):
        texts_ids[number].append(id)
    return [
        instruction.opening + tokenizer.decode(ids) for instruction, ids in zip(instructions, texts_ids, strict=True)
    ]


def select_texts(texts: Iterable[str]) -> Iterator[str]:
    """The texts that repeat neither themselves nor earlier texts, without an unfinished last sentence.

    >>> list(select_texts(["A cat sat on a mat and saw a dog. It", "A cat sat on a mat and saw a dog. Then", "No."]))
    ['A cat sat on a mat and saw a dog.']
    """
    earlier_runs: set[tuple[str, ...]] = set()
    for text in texts:
        ends = [end.end() for end in re.finditer(r'[.!?]["”]?(?=\s|$)', text)]
        finished = text[: ends[-1]].strip() if ends else ""
        words = finished.lower().split()
        runs = [tuple(words[i : i + N_GRAM]) for i in range(len(words) - N_GRAM + 1)]
        if not runs:
            continue
        repeated = 1 - len(set(runs)) / len(runs)
        overlap = sum(run in earlier_runs for run in runs) / len(runs)
        if repeated <= MAX_REPEATED and overlap <= MAX_OVERLAP:
            earlier_runs.update(runs)
            yield finished


def main() -> None:
    """Write the batches that are missing, then select from all of them."""
    options = _options()
    console = Console()
    folder = catalogue("smollm2-135m")["smollm2-135m"].fetch(options.cache, lambda *_: None)
    model, tokenizer = load(folder, device=torch.device(options.device), dtype=torch.bfloat16)
    options.out.mkdir(parents=True, exist_ok=True)
    for number in range(options.batches):
        path = options.out / f"{number:05}.txt"
        if path.exists():
            continue
        started = time.monotonic()
        random = Random(f"{options.seed}-{number}")
        texts = write_texts(model, tokenizer, random, n_texts=options.texts, n_tokens=options.tokens)
        write_atomic(path, join_texts(texts).encode())
        console.print(f"{path.name}: {len(texts)} texts in {time.monotonic() - started:.0f} s")
    texts = [text for path in sorted(options.out.glob("*.txt")) for text in split_texts(path.read_text("utf-8"))]
    selected = list(select_texts(texts))
    write_atomic(options.out.with_suffix(".txt"), join_texts(selected).encode())
    console.print(f"{options.out.with_suffix('.txt')}: {len(selected):,} of {len(texts):,} texts")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=Path("data/stories"), help="folder for the texts")
    parser.add_argument("--cache", type=Path, default=user_cache_path("lookback"), help="Lookback's folder of weights")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batches", type=int, default=200)
    parser.add_argument("--texts", type=int, default=256, help="texts per batch")
    parser.add_argument("--tokens", type=int, default=200, help="maximum number of tokens per text")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
