"""Writes tiny random checkpoints with `transformers`, in exactly the layout of the Hugging Face hub."""

import json
import shutil
from pathlib import Path

import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedModel

N_VOCAB = 400
CORPUS = [
    "the fat cat sat on the mat",
    "der dicke Kater saß auf der Matte",
    "猫が座った",
    "12 cats, 345 mats\n\n  end",
] * 9


def write_gpt2(folder: Path, **change: object) -> Path:
    """A GPT-2 with 3 layers, 4 heads and 8 features per head, with vocab.json and merges.txt."""
    shape = {"n_layer": 3, "n_head": 4, "n_embd": 32, "n_positions": 64, "vocab_size": N_VOCAB}
    torch.manual_seed(0)
    network = GPT2LMHeadModel(GPT2Config(**{**shape, "bos_token_id": 0, "eos_token_id": 0, **change}))
    return _write(folder, network)


def write_llama(folder: Path, **change: object) -> Path:
    """A Llama with 3 layers, 4 query heads and 2 key heads; tied unless `change` says otherwise."""
    shape = {
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "hidden_size": 32,
        "intermediate_size": 48,
        "max_position_embeddings": 64,
        "vocab_size": N_VOCAB,
        "tie_word_embeddings": True,
    }
    torch.manual_seed(0)
    network = LlamaForCausalLM(LlamaConfig(**{**shape, "bos_token_id": 0, "eos_token_id": 0, **change}))
    return _write(folder, network)


def write_small_llama(folder: Path, smollm2: Path) -> Path:
    """A Llama with SmolLM2's tokenizer: 12 layers, 9 query heads, 3 key heads, 8 features per head."""
    heads = {"num_hidden_layers": 12, "num_attention_heads": 9, "num_key_value_heads": 3, "hidden_size": 72}
    config = LlamaConfig(
        **heads,
        intermediate_size=96,
        max_position_embeddings=2_048,
        vocab_size=49_152,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
    )
    torch.manual_seed(0)
    _write_network(folder, LlamaForCausalLM(config))
    shutil.copy(smollm2 / "tokenizer.json", folder)
    return folder


def _write_network(folder: Path, network: PreTrainedModel) -> None:
    for parameter in network.parameters():  # norms and biases too; large enough that heads differ
        torch.nn.init.normal_(parameter, mean=parameter.mean().item(), std=0.2)
    network.save_pretrained(folder)


def _write(folder: Path, network: PreTrainedModel) -> Path:
    _write_network(folder, network)
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(CORPUS, vocab_size=N_VOCAB, special_tokens=["<|endoftext|>"], show_progress=False)
    tokenizer.save_model(str(folder))
    return folder


def edit_json(path: Path, **change: object) -> None:
    """Change some entries of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
