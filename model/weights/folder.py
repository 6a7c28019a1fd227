"""A checkpoint folder in Hugging Face's layout -> GPT and Tokenizer.

config.json, model.safetensors (or shards with an index), and tokenizer.json or vocab.json with merges.txt. Only
safetensors are read; a pickle can run code, so .bin and .pt files are refused by name.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from model.config import Config, ConfigError, RotaryScaling
from model.gpt import GPT
from model.tokenizer import DIGITS_PATTERN, GPT2_PATTERN, Tokenizer, TokenizerError
from model.weights.names import WeightsError, ours


def load(folder: Path, *, device: torch.device, dtype: torch.dtype) -> tuple[GPT, Tokenizer]:
    """The network, ready to read, and its tokenizer.

    Raises:
        WeightsError: when a file is missing or something in one does not fit; the message names it.
    """
    model = load_model(folder, read_config_file(folder), device=device, dtype=dtype)
    try:
        return model, load_tokenizer(folder)
    except (TokenizerError, KeyError) as error:
        raise WeightsError(f"The tokenizer in {folder} cannot be read: {_why(error)}.") from error


def read_config_file(folder: Path) -> Config:
    """The folder's Config.

    Raises:
        WeightsError: when there is no config.json, or it describes a network that gpt.py is not.
    """
    if not folder.is_dir():
        raise WeightsError(f"There is no folder {folder}. A checkpoint is a folder with config.json and its weights.")
    try:
        return read_config(_json(folder / "config.json"))
    except (ConfigError, KeyError, TypeError) as error:
        raise WeightsError(f"{folder / 'config.json'} does not fit: {_why(error)}.") from error


def load_model(folder: Path, config: Config, *, device: torch.device, dtype: torch.dtype) -> GPT:
    """The network with the folder's weights, in eval mode.

    Raises:
        WeightsError: when tensors are missing, strange, or of another shape than config.json says.
    """
    state = ours(_tensors(folder), config)
    with torch.device("meta"):  # shapes without memory; the file's tensors take their places
        model = GPT(config)
    wanted = {name: tuple(parameter.shape) for name, parameter in model.state_dict().items()}
    if missing := sorted(wanted.keys() - state.keys()):
        raise WeightsError(f"{folder} lacks {len(missing)} tensors that config.json promises: {_some(missing)}.")
    if surplus := sorted(state.keys() - wanted.keys()):
        raise WeightsError(f"{folder} holds {len(surplus)} tensors that config.json has no use for: {_some(surplus)}.")
    for name, shape in wanted.items():
        if tuple(state[name].shape) != shape:
            raise WeightsError(f"{name} has the shape {tuple(state[name].shape)}; config.json says {shape}.")
    model.load_state_dict(state, assign=True)
    if config.tied:
        model.unembed.weight = model.embed.weight
    return model.to(device=device, dtype=dtype).requires_grad_(False).eval()


def steps_of(folder: Path) -> tuple[int, ...]:
    """The steps of training whose parameters lie beside a checkpoint's own, as steps/128/model.safetensors."""
    numbers = (path.parent.name for path in folder.glob("steps/*/model.safetensors"))
    return tuple(sorted(int(number) for number in numbers if number.isdecimal()))


def load_step(folder: Path, step: int, *, device: torch.device, dtype: torch.dtype) -> GPT:
    """The network as it was after so many steps of training, in eval mode.

    Raises:
        WeightsError: when the folder does not have that step, or its tensors do not fit.
    """
    return load_model(folder / "steps" / str(step), read_config_file(folder), device=device, dtype=dtype)


def read_config(raw: Mapping[str, Any]) -> Config:
    """Our Config from a config.json.

    Raises:
        ConfigError: when it describes a network that gpt.py is not.
        KeyError: when a needed number is missing.
    """
    readers = {"gpt2": _gpt2_config, "llama": _llama_config}
    family = raw.get("model_type")
    if family not in readers:
        raise ConfigError(f"its model_type is {family!r}; Lookback reads {' and '.join(readers)}")
    return readers[family](raw)


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer from tokenizer.json, or from vocab.json and merges.txt with GPT-2's pattern.

    Raises:
        WeightsError: when there is neither.
        TokenizerError: when it is not a byte-level BPE.
    """
    if (folder / "tokenizer.json").is_file():
        return _from_tokenizer_json(_json(folder / "tokenizer.json"))
    if not ((folder / "vocab.json").is_file() and (folder / "merges.txt").is_file()):
        raise WeightsError(f"{folder} has no tokenizer: it needs tokenizer.json, or vocab.json and merges.txt.")
    vocab = _json(folder / "vocab.json")
    lines = (folder / "merges.txt").read_text(encoding="utf-8").split("\n")
    merges = [line for line in lines if line and not line.startswith("#version")]
    added = {name: vocab[name] for name in _special_names(folder) if name in vocab}
    return byte_level_tokenizer(vocab, merges, special=added, pattern=GPT2_PATTERN)


def byte_level_tokenizer(
    vocab: Mapping[str, int],
    merges: list[Any],
    *,
    special: Mapping[str, int],
    pattern: str,
    prefix_space: bool = False,
) -> Tokenizer:
    """A Tokenizer from the printable spelling in which byte-level BPE files write their bytes.

    >>> tokenizer = byte_level_tokenizer({"a": 0, "Ġ": 1, "Ġa": 2}, ["Ġ a"], special={}, pattern=GPT2_PATTERN)
    >>> tokenizer.encode("a a").ids
    (0, 2)
    """
    pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in merges]
    try:
        return Tokenizer(
            vocab={_bytes(piece): id for piece, id in vocab.items() if piece not in special},
            merges=[(_bytes(left), _bytes(right)) for left, right in pairs],
            special=special,
            pattern=pattern,
            prefix_space=prefix_space,
        )
    except (KeyError, ValueError) as error:
        raise TokenizerError(f"its vocabulary is not a byte-level BPE ({error})") from error


def _gpt2_config(raw: Mapping[str, Any]) -> Config:
    _refuse_unless(raw, "activation_function", ("gelu_new", "gelu_pytorch_tanh"), default="gelu_new")
    _refuse_unless(raw, "scale_attn_weights", (True,), default=True)
    _refuse_unless(raw, "scale_attn_by_inverse_layer_idx", (False,), default=False)
    _refuse_unless(raw, "add_cross_attention", (False,), default=False)
    d_model, n_heads = raw["n_embd"], raw["n_head"]
    if d_model % n_heads:
        raise ConfigError(f"n_embd is {d_model}, which {n_heads} heads cannot share evenly")
    return Config(
        family="gpt2",
        n_layers=raw["n_layer"],
        n_heads=n_heads,
        n_kv_heads=n_heads,
        d_model=d_model,
        d_head=d_model // n_heads,
        d_mlp=raw.get("n_inner") or 4 * d_model,
        n_vocab=raw["vocab_size"],
        n_context=raw["n_positions"],
        norm="layernorm",
        norm_eps=raw.get("layer_norm_epsilon", 1e-5),
        positions="learned",
        mlp="gelu",
        tied=raw.get("tie_word_embeddings", True),
        attention_bias=True,
        mlp_bias=True,
    )


def _llama_config(raw: Mapping[str, Any]) -> Config:
    _refuse_unless(raw, "hidden_act", ("silu",), default="silu")
    n_heads = raw["num_attention_heads"]
    # transformers 5 gathers the rotary numbers in rope_parameters; before it they stood apart
    rotary = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    return Config(
        family="llama",
        n_layers=raw["num_hidden_layers"],
        n_heads=n_heads,
        n_kv_heads=raw.get("num_key_value_heads") or n_heads,
        d_model=raw["hidden_size"],
        d_head=raw.get("head_dim") or raw["hidden_size"] // n_heads,
        d_mlp=raw["intermediate_size"],
        n_vocab=raw["vocab_size"],
        n_context=raw["max_position_embeddings"],
        norm="rmsnorm",
        norm_eps=raw.get("rms_norm_eps", 1e-6),
        positions="rotary",
        mlp="swiglu",
        tied=raw.get("tie_word_embeddings", False),
        attention_bias=raw.get("attention_bias", False),
        mlp_bias=raw.get("mlp_bias", False),
        rotary_base=rotary.get("rope_theta") or raw.get("rope_theta", 10_000.0),
        rotary_scaling=_rotary_scaling(rotary),
    )


def _rotary_scaling(rotary: Mapping[str, Any]) -> RotaryScaling | None:
    kind = rotary.get("rope_type") or rotary.get("type") or "default"
    if kind == "default":
        return None
    if kind == "linear":
        return RotaryScaling(kind="linear", factor=rotary["factor"])
    if kind == "llama3":
        return RotaryScaling(
            kind="llama3",
            factor=rotary["factor"],
            low_freq_factor=rotary["low_freq_factor"],
            high_freq_factor=rotary["high_freq_factor"],
            original_context=rotary["original_max_position_embeddings"],
        )
    raise ConfigError(f"its rotary positions are of the kind {kind!r}; Lookback knows default, linear and llama3")


def _refuse_unless(raw: Mapping[str, Any], key: str, known: tuple[object, ...], *, default: object) -> None:
    if raw.get(key, default) not in known:
        raise ConfigError(f"its {key} is {raw[key]!r}; Lookback computes {' or '.join(map(repr, known))}")


def _from_tokenizer_json(raw: Mapping[str, Any]) -> Tokenizer:
    bpe = raw["model"]
    if bpe.get("type", "BPE") != "BPE" or bpe.get("byte_fallback"):
        raise TokenizerError(
            f"its tokenizer.json holds a {bpe.get('type')} that is not byte-level; Lookback reads byte-level BPE"
        )
    special = {token["content"]: token["id"] for token in raw.get("added_tokens", [])}
    steps = (raw.get("pre_tokenizer") or {}).get("pretokenizers") or [raw.get("pre_tokenizer") or {}]
    # Behind another step the space would be put before every one of its pieces; no model that we know does that.
    prefix_space = len(steps) == 1 and bool(steps[0].get("add_prefix_space"))
    return byte_level_tokenizer(
        bpe["vocab"], bpe["merges"], special=special, pattern=_pattern(steps), prefix_space=prefix_space
    )


def _pattern(steps: list[dict[str, Any]]) -> str:
    """The regular expression of a tokenizer.json's pre-tokenizer, of the three kinds that GPT-2 and Llamas have."""
    match [step.get("type") for step in steps]:
        case ["ByteLevel"] if steps[0].get("use_regex", True):
            return GPT2_PATTERN
        case ["Digits", "ByteLevel"] if steps[0].get("individual_digits") and not steps[1].get("add_prefix_space"):
            return DIGITS_PATTERN
        case ["Split", "ByteLevel"] if (
            "Regex" in steps[0]["pattern"]
            and not steps[1].get("use_regex", True)
            and not steps[1].get("add_prefix_space")
        ):
            return str(steps[0]["pattern"]["Regex"])
    raise TokenizerError(f"its pre-tokenizer is one that Lookback does not know: {json.dumps(steps)[:200]}")


def _special_names(folder: Path) -> list[str]:
    """Names of special tokens beside vocab.json: GPT-2's one, and what the folder's own files add."""
    path = folder / "special_tokens_map.json"
    given = _json(path).values() if path.is_file() else []
    names = [token["content"] if isinstance(token, dict) else token for token in given]
    return list(dict.fromkeys(["<|endoftext|>", *(name for name in names if isinstance(name, str))]))


def _tensors(folder: Path) -> dict[str, Tensor]:
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        paths = [folder / name for name in sorted(set(_json(index)["weight_map"].values()))]
    else:
        paths = [folder / "model.safetensors"]
    for path in paths:
        if path.parent != folder or not path.is_file():
            pickles = [p.name for p in folder.iterdir() if p.suffix in (".bin", ".pt", ".pth")]
            cure = f" ({pickles[0]} is a pickle and can run code; save the model as safetensors.)" if pickles else ""
            raise WeightsError(f"{folder} has no {path.name}.{cure}")
    try:
        return {name: tensor for path in paths for name, tensor in load_file(path).items()}
    except SafetensorError as error:
        raise WeightsError(f"The weights in {folder} cannot be read: {error}.") from error


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise WeightsError(f"{path.parent} has no {path.name}.") from error
    except ValueError as error:
        raise WeightsError(f"{path} is not JSON: {error}.") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path} holds no JSON object.")
    return content


def _byte_of_character() -> dict[str, int]:
    """Byte-level BPE writes every byte as one printable character: itself, or one from U+0100 on, in order."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(0x100 + i): b for i, b in enumerate(others)}


_BYTE = _byte_of_character()


def _bytes(piece: str) -> bytes:
    return bytes(_BYTE[character] for character in piece)


def _why(error: Exception) -> str:
    return f"it has no {error}" if isinstance(error, KeyError) else str(error)


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
