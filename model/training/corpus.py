"""Texts -> a vocabulary -> tokens on disk, some held out -> stretches to learn from."""

# shapes: B stretches, T tokens

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from tokenizers import ByteLevelBPETokenizer

from model.tokenizer import Tokenizer
from model.training.recipe import Recipe, TrainingError
from model.weights.save import write_atomic, write_json
from model.weights.tokenizer_files import load_tokenizer

END = "<|endoftext|>"  # a line of its own between two texts of a file, and a token of its own
HELD_OUT = 0.02  # the share of texts that no training sees
FIRST = 0.64  # the share of drills that are the first ones: easy, since heads that look back form on nothing harder
N_SHORT = 64  # tokens of a stretch in the first drills
N_COMMON = 1024  # tokens that the first drills are drawn from: those that BPE made first
PAIRS = 0.2  # the share of pairs said twice in the first drills
N_PASSAGE = 2000  # characters; a file with no END in it is cut at paragraphs into passages of about this length

_BETWEEN = f"\n{END}\n"

Ids = np.ndarray[tuple[int], np.dtype[np.uint32]]
Batch = np.ndarray[tuple[int, int], np.dtype[np.int64]]


def joined(texts: Iterable[str]) -> str:
    """Texts as they stand in one file.

    >>> joined(["one", "two"])
    'one\\n<|endoftext|>\\ntwo'
    """
    return _BETWEEN.join(texts)


def parted(content: str) -> list[str]:
    """The texts of such a file.

    >>> parted(joined(["one", "two"]))
    ['one', 'two']
    """
    return content.split(_BETWEEN)


def texts_of(paths: Sequence[Path]) -> list[str]:
    """The texts in some files, without repetitions.

    Raises:
        TrainingError: when a file cannot be read as UTF-8 text.
    """
    texts: dict[str, None] = {}
    for path in paths:
        try:
            content = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise TrainingError(f"{path} cannot be read: {why}.") from error
        parts = parted(content) if END in content else _passages(content)
        texts |= dict.fromkeys(part for part in map(str.strip, parts) if part)
    return list(texts)


def _passages(content: str) -> list[str]:
    """A long text cut at ends of paragraphs, or of lines where a paragraph is very long.

    >>> [len(passage) for passage in _passages("a line\\n" * 600)]
    [2002, 2002, 196]
    """
    passages = [""]
    for line in re.findall(r"[^\n]*\n+|[^\n]+$", content):
        if len(passages[-1]) >= N_PASSAGE:
            passages.append("")
        passages[-1] += line
    return passages


def held_out(texts: Sequence[str]) -> tuple[list[str], list[str]]:
    """The texts to learn from, and those that are held out: two of a hundred, chosen by their content alone.

    >>> learn, held = held_out([f"text {i}" for i in range(100)])
    >>> len(learn), len(held)
    (98, 2)
    """
    drawn = sorted(texts, key=lambda text: hashlib.sha256(text.encode()).digest())
    chosen = set(drawn[: max(1, round(len(texts) * HELD_OUT))])
    return [text for text in texts if text not in chosen], [text for text in texts if text in chosen]


def make_vocabulary(folder: Path, texts: Sequence[str], n_vocab: int) -> Tokenizer:
    """Learn a byte-level BPE from texts and write it to a folder, as tokenizer.json.

    A space is put before every text, so that a word at its beginning is the same token as inside it.

    Raises:
        TrainingError: when the texts do not hold as many different tokens.
    """
    bpe = ByteLevelBPETokenizer(add_prefix_space=True)
    bpe.train_from_iterator(texts, vocab_size=n_vocab, min_frequency=2, special_tokens=[END], show_progress=False)
    if bpe.get_vocab_size() < n_vocab:
        raise TrainingError(
            f"These texts make only {bpe.get_vocab_size():,} tokens, {n_vocab:,} were asked for. "
            f"Add text, or ask for a smaller vocabulary (--vocab {bpe.get_vocab_size()})."
        )
    write_atomic(folder / "tokenizer.json", bpe.to_str(pretty=True).encode())
    write_json(
        folder / "tokenizer_config.json",
        {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": True, "bos_token": END, "eos_token": END},
    )
    return load_tokenizer(folder)


@dataclass(frozen=True)
class Corpus:
    """The tokens of all texts, one after another, END before each; on disk, and read from there as they are needed."""

    learn: Ids
    held: Ids
    n_held_bytes: int  # of the held-out texts in UTF-8

    @property
    def n_tokens(self) -> int:
        """How many tokens there are to learn from."""
        return len(self.learn)


def write_corpus(folder: Path, texts: Sequence[str], tokenizer: Tokenizer) -> None:
    """Tokenise texts into learn.npy, held.npy and held.txt.

    Raises:
        OSError: when something cannot be written.
    """
    end = tokenizer.special[END]
    learn, held = held_out(texts)
    write_atomic(folder / "held.txt", joined(held).encode())
    for name, part in (("learn", learn), ("held", held)):
        ids = np.fromiter((id for text in part for id in (end, *tokenizer.encode(text).ids)), dtype=np.uint32)
        np.save(file := BytesIO(), ids)
        write_atomic(folder / f"{name}.npy", file.getvalue())


def open_corpus(folder: Path, recipe: Recipe) -> Corpus:
    """What `write_corpus` wrote, memory-mapped.

    Raises:
        TrainingError: when either part is shorter than one context.
    """
    learn, held = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("learn", "held"))
    shortest = min(len(learn), len(held))
    if shortest <= recipe.n_context:
        part = "held out of them" if len(held) == shortest else "to learn from"
        raise TrainingError(
            f"These texts are too short: {shortest:,} tokens are {part}; one context takes {recipe.n_context + 1:,}. "
            f"Add text, or make the context smaller (--context {max(8, shortest // 2)})."
        )
    held_texts = parted((folder / "held.txt").read_text(encoding="utf-8"))
    return Corpus(learn, held, sum(len(text.encode()) for text in held_texts))


def batch(corpus: Corpus, recipe: Recipe, step: int) -> Batch:
    """The stretches that a step learns from, (B, T+1); they depend on seed and step alone.

    Most are text; some repeat themselves. In a drill all do. The first drills are of short stretches, and of as many
    more, and of common tokens: on them the heads of induction form in hundreds of steps. The other drills are of whole
    contexts and all tokens: on them the same heads become sharp, since the more tokens there are to look at, the less a
    vague look helps.
    """
    random = np.random.default_rng([recipe.seed, step])
    first = is_first_drill(recipe, step)
    n_tokens = min(recipe.n_context, N_SHORT) if first else recipe.n_context
    n_drawn = min(recipe.n_vocab, N_COMMON) if first else recipe.n_vocab
    rows = []
    for _ in range(recipe.n_texts * recipe.n_context // n_tokens):
        if first and random.random() < PAIRS:
            rows.append(_pairs(random, n_drawn, n_tokens + 1))
        elif step < recipe.n_drills or random.random() < recipe.repeats:
            rows.append(_repetition(random, n_drawn, n_tokens + 1))
        else:
            start = random.integers(0, len(corpus.learn) - n_tokens - 1, endpoint=True)
            rows.append(corpus.learn[start : start + n_tokens + 1])
    return np.stack(rows).astype(np.int64)


def n_first_drills(recipe: Recipe) -> int:
    """How many drills are easy ones.

    >>> n_first_drills(Recipe(n_steps=1000, drills=0.1))
    64
    """
    return round(FIRST * recipe.n_drills)


def is_first_drill(recipe: Recipe, step: int) -> bool:
    """Is a step one of them?"""
    return step < n_first_drills(recipe)


def _pairs(random: np.random.Generator, n_vocab: int, n_wanted: int) -> Ids:
    """Pairs of random tokens said twice, a b a b c d c d: the token to come is the one before, or cannot be known."""
    said = np.tile(random.integers(0, n_vocab, (n_wanted // 4 + 2, 1, 2)), (1, 2, 1)).ravel()
    return said[random.integers(0, 4) :][:n_wanted].astype(np.uint32)


def _repetition(random: np.random.Generator, n_vocab: int, n_wanted: int) -> Ids:
    """Some random tokens said again and again, which asks for induction (Olsson et al. 2022)."""
    n_least, n_most = max(2, n_wanted // 10), n_wanted // 2
    n_said = round(n_least * (n_most / n_least) ** random.random())
    return np.resize(random.integers(0, n_vocab, n_said), n_wanted).astype(np.uint32)
