"""Loads a checkpoint folder in Hugging Face's layout as a GPT and a Tokenizer.

The folder has config.json, model.safetensors (or shards with an index), and the files of a tokenizer. Only safetensors
are read: .bin and .pt files are pickles, which can run code, so they are refused.
"""

import logging
from pathlib import Path

import torch

from model.config import Config
from model.gpt import GPT
from model.tokenizer import Tokenizer, TokenizerError
from model.weights.checks import check_layers, check_tensors, resolve_tying
from model.weights.config_json import read_config_file
from model.weights.files import read_tensors
from model.weights.names import WeightsError, embedding_name, from_checkpoint
from model.weights.tokenizer_files import load_tokenizer

log = logging.getLogger("lookback")


def load(folder: Path, *, device: torch.device, dtype: torch.dtype) -> tuple[GPT, Tokenizer]:
    """The network, in eval mode, and its tokenizer.

    Raises:
        WeightsError: if a file is missing, or something in it cannot be used; the message names it.
    """
    config = read_config_file(folder)
    try:
        tokenizer = load_tokenizer(folder)
    except (TokenizerError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"The tokenizer in {folder} cannot be read: {_reason(error)}.") from error
    if tokenizer.last_id >= config.n_vocab:
        raise WeightsError(
            f"The tokenizer in {folder} has ids up to {tokenizer.last_id:,} ({tokenizer.label(tokenizer.last_id)}), "
            f"but {embedding_name(config)} has {config.n_vocab:,} rows (vocab_size): the model has no vector for such "
            "tokens. Take the tokenizer that the model was trained with."
        )
    return load_model(folder, config, device=device, dtype=dtype), tokenizer


def load_model(folder: Path, config: Config, *, device: torch.device, dtype: torch.dtype) -> GPT:
    """The network with the folder's weights, in eval mode.

    Its Config is untied if the file has an unembedding that differs from the embedding.

    Raises:
        WeightsError: if tensors are missing, unknown, not finite, or of another shape than config.json says.
    """
    tensors = read_tensors(folder)
    try:
        is_tied_by_config, config = config.tied, resolve_tying(tensors, config)
        check_layers(tensors, config)
        with torch.device("meta"):  # shapes without memory; the file's tensors replace them
            model = GPT(config)
        shapes = {name: tuple(parameter.shape) for name, parameter in model.state_dict().items()}
        check_tensors(tensors, shapes, config, dtype)
    except WeightsError as error:
        raise WeightsError(f"The weights in {folder} do not fit. {error}") from error
    if is_tied_by_config and not config.tied:
        log.warning(
            "%s: lm_head.weight differs from %s, although config.json ties the two (or does not set "
            "tie_word_embeddings). Both are used, so the model is untied.",
            folder,
            embedding_name(config),
        )
    model.load_state_dict(from_checkpoint(tensors, config), assign=True)
    if config.tied:
        model.unembed.weight = model.embed.weight
    return model.to(device=device, dtype=dtype).requires_grad_(False).eval()


def saved_steps(folder: Path) -> tuple[int, ...]:
    """The training steps whose parameters were saved beside the checkpoint, as steps/128/model.safetensors."""
    numbers = (path.parent.name for path in folder.glob("steps/*/model.safetensors"))
    return tuple(sorted(int(number) for number in numbers if number.isdecimal()))


def load_step(folder: Path, step: int, *, device: torch.device, dtype: torch.dtype) -> GPT:
    """The network as it was after `step` training steps, in eval mode.

    Raises:
        WeightsError: if that step was not saved, or its tensors cannot be used.
    """
    return load_model(folder / "steps" / str(step), read_config_file(folder), device=device, dtype=dtype)


def _reason(error: Exception) -> str:
    return f"it has no {error}" if isinstance(error, KeyError) else str(error)
