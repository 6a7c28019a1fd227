"""Checkpoint folders: what is read, and what is refused with which message."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as OracleTokenizer
from torch import Tensor

from model.config import Config, ConfigError
from model.gpt import GPT
from model.reading import read
from model.weights.config_json import read_config
from model.weights.folder import load
from model.weights.names import WeightsError
from model.weights.tokenizer_files import load_tokenizer
from tests.checkpoints import CORPUS, edit_json
from tests.conftest import CPU, FLOAT
from tests.texts import varied

IDS = (5, 9, 200, 31)


def logits(folder: Path) -> Tensor:
    return read(load(folder, device=CPU, dtype=FLOAT)[0], IDS).logits(range(len(IDS)))


def rewrite(folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    tensors = {name: tensor.clone() for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(change(tensors), folder / "model.safetensors")


def test_the_hubs_gpt2_is_read_without_prefix_and_with_its_masks(gpt2: Path, tiny_gpt2: Path) -> None:
    """The published file has names like h.0.…, and a causal mask for every layer."""

    def as_published(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        bare = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
        return bare | {f"h.{layer}.attn.bias": torch.ones(1, 1, 64, 64).tril() for layer in range(3)}

    rewrite(gpt2, as_published)
    assert torch.equal(logits(gpt2), logits(tiny_gpt2))


def test_weights_in_shards_are_read(llama: Path, tiny_llama: Path) -> None:
    tensors = load_file(llama / "model.safetensors")
    names = sorted(tensors)
    shards = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, part in shards.items():
        save_file({name: tensors[name].clone() for name in part}, llama / file)
    weight_map = {name: file for file, part in shards.items() for name in part}
    (llama / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (llama / "model.safetensors").unlink()
    assert torch.equal(logits(llama), logits(tiny_llama))


def test_half_precision_files_are_read(llama: Path, tiny_llama: Path) -> None:
    rewrite(llama, lambda tensors: {name: tensor.bfloat16() for name, tensor in tensors.items()})
    assert load(llama, device=CPU, dtype=FLOAT)[0].dtype == torch.float32
    assert (logits(llama) - logits(tiny_llama)).abs().max() < 1


def test_tied_weights_are_one_tensor(tiny_llama: Path) -> None:
    network = load(tiny_llama, device=CPU, dtype=FLOAT)[0]
    assert network.unembed.weight.data_ptr() == network.embed.weight.data_ptr()
    assert network.n_parameters == sum(t.numel() for t in load_file(tiny_llama / "model.safetensors").values())


def test_a_loaded_model_is_in_eval_mode_and_needs_no_gradient(tiny_gpt2: Path) -> None:
    network = load(tiny_gpt2, device=CPU, dtype=FLOAT)[0]
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_gpt2_small_has_its_published_number_of_parameters() -> None:
    shape = {"n_layer": 12, "n_head": 12, "n_embd": 768, "n_positions": 1024, "vocab_size": 50257}
    with torch.device("meta"):
        assert GPT(read_config({"model_type": "gpt2", **shape})).n_parameters == 124_439_808
        assert (
            GPT(read_config({"model_type": "gpt2", **shape, "tie_word_embeddings": False})).n_parameters == 163_037_184
        )


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (
            lambda f: rewrite(f, lambda t: t | {"model.layers.0.adapter.weight": torch.ones(1)}),
            "layers.*.adapter.weight",
        ),
        (
            lambda f: rewrite(f, lambda t: {n: x for n, x in t.items() if "norm" not in n}),
            r"lacks 7 tensors .*: model\.layers\.0\.input_layernorm\.weight, ",
        ),
        (lambda f: rewrite(f, lambda t: t | {"model.norm.weight": torch.ones(5)}), r"\(5,\); config.json says \(32,\)"),
        (
            lambda f: rewrite(f, lambda t: t | {"model.layers.9.mlp.up_proj.weight": torch.ones(1)}),
            r"no use for: model\.layers\.9\.mlp\.up_proj\.weight",
        ),
        (lambda f: (f / "model.safetensors").write_bytes(b"\x08"), "cannot be read"),
        (lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), "pytorch_model.bin is a pickle"),
        (lambda f: (f / "config.json").unlink(), "has no config.json"),
        (lambda f: (f / "config.json").write_text("{"), "is not JSON"),
        (lambda f: (f / "config.json").write_text("[]"), "holds no JSON object"),
        (lambda f: edit_json(f / "config.json", model_type="bert"), "'bert'; Lookback reads gpt2 and llama"),
        (lambda f: edit_json(f / "config.json", hidden_act="gelu"), 'hidden_act is "gelu"'),
        (
            lambda f: edit_json(f / "config.json", rope_parameters={"rope_type": "yarn"}),
            r"rope_parameters\.rope_type is 'yarn'",
        ),
        (lambda f: edit_json(f / "config.json", num_key_value_heads=3), "4 query heads cannot share 3 key heads"),
        (lambda f: edit_json(f / "config.json", num_hidden_layers="three"), "does not fit"),
        (lambda f: (f / "config.json").write_text('{"model_type": "llama"}'), "it has no num_hidden_layers"),
        (lambda f: (f / "merges.txt").unlink(), "needs tokenizer.json, or vocab.json and merges.txt"),
        (lambda f: (f / "merges.txt").write_text("x yy\n"), "makes a token that has no id"),
        (
            lambda f: (f / "tokenizer.json").write_text('{"model": {"type": "Unigram"}}'),
            "model.type is 'Unigram'; Lookback reads byte-level BPE",
        ),
        (lambda f: shutil.rmtree(f), "There is no folder"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_the_reason(
    llama: Path, spoil: Callable[[Path], None], words: str
) -> None:
    spoil(llama)
    with pytest.raises(WeightsError, match=words):
        load(llama, device=CPU, dtype=FLOAT)


def test_a_shard_outside_the_folder_is_refused(llama: Path) -> None:
    (llama / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../other.safetensors"}}))
    (llama / "model.safetensors").rename(llama.parent / "other.safetensors")
    with pytest.raises(WeightsError, match=r"has no other\.safetensors"):
        load(llama, device=CPU, dtype=FLOAT)


def test_an_impossible_shape_is_refused() -> None:
    numbers = {"n_layer": 1, "n_head": 3, "n_embd": 32, "n_positions": 4, "vocab_size": 5}
    with pytest.raises(ConfigError, match="n_embd is 32, which the 3 heads of n_head cannot share"):
        read_config({"model_type": "gpt2", **numbers})
    with pytest.raises(ConfigError, match="n_layer is 0; it must be a whole number, at least 1"):
        read_config({"model_type": "gpt2", **numbers, "n_head": 4, "n_layer": 0})


def test_the_old_fields_of_rotary_scaling_give_the_same_config() -> None:
    numbers = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 8}
    raw = {"model_type": "llama", **numbers, "vocab_size": 9, "max_position_embeddings": 99}
    new = read_config(raw | {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 5e5}})
    assert isinstance(new, Config)
    assert read_config(raw | {"rope_scaling": {"type": "linear", "factor": 2.0}, "rope_theta": 5e5}) == new


LLAMA_3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
LLAMA_3 += r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


@pytest.mark.parametrize(
    "pre_tokenizer",
    [
        pre_tokenizers.ByteLevel(add_prefix_space=False),
        pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        ),
        pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(pattern=Regex(LLAMA_3), behavior="isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        ),
    ],
    ids=["gpt2", "digits", "llama3"],
)
def test_a_tokenizer_json_gives_the_ids_that_tokenizers_gives(
    tmp_path: Path, pre_tokenizer: pre_tokenizers.PreTokenizer
) -> None:
    oracle = OracleTokenizer(models.BPE())
    oracle.pre_tokenizer, oracle.decoder = pre_tokenizer, decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=alphabet, special_tokens=["<s>"], show_progress=False
    )
    oracle.train_from_iterator(CORPUS, trainer)
    oracle.save(str(tmp_path / "tokenizer.json"))
    tokenizer = load_tokenizer(tmp_path)
    texts = [text for text in varied() if "<s>" not in text]
    assert [text for text in texts if list(tokenizer.encode(text).ids) != oracle.encode(text).ids] == []
    assert tokenizer.special == {"<s>": 0}
