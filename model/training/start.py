"""Prepares the folder of a run: tokenizer and tokens are made once, and used again when the run continues."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from model.tokenizer import Tokenizer
from model.training.corpus import END_OF_TEXT, Corpus, open_corpus, read_texts, train_tokenizer, write_corpus
from model.training.recipe import Recipe, TrainingError, differing_fields
from model.training.record import load_record
from model.training.run import RESUME
from model.weights.save import write_atomic, write_json
from model.weights.tokenizer_files import load_tokenizer

ABOUT = "corpus/about.json"  # written last: if it is there, the corpus is complete
TOKENIZER_FILES = (
    *("tokenizer.json", "vocab.json", "merges.txt", "encoder.json", "vocab.bpe"),
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
)


@dataclass(frozen=True)
class PreparedRun:
    """A run that can be trained."""

    recipe: Recipe
    corpus: Corpus
    n_steps_done: int  # all of them if the run is complete; otherwise 0, because `train` itself finds the saved state


def prepare_run(folder: Path, texts: Sequence[Path], recipe: Recipe, tokenizer: Path | None = None) -> PreparedRun:
    """Prepare the folder of a run. The tokenizer is trained on the texts, unless a folder with one is given.

    Raises:
        TrainingError: if the texts are too short, or the folder holds another run, or files of another kind.
        WeightsError, TokenizerError: if the given tokenizer cannot be read.
        OSError: if a file cannot be read or written.
    """
    _refuse_foreign_files(folder)
    contents = read_texts(texts)
    if not contents:
        raise TrainingError(f"There is no text in {', '.join(map(str, texts))}.")
    about = {"texts": _digest(contents), "n_vocab": recipe.n_vocab, "tokenizer": str(tokenizer) if tokenizer else None}
    if not (folder / ABOUT).is_file():
        write_corpus(folder / "corpus", contents, _make_tokenizer(folder, contents, recipe, tokenizer))
        write_json(folder / ABOUT, about)
    elif json.loads((folder / ABOUT).read_text(encoding="utf-8")) != about:
        raise TrainingError(f"{folder} holds a run on other texts, or with another vocabulary. Choose another --out.")
    if tokenizer:
        recipe = replace(recipe, n_vocab=len(load_tokenizer(folder)))
    return PreparedRun(recipe, open_corpus(folder / "corpus", recipe), _n_steps_done(folder, recipe))


def has_bfloat16(device: torch.device) -> bool:
    """Whether this device multiplies in bfloat16 natively, and therefore faster than in float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return capabilities.get("amx_bf16", False) or capabilities.get("avx512_bf16", False)


def _make_tokenizer(folder: Path, texts: Sequence[str], recipe: Recipe, given: Path | None) -> Tokenizer:
    if given is None:
        return train_tokenizer(folder, texts, recipe.n_vocab)
    tokenizer = load_tokenizer(given)
    if END_OF_TEXT not in tokenizer.special:
        raise TrainingError(f"The tokenizer in {given} has no token {END_OF_TEXT}, which separates texts.")
    for name in TOKENIZER_FILES:
        if (given / name).is_file():
            write_atomic(folder / name, (given / name).read_bytes())
    return tokenizer


def _refuse_foreign_files(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise TrainingError(f"{folder} is a file; --out must be a folder.")
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()) and not (folder / "corpus").is_dir():
        raise TrainingError(f"{folder} is not empty, and holds no run of `lookback train`. Choose another --out.")


def _n_steps_done(folder: Path, recipe: Recipe) -> int:
    if (folder / RESUME).is_file():
        return 0
    try:
        record = load_record(folder)
    except TrainingError as error:
        raise TrainingError(f"{folder} holds a run that cannot be continued: {error}. Choose another --out.") from error
    if record is None or record.step < record.recipe.n_steps:
        return 0
    if differing := differing_fields(record.recipe, recipe):
        raise TrainingError(
            f"{folder} holds a complete run with another recipe ({differing} differ). Choose another --out."
        )
    return record.step


def _digest(texts: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode() + b"\0")
    return digest.hexdigest()
