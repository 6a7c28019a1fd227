"""Reads config.json into a Config. A field that changes the computation is used, or refused by its name in the file."""

from collections.abc import Mapping
from pathlib import Path

from model.config import Config, ConfigError, RotaryScaling
from model.weights.config_fields import (
    FIXED,
    FIXED_IN_BOTH,
    HARMLESS,
    OPTIONAL_SIZES,
    OTHER_FIELDS,
    ROTARY_FIELDS,
    SIZES,
    SWITCHES,
)
from model.weights.files import ADAPTER, as_json, read_json
from model.weights.names import WeightsError


def read_config_file(folder: Path) -> Config:
    """The Config of a checkpoint folder.

    Raises:
        WeightsError: if there is no config.json, or it describes a network that gpt.py does not implement.
    """
    if not folder.is_dir():
        raise WeightsError(f"There is no folder {folder}. A checkpoint is a folder with config.json and its weights.")
    if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
        raise WeightsError(ADAPTER.format(folder=folder))
    try:
        return read_config(read_json(folder / "config.json"))
    except (ConfigError, TypeError) as error:
        raise WeightsError(f"{folder / 'config.json'} does not fit: {error}.") from error


def read_config(raw: Mapping[str, object]) -> Config:
    """The Config that a config.json describes.

    Raises:
        ConfigError: if it describes a network that gpt.py does not implement, or has an unknown field.
    """
    readers = {"gpt2": _gpt2_config, "llama": _llama_config}
    family = raw.get("model_type")
    if not isinstance(family, str) or family not in readers:
        raise ConfigError(f"its model_type is {family!r}; Lookback reads {' and '.join(readers)}")
    _refuse_unsupported(raw, family)
    return readers[family](raw)


def _refuse_unsupported(raw: Mapping[str, object], family: str) -> None:
    """Stop at a field that is unknown, or that makes the network compute something else than gpt.py does."""
    used = {*SIZES[family], *SWITCHES[family], *OTHER_FIELDS[family]}
    fixed = {**FIXED_IN_BOTH, **FIXED[family]}
    for name, value in raw.items():
        if name in fixed and value not in fixed[name]:
            supported = " or ".join(as_json(allowed) for allowed in fixed[name])
            raise ConfigError(f"its {name} is {as_json(value)}; Lookback computes {supported}")
        if name not in used and name not in fixed and name not in HARMLESS:
            raise ConfigError(
                f"its field {name} ({as_json(value)}) is not known to Lookback, which would ignore it. "
                "If it does not change what this model computes, delete it from config.json"
            )


def _sizes(raw: Mapping[str, object], family: str) -> dict[str, int]:
    """The sizes in the file, by their names in Config. Optional ones may be missing."""
    sizes = {}
    for name, config_name in SIZES[family].items():
        value = raw.get(name)
        if value is None:
            if name not in OPTIONAL_SIZES:
                raise ConfigError(f"it has no {name}")
        elif not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ConfigError(f"its {name} is {as_json(value)}; it must be a whole number, at least 1")
        else:
            sizes[config_name] = value
    return sizes


def _switch(raw: Mapping[str, object], family: str, name: str) -> bool:
    value = raw.get(name, SWITCHES[family][name])
    if not isinstance(value, bool):
        raise ConfigError(f"its {name} is {as_json(value)}; it must be true or false")
    return value


def _gpt2_config(raw: Mapping[str, object]) -> Config:
    sizes = _sizes(raw, "gpt2")
    d_model, n_heads = sizes["d_model"], sizes["n_heads"]
    if d_model % n_heads:
        raise ConfigError(f"its n_embd is {d_model}, which the {n_heads} heads of n_head cannot share evenly")
    return Config(
        family="gpt2",
        n_layers=sizes["n_layers"],
        n_heads=n_heads,
        n_kv_heads=n_heads,
        d_model=d_model,
        d_head=d_model // n_heads,
        d_mlp=sizes.get("d_mlp", 4 * d_model),
        n_vocab=sizes["n_vocab"],
        n_context=sizes["n_context"],
        norm="layernorm",
        norm_eps=_positive(raw, "layer_norm_epsilon", 1e-5),
        positions="learned",
        mlp="gelu",
        tied=_switch(raw, "gpt2", "tie_word_embeddings"),
        attention_bias=True,
        mlp_bias=True,
    )


def _llama_config(raw: Mapping[str, object]) -> Config:
    sizes = _sizes(raw, "llama")
    n_heads, d_model = sizes["n_heads"], sizes["d_model"]
    n_kv_heads = sizes.get("n_kv_heads", n_heads)
    d_head = _llama_head_size(sizes)
    if n_heads % n_kv_heads:
        raise ConfigError(
            f"its num_attention_heads is {n_heads} and its num_key_value_heads {n_kv_heads}: "
            f"{n_heads} query heads cannot share {n_kv_heads} key heads evenly"
        )
    _refuse_other_layers(raw)
    base, scaling = _rotary(raw)
    return Config(
        family="llama",
        n_layers=sizes["n_layers"],
        n_heads=n_heads,
        n_kv_heads=n_kv_heads,
        d_model=d_model,
        d_head=d_head,
        d_mlp=sizes["d_mlp"],
        n_vocab=sizes["n_vocab"],
        n_context=sizes["n_context"],
        norm="rmsnorm",
        norm_eps=_positive(raw, "rms_norm_eps", 1e-6),
        positions="rotary",
        mlp="swiglu",
        tied=_switch(raw, "llama", "tie_word_embeddings"),
        attention_bias=_switch(raw, "llama", "attention_bias"),
        mlp_bias=_switch(raw, "llama", "mlp_bias"),
        rotary_base=base,
        rotary_scaling=scaling,
    )


def _llama_head_size(sizes: Mapping[str, int]) -> int:
    n_heads, d_model = sizes["n_heads"], sizes["d_model"]
    if "d_head" not in sizes and d_model % n_heads:
        raise ConfigError(
            f"its hidden_size is {d_model}, which the {n_heads} heads of num_attention_heads cannot share evenly"
        )
    d_head = sizes.get("d_head", d_model // n_heads)
    if d_head % 2:
        raise ConfigError(
            f"its head_dim (or hidden_size / num_attention_heads) is {d_head}; "
            "rotary positions rotate pairs of features, so it must be even"
        )
    return d_head


def _refuse_other_layers(raw: Mapping[str, object]) -> None:
    layer_types = raw.get("layer_types") or ()
    if not isinstance(layer_types, list | tuple):
        raise ConfigError(f"its layer_types is {as_json(layer_types)}; it must be a list")
    if unsupported := set(map(str, layer_types)) - {"full_attention"}:
        raise ConfigError(f"its layer_types name {', '.join(sorted(unsupported))}; Lookback knows full_attention")


def _rotary(raw: Mapping[str, object]) -> tuple[float, RotaryScaling | None]:
    """Base and scaling of the rotary positions.

    `transformers` 5 has both in rope_parameters; earlier versions have rope_theta and rope_scaling.
    """
    if raw.get("rope_parameters") and raw.get("rope_scaling") not in (None, {}, raw["rope_parameters"]):
        raise ConfigError("its rope_scaling and its rope_parameters differ; remove one of them")
    where = "rope_parameters" if raw.get("rope_parameters") else "rope_scaling"
    rotary = raw.get(where) or {}
    if not isinstance(rotary, dict):
        raise ConfigError(f"its {where} is {as_json(rotary)}; it must be an object")
    kind = _rotary_kind(rotary, where)
    base = _positive(rotary, "rope_theta", _positive(raw, "rope_theta", 10_000.0), where)
    if kind == "default":
        return base, None
    factor = _positive(rotary, "factor", None, where)
    if kind == "linear":
        return base, RotaryScaling(kind="linear", factor=factor)
    return base, RotaryScaling(
        kind="llama3",
        factor=factor,
        low_freq_factor=_positive(rotary, "low_freq_factor", None, where),
        high_freq_factor=_positive(rotary, "high_freq_factor", None, where),
        original_context=int(_positive(rotary, "original_max_position_embeddings", None, where)),
    )


def _rotary_kind(rotary: Mapping[str, object], where: str) -> str:
    """The type of scaling, one of ROTARY_FIELDS, all of whose fields are known."""
    kind = rotary.get("rope_type") or rotary.get("type") or "default"
    if not isinstance(kind, str) or kind not in ROTARY_FIELDS:
        raise ConfigError(f"its {where}.rope_type is {kind!r}; Lookback knows {', '.join(ROTARY_FIELDS)}")
    for name, value in rotary.items():
        is_known = name in ("rope_type", "type", "rope_theta", *ROTARY_FIELDS[kind])
        if not is_known and not (name == "partial_rotary_factor" and value in (1.0, None)):
            raise ConfigError(f"its {where}.{name} is {as_json(value)}, which Lookback does not compute for {kind!r}")
    return kind


def _positive(raw: Mapping[str, object], name: str, default: float | None, where: str = "") -> float:
    """A positive number of the file; `default` if the field is missing and may be."""
    path = f"{where}.{name}" if where else name
    value = raw.get(name)
    if value is None and default is not None:
        return default
    if value is None:
        raise ConfigError(f"it has no {path}")
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise ConfigError(f"its {path} is {as_json(value)}; it must be a number, positive and finite")
    return value
