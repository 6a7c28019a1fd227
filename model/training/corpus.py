"""Turns texts into a tokenizer, tokens on disk with some texts held out, and the batches of each training step.

Easy steps, the first of the curriculum, have short sequences of a few common tokens; the later ones have whole contexts
of all tokens.
"""

# shapes: B sequences, T tokens

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

END_OF_TEXT = "<|endoftext|>"  # a line between two texts of a file, and the token between two texts
HELD_OUT_FRACTION = 0.02  # of the texts; they are never used for training
EASY_FRACTION = 0.64  # of the curriculum steps: previous-token and induction heads form only on easy sequences
N_EASY_TOKENS = 64  # tokens per sequence of an easy step
N_EASY_VOCAB = 1024  # token ids that easy steps use: the lowest, whose merges came first
PAIR_FRACTION = 0.2  # of the sequences of an easy step consist of pairs that are repeated once
N_PASSAGE = 2000  # characters; a file without END_OF_TEXT is split at paragraphs into passages of about this length

_SEPARATOR = f"\n{END_OF_TEXT}\n"

TokenIds = np.ndarray[tuple[int], np.dtype[np.uint32]]
Batch = np.ndarray[tuple[int, int], np.dtype[np.int64]]


def join_texts(texts: Iterable[str]) -> str:
    """The content of a file with these texts.

    >>> join_texts(["one", "two"])
    'one\\n<|endoftext|>\\ntwo'
    """
    return _SEPARATOR.join(texts)


def split_texts(content: str) -> list[str]:
    """The texts in the content of such a file.

    >>> split_texts(join_texts(["one", "two"]))
    ['one', 'two']
    """
    return content.split(_SEPARATOR)


def read_texts(paths: Sequence[Path]) -> list[str]:
    """The texts in some files, without repetitions.

    Raises:
        TrainingError: if a file cannot be read as UTF-8 text.
    """
    texts: dict[str, None] = {}
    for path in paths:
        try:
            content = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise TrainingError(f"{path} cannot be read: {reason}.") from error
        parts = split_texts(content) if END_OF_TEXT in content else _passages(content)
        texts |= dict.fromkeys(part for part in map(str.strip, parts) if part)
    return list(texts)


def _passages(content: str) -> list[str]:
    """A long text, split at ends of paragraphs, or of lines if a paragraph is very long.

    >>> [len(passage) for passage in _passages("a line\\n" * 600)]
    [2002, 2002, 196]
    """
    passages = [""]
    for line in re.findall(r"[^\n]*\n+|[^\n]+$", content):
        if len(passages[-1]) >= N_PASSAGE:
            passages.append("")
        passages[-1] += line
    return passages


def split_held_out(texts: Sequence[str]) -> tuple[list[str], list[str]]:
    """The texts for training, and the held-out ones: 2 % of all, chosen by a hash of their content.

    >>> training, held_out = split_held_out([f"text {i}" for i in range(100)])
    >>> len(training), len(held_out)
    (98, 2)
    """
    shuffled = sorted(texts, key=lambda text: hashlib.sha256(text.encode()).digest())
    held_out = set(shuffled[: max(1, round(len(texts) * HELD_OUT_FRACTION))])
    return [text for text in texts if text not in held_out], [text for text in texts if text in held_out]


def train_tokenizer(folder: Path, texts: Sequence[str], n_vocab: int) -> Tokenizer:
    """Train a byte-level BPE tokenizer on texts, and write it to a folder as tokenizer.json.

    It adds a space at the beginning of every text, so that the first word is the same token as inside a text.

    Raises:
        TrainingError: if the texts have too few different tokens.
    """
    bpe = ByteLevelBPETokenizer(add_prefix_space=True)
    bpe.train_from_iterator(
        texts, vocab_size=n_vocab, min_frequency=2, special_tokens=[END_OF_TEXT], show_progress=False
    )
    if bpe.get_vocab_size() < n_vocab:
        raise TrainingError(
            f"A vocabulary of {n_vocab:,} tokens was requested, but these texts have only {bpe.get_vocab_size():,}. "
            f"Add text, or request a smaller vocabulary (--vocab {bpe.get_vocab_size()})."
        )
    write_atomic(folder / "tokenizer.json", bpe.to_str(pretty=True).encode())
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "GPT2Tokenizer",
            "add_prefix_space": True,
            "bos_token": END_OF_TEXT,
            "eos_token": END_OF_TEXT,
        },
    )
    return load_tokenizer(folder)


@dataclass(frozen=True)
class Corpus:
    """The token ids of all texts, one text after another, each after END_OF_TEXT; memory-mapped from disk."""

    training: TokenIds
    held_out: TokenIds
    n_held_out_bytes: int  # of the held-out texts in UTF-8

    @property
    def n_tokens(self) -> int:
        """How many tokens there are for training."""
        return len(self.training)


def write_corpus(folder: Path, texts: Sequence[str], tokenizer: Tokenizer) -> None:
    """Tokenize texts into learn.npy and held.npy, and write the held-out texts to held.txt.

    Raises:
        OSError: if a file cannot be written.
    """
    end = tokenizer.special[END_OF_TEXT]
    training, held_out = split_held_out(texts)
    write_atomic(folder / "held.txt", join_texts(held_out).encode())
    for name, part in (("learn", training), ("held", held_out)):
        ids = np.fromiter((id for text in part for id in (end, *tokenizer.encode(text).ids)), dtype=np.uint32)
        np.save(file := BytesIO(), ids)
        write_atomic(folder / f"{name}.npy", file.getvalue())


def open_corpus(folder: Path, recipe: Recipe) -> Corpus:
    """The corpus that `write_corpus` wrote, memory-mapped.

    Raises:
        TrainingError: if either part is shorter than one context.
    """
    training, held_out = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("learn", "held"))
    n_tokens = min(len(training), len(held_out))
    if n_tokens <= recipe.n_context:
        part = "held out of them" if len(held_out) == n_tokens else "to train on"
        raise TrainingError(
            f"These texts are too short: {n_tokens:,} tokens are {part}; one context takes {recipe.n_context + 1:,}. "
            f"Add text, or make the context smaller (--context {max(8, n_tokens // 2)})."
        )
    held_out_texts = split_texts((folder / "held.txt").read_text(encoding="utf-8"))
    return Corpus(training, held_out, sum(len(text.encode()) for text in held_out_texts))


def make_batch(corpus: Corpus, recipe: Recipe, step: int) -> Batch:
    """The sequences of a training step, (B, T+1). They depend on the corpus, the recipe and the step alone.

    Most sequences are text, some are repeated random tokens; in the curriculum all are. Easy steps have more and
    shorter sequences, of common tokens: on them induction heads form within hundreds of steps. The other curriculum
    steps have whole contexts of all tokens: they make the same heads sharper, because with more tokens to attend to,
    imprecise attention helps less.
    """
    random = np.random.default_rng([recipe.seed, step])
    is_easy = is_easy_step(recipe, step)
    n_tokens = min(recipe.n_context, N_EASY_TOKENS) if is_easy else recipe.n_context
    n_vocab = min(recipe.n_vocab, N_EASY_VOCAB) if is_easy else recipe.n_vocab
    rows = []
    for _ in range(recipe.batch_size * recipe.n_context // n_tokens):
        if is_easy and random.random() < PAIR_FRACTION:
            rows.append(_repeated_pairs(random, n_vocab, n_tokens + 1))
        elif step < recipe.n_curriculum_steps or random.random() < recipe.repeats:
            rows.append(_repeated_tokens(random, n_vocab, n_tokens + 1))
        else:
            start = random.integers(0, len(corpus.training) - n_tokens - 1, endpoint=True)
            rows.append(corpus.training[start : start + n_tokens + 1])
    return np.stack(rows).astype(np.int64)


def n_easy_steps(recipe: Recipe) -> int:
    """How many steps of the curriculum are easy.

    >>> n_easy_steps(Recipe(n_steps=1000, curriculum=0.1))
    64
    """
    return round(EASY_FRACTION * recipe.n_curriculum_steps)


def is_easy_step(recipe: Recipe, step: int) -> bool:
    """Whether a step is one of the easy ones, which come first."""
    return step < n_easy_steps(recipe)


def _repeated_pairs(random: np.random.Generator, n_vocab: int, n_tokens: int) -> TokenIds:
    """Pairs of random tokens, each pair repeated once: a b a b c d c d.

    The next token is either the one before the current token, or cannot be predicted.
    """
    tokens = np.tile(random.integers(0, n_vocab, (n_tokens // 4 + 2, 1, 2)), (1, 2, 1)).ravel()
    return tokens[random.integers(0, 4) :][:n_tokens].astype(np.uint32)


def _repeated_tokens(random: np.random.Generator, n_vocab: int, n_tokens: int) -> TokenIds:
    """Some random tokens, repeated to the end; only induction can predict them (Olsson et al. 2022)."""
    n_min, n_max = max(2, n_tokens // 10), n_tokens // 2
    period = round(n_min * (n_max / n_min) ** random.random())
    return np.resize(random.integers(0, n_vocab, period), n_tokens).astype(np.uint32)
