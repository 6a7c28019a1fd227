"""Loading is exact or refused: a file is used as `transformers` uses it, or not at all."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from model.config import ConfigError
from model.reading import read
from model.weights.config_fields import FIXED, FIXED_IN_BOTH, HARMLESS
from model.weights.config_json import read_config
from model.weights.folder import load
from model.weights.names import WeightsError
from model.weights.sources import HubSource
from tests.checkpoints import N_VOCAB, edit_json, write_gpt2, write_llama
from tests.conftest import CPU, FLOAT

IDS = (5, 9, 200, 31)
LLAMA_NUMBERS = {
    "model_type": "llama",
    "hidden_size": 32,
    "num_attention_heads": 4,
    "num_hidden_layers": 1,
    "intermediate_size": 8,
    "vocab_size": 9,
    "max_position_embeddings": 99,
}
GPT2_NUMBERS = {"model_type": "gpt2", "n_embd": 32, "n_head": 4, "n_layer": 1, "vocab_size": 9, "n_positions": 99}
NUMBERS: dict[str, dict[str, object]] = {"gpt2": GPT2_NUMBERS, "llama": LLAMA_NUMBERS}


def logits(folder: Path) -> Tensor:
    return read(load(folder, device=CPU, dtype=FLOAT)[0], IDS).logits(range(len(IDS)))


def logits_of_transformers(folder: Path) -> Tensor:
    oracle = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    with torch.inference_mode():
        logits_TV: Tensor = oracle(torch.tensor([IDS])).logits[0]
    return logits_TV


def rewrite(folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Path:
    tensors = {name: tensor.clone() for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(change(tensors), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def remove_field(folder: Path, field: str) -> None:
    """Remove a field from config.json."""
    config = json.loads((folder / "config.json").read_text())
    config.pop(field, None)
    (folder / "config.json").write_text(json.dumps(config))


EMBEDDING = {"gpt2": "transformer.wte.weight", "llama": "model.embed_tokens.weight"}


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("tied", [True, None, False], ids=["tied", "not set", "untied"])
@pytest.mark.parametrize("trained", [True, False], ids=["trained", "a copy"])
def test_an_unembedding_in_the_file_is_used_as_transformers_uses_it(
    request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture, family: str, tied: bool | None, trained: bool
) -> None:
    folder: Path = request.getfixturevalue(family)
    remove_field(folder, "tie_word_embeddings")
    if tied is not None:
        edit_json(folder / "config.json", tie_word_embeddings=tied)
    embedding = load_file(folder / "model.safetensors")[EMBEDDING[family]]
    unembedding = torch.randn(embedding.shape, generator=torch.Generator().manual_seed(1)) if trained else embedding
    rewrite(folder, lambda tensors: tensors | {"lm_head.weight": unembedding.clone()})
    with caplog.at_level(logging.WARNING, "lookback"):
        network, _ = load(folder, device=CPU, dtype=FLOAT)
    is_tied = tied if tied is not None else family == "gpt2"
    assert network.config.tied == (is_tied and not trained)
    assert ("lm_head.weight differs" in caplog.text) == (is_tied and trained)
    torch.testing.assert_close(logits(folder), logits_of_transformers(folder), atol=1e-4, rtol=1e-4)


def test_a_tied_model_with_only_an_unembedding_uses_it_as_embedding(llama: Path, tiny_llama: Path) -> None:
    rewrite(llama, lambda t: {n.replace("model.embed_tokens", "lm_head"): tensor for n, tensor in t.items()})
    assert torch.equal(logits(llama), logits(tiny_llama))


def test_an_untied_model_without_its_unembedding_is_refused(gpt2: Path) -> None:
    edit_json(gpt2 / "config.json", tie_word_embeddings=False)
    with pytest.raises(WeightsError, match=r"lacks 1 tensors that config\.json promises: lm_head\.weight"):
        load(gpt2, device=CPU, dtype=FLOAT)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_not_finite_is_refused_in_any_tensor_by_its_name(gpt2: Path, wrong: float) -> None:
    for name in load_file(gpt2 / "model.safetensors"):
        right = (gpt2 / "model.safetensors").read_bytes()

        def spoil(tensors: dict[str, Tensor], name: str = name) -> dict[str, Tensor]:
            tensors[name].view(-1)[-1] = wrong
            return tensors

        rewrite(gpt2, spoil)
        with pytest.raises(WeightsError, match=rf"{name} holds 1 (NaN|infinite) among its [\d,]+ numbers"):
            load(gpt2, device=CPU, dtype=FLOAT)
        (gpt2 / "model.safetensors").write_bytes(right)


def test_a_number_too_large_for_the_dtype_of_the_computation_is_refused(llama: Path) -> None:
    rewrite(llama, lambda t: t | {"model.norm.weight": torch.full((32,), 1e300, dtype=torch.float64)})
    with pytest.raises(WeightsError, match=r"model\.norm\.weight holds numbers too large for float32 \(1e\+300\)"):
        load(llama, device=CPU, dtype=FLOAT)


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda f: (f / "model.safetensors").write_text(POINTER), r"is a Git LFS pointer of 70 bytes.* `git lfs pull`"),
        (lambda f: (f / "vocab.json").write_text(POINTER), r"vocab\.json is a Git LFS pointer"),
        (lambda f: (f / "config.json").write_text(POINTER), r"config\.json is a Git LFS pointer"),
        (lambda f: (f / "model.safetensors").write_bytes(b""), r"model\.safetensors is empty"),
        (lambda f: (f / "merges.txt").write_bytes(b""), r"merges\.txt is empty"),
        (
            lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:-1]),
            r"model\.safetensors cannot be read as safetensors: it is truncated.*Download or save the file again",
        ),
        (
            lambda f: rewrite(f, lambda t: t | {"model.norm.weight": torch.ones(32, dtype=torch.int8)}),
            r"model\.norm\.weight holds numbers of the type int8, so the model is quantized.*dequantize the model",
        ),
        (lambda f: edit_json(f / "config.json", quantization_config={"bits": 4}), 'quantization_config is {"bits": 4}'),
        (lambda f: (f / "config.json").rename(f / "adapter_config.json"), "without its base model.*merge_and_unload"),
        (
            lambda f: (f / "model.safetensors").rename(f / "adapter_model.safetensors"),
            "without its base model.*merge_and_unload",
        ),
        (lambda f: (f / "model.safetensors.index.json").write_text("{}"), None),
        (
            lambda f: (
                (f / "model.safetensors").unlink(),
                (f / "model.safetensors.index.json").write_text('{"metadata": {}}'),
            ),
            "has no weight_map",
        ),
        (
            lambda f: rewrite(f, lambda t: t | {"embed_tokens.weight": torch.ones(N_VOCAB, 32)}),
            r"holds both model\.embed_tokens\.weight and embed_tokens\.weight",
        ),
        (
            lambda f: rewrite(f, lambda t: {f"_orig_mod.{name}": tensor for name, tensor in t.items()}),
            r"no place for .*_orig_mod\.model\.embed_tokens\.weight",
        ),
        (
            lambda f: rewrite(f, lambda t: t | {"model.layers.0.self_attn.q_proj.bias": torch.ones(32)}),
            r"config\.json has no use for: model\.layers\.0\.self_attn\.q_proj\.bias",
        ),
        (lambda f: edit_json(f / "config.json", num_key_value_heads=3), "num_key_value_heads 3: 4 query heads cannot"),
        (
            lambda f: edit_json(f / "config.json", hidden_size=30, head_dim=None),
            "hidden_size is 30, which the 4 heads of num_att",
        ),
    ],
)
def test_a_wrong_file_is_refused_with_what_it_is(
    llama: Path, spoil: Callable[[Path], object], words: str | None
) -> None:
    if words is None:  # `transformers` also prefers the single file to an index
        spoil(llama)
        load(llama, device=CPU, dtype=FLOAT)
        return
    spoil(llama)
    with pytest.raises(WeightsError, match=words):
        load(llama, device=CPU, dtype=FLOAT)


def test_projections_in_the_order_of_nn_linear_are_refused_by_name_and_shape(gpt2: Path) -> None:
    """nanoGPT stores (out, in), the hub's GPT-2 (in, out)."""
    projections = ("c_attn.weight", "c_proj.weight", "c_fc.weight")
    rewrite(gpt2, lambda t: {n: x.T.contiguous() if n.endswith(projections) else x for n, x in t.items()})
    with pytest.raises(
        WeightsError, match=r"h\.\d\.(attn\.c_attn|mlp\.c_\w+)\.weight has the shape .*config\.json says"
    ):
        load(gpt2, device=CPU, dtype=FLOAT)


def test_a_gpt2_without_biases_is_refused_with_what_it_lacks(gpt2: Path) -> None:
    rewrite(gpt2, lambda t: {name: x for name, x in t.items() if not name.endswith(".bias")})
    with pytest.raises(WeightsError, match=r"lacks 19 tensors .*: transformer\.h\.0\.attn\.c_attn\.bias"):
        load(gpt2, device=CPU, dtype=FLOAT)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_an_unknown_field_is_refused_by_its_name(family: str) -> None:
    """Ignored, logits_scaling, attention_multiplier, qk_norm and others would silently change the computation."""
    for field in ("attention_multiplier", "logits_scaling", "no_rope_layers", "attn_logit_softcapping"):
        with pytest.raises(ConfigError, match=rf"its field {field} \(2\.0\) is not known"):
            read_config({**NUMBERS[family], field: 2.0})


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_field_that_changes_the_computation_must_have_a_supported_value(family: str) -> None:
    for field, values in {**FIXED_IN_BOTH, **FIXED[family]}.items():
        for value in values:
            assert read_config({**NUMBERS[family], field: value}) == read_config(NUMBERS[family])
        with pytest.raises(ConfigError, match=rf"its {field} is 7; Lookback computes"):
            read_config({**NUMBERS[family], field: 7})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sliding_window": 8}, "its sliding_window is 8; Lookback computes null"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types name sliding_attention"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 2.0, "beta_fast": 3}}, r"rope_scaling\.beta_fast is 3"),
        ({"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}, "partial_rotary_factor is 0.5"),
        ({"rope_scaling": {"type": "linear"}}, r"it has no rope_scaling\.factor"),
        (
            {"rope_scaling": {"type": "linear", "factor": 0}},
            r"rope_scaling\.factor is 0; it must be a number, positive",
        ),
        ({"rope_parameters": {"rope_theta": 5.0}, "rope_scaling": {"type": "linear", "factor": 2}}, "differ"),
        ({"rope_theta": "10000"}, 'its rope_theta is "10000"; it must be a number'),
        ({"rms_norm_eps": -1e-5}, "its rms_norm_eps is -1e-05"),
        ({"attention_bias": "yes"}, 'its attention_bias is "yes"; it must be true or false'),
        ({"head_dim": 7}, "head_dim .* is 7; rotary positions rotate pairs"),
        ({"num_hidden_layers": 2.5}, r"its num_hidden_layers is 2\.5; it must be a whole number"),
        ({"num_hidden_layers": True}, "its num_hidden_layers is true; it must be a whole number"),
    ],
)
def test_a_field_is_refused_by_its_name_in_the_file(change: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read_config(LLAMA_NUMBERS | change)


# From the hub, with the fields that differ between families and years.
SMOLLM2 = {
    "architectures": ["LlamaForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 1,
    "eos_token_id": 2, "hidden_act": "silu", "initializer_range": 0.041, "is_llama_config": True, "pad_token_id": 2,
    "rms_norm_eps": 1e-5, "rope_interleaved": False, "rope_scaling": None, "rope_theta": 100000, "use_cache": True,
    "tie_word_embeddings": True, "torch_dtype": "bfloat16", "transformers.js_config": {"dtype": "q4"},
    "transformers_version": "4.42.3", "pretraining_tp": 1, "num_key_value_heads": 2, "mlp_bias": False, "head_dim": 8,
}  # fmt: skip
GPT2_MEDIUM = {
    "activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"], "attn_pdrop": 0.1, "bos_token_id": 50256,
    "embd_pdrop": 0.1, "eos_token_id": 50256, "initializer_range": 0.02, "layer_norm_epsilon": 1e-5, "n_ctx": 1024,
    "n_special": 0, "predict_special_tokens": True, "resid_pdrop": 0.1, "summary_activation": None,
    "summary_first_dropout": 0.1, "summary_proj_to_labels": True, "summary_type": "cls_index", "summary_use_proj": True,
    "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
}  # fmt: skip


@pytest.mark.parametrize(("numbers", "fields"), [(LLAMA_NUMBERS, SMOLLM2), (GPT2_NUMBERS, GPT2_MEDIUM)])
def test_configs_as_the_hub_has_them_are_read(numbers: dict[str, object], fields: dict[str, object]) -> None:
    assert read_config(numbers | fields).n_heads == 4


def test_every_harmless_field_is_harmless_to_transformers_too(gpt2: Path) -> None:
    """The values here would change the logits if the fields had any effect."""
    config = json.loads((gpt2 / "config.json").read_text())
    before = logits_of_transformers(gpt2)
    change: dict[str, object] = {
        "attn_pdrop": 0.9,
        "embd_pdrop": 0.9,
        "resid_pdrop": 0.9,
        "reorder_and_upcast_attn": True,
    }
    change |= {"n_ctx": 3, "summary_use_proj": False, "initializer_range": 0.5, "is_decoder": True, "temperature": 9.0}
    assert change.keys() <= HARMLESS
    (gpt2 / "config.json").write_text(json.dumps(config | change))
    torch.testing.assert_close(logits_of_transformers(gpt2), before)
    torch.testing.assert_close(logits(gpt2), before, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "change",
    [
        {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 500.0}},
        {"attention_bias": True, "mlp_bias": True},
        {"head_dim": 16},
        {"num_key_value_heads": 4, "rms_norm_eps": 0.1},
        {"tie_word_embeddings": False},
    ],
    ids=lambda change: " ".join(change),
)
def test_a_supported_field_gives_the_logits_of_transformers(tmp_path: Path, change: dict[str, object]) -> None:
    folder = write_llama(tmp_path / "llama", **change)
    torch.testing.assert_close(logits(folder), logits_of_transformers(folder), atol=1e-4, rtol=1e-4)


def test_gpt2_with_another_mlp_width_gives_the_logits_of_transformers(tmp_path: Path) -> None:
    folder = write_gpt2(tmp_path / "gpt2", n_inner=40, layer_norm_epsilon=0.1)
    torch.testing.assert_close(logits(folder), logits_of_transformers(folder), atol=1e-4, rtol=1e-4)


def test_the_loader_reads_exactly_what_the_hub_source_fetches() -> None:
    assert set(HubSource.FILES) == {"config.json", "model.safetensors", "vocab.json", "merges.txt"}


@pytest.mark.parametrize(
    ("write", "field"), [(write_gpt2, "n_layer"), (write_llama, "num_hidden_layers")], ids=["gpt2", "llama"]
)
def test_a_billion_layers_are_refused_before_a_network_is_built(
    tmp_path: Path, write: Callable[[Path], Path], field: str
) -> None:
    folder = write(tmp_path / "tiny")
    edit_json(folder / "config.json", **{field: 1_000_000_000})
    with pytest.raises(WeightsError, match=f"{field} 1,000,000,000; the file has tensors of 3 layers"):
        load(folder, device=CPU, dtype=FLOAT)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("merges.txt", b"a b\n\xff", "merges.txt is not text in UTF-8"),
        ("vocab.json", b"[" * 100_000, "vocab.json is nested too deeply"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    folder = write_gpt2(tmp_path / "tiny")
    (folder / name).write_bytes(content)
    with pytest.raises(WeightsError, match=words):
        load(folder, device=CPU, dtype=FLOAT)
