"""Begin a run, or go on with it: folder, vocabulary and tokens are made once, and are the same ever after."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from model.tokenizer import Tokenizer
from model.training.corpus import END, Corpus, make_vocabulary, open_corpus, texts_of, write_corpus
from model.training.recipe import Recipe, TrainingError, differences
from model.training.record import read_record
from model.training.run import RESUME
from model.weights.save import write_atomic, write_json
from model.weights.tokenizer_files import load_tokenizer

ABOUT = "corpus/about.json"  # written last: where it is, the corpus is whole
TOKENIZER_FILES = (
    *("tokenizer.json", "vocab.json", "merges.txt", "encoder.json", "vocab.bpe"),
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
)


@dataclass(frozen=True)
class Start:
    """Where a run stands before its first step, or its next one."""

    recipe: Recipe
    corpus: Corpus
    n_done: int  # steps, as far as the folder says; all of them once it is trained


def start(folder: Path, texts: Sequence[Path], recipe: Recipe, tokenizer: Path | None = None) -> Start:
    """Make ready the folder of a run. The vocabulary is learned from the texts, unless a folder with one is given.

    Raises:
        TrainingError: when the texts are too short, or the folder holds something else, or a run on other texts.
        WeightsError, TokenizerError: when the given tokenizer cannot be read.
        OSError: when something cannot be read or written.
    """
    _refuse_strangers(folder)
    read = texts_of(texts)
    if not read:
        raise TrainingError(f"There is no text in {', '.join(map(str, texts))}.")
    about = {"texts": _digest(read), "n_vocab": recipe.n_vocab, "tokenizer": str(tokenizer) if tokenizer else None}
    if not (folder / ABOUT).is_file():
        made = _vocabulary(folder, read, recipe, tokenizer)
        write_corpus(folder / "corpus", read, made)
        write_json(folder / ABOUT, about)
    elif json.loads((folder / ABOUT).read_text(encoding="utf-8")) != about:
        raise TrainingError(f"{folder} holds a run on other texts, or with another vocabulary. Choose another --out.")
    if tokenizer:
        recipe = replace(recipe, n_vocab=len(load_tokenizer(folder)))
    return Start(recipe, open_corpus(folder / "corpus", recipe), _n_done(folder, recipe))


def has_bfloat16(device: torch.device) -> bool:
    """Does this device multiply in bfloat16 by itself, and so faster than in float32?"""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return capabilities.get("amx_bf16", False) or capabilities.get("avx512_bf16", False)


def _vocabulary(folder: Path, texts: Sequence[str], recipe: Recipe, given: Path | None) -> Tokenizer:
    if given is None:
        return make_vocabulary(folder, texts, recipe.n_vocab)
    tokenizer = load_tokenizer(given)
    if END not in tokenizer.special:
        raise TrainingError(f"The tokenizer in {given} has no {END}, which stands between texts.")
    for name in TOKENIZER_FILES:
        if (given / name).is_file():
            write_atomic(folder / name, (given / name).read_bytes())
    return tokenizer


def _refuse_strangers(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise TrainingError(f"{folder} is a file; --out names a folder.")
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()) and not (folder / "corpus").is_dir():
        raise TrainingError(f"{folder} is not empty, and holds no run of ours. Choose another --out.")


def _n_done(folder: Path, recipe: Recipe) -> int:
    record = read_record(folder)
    if record is None or (folder / RESUME).is_file() or record.step < record.recipe["n_steps"]:
        return 0
    if differ := differences(record.recipe, recipe):
        raise TrainingError(f"{folder} holds a finished run by another recipe ({differ} differ). Choose another --out.")
    return record.step


def _digest(texts: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode() + b"\0")
    return digest.hexdigest()
