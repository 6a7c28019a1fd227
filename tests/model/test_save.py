"""Our loader and `transformers` read what we write; files are written atomically."""

import os
from pathlib import Path

import pytest
import torch
from transformers import GPT2LMHeadModel

from model.weights.config_json import read_config_file
from model.weights.folder import load_model
from model.weights.names import from_checkpoint, to_checkpoint
from model.weights.save import write_atomic, write_config, write_parameters
from tests.checkpoints import write_gpt2, write_llama
from tests.conftest import CPU, FLOAT

IDS = torch.tensor([[5, 9, 200, 9, 31, 0]])


@pytest.mark.parametrize("tied", [True, False])
def test_a_written_model_is_the_same_for_our_loader_and_for_transformers(tmp_path: Path, tied: bool) -> None:
    folder = write_gpt2(tmp_path / "given", tie_word_embeddings=tied)
    model = load_model(folder, read_config_file(folder), device=CPU, dtype=FLOAT)
    written = tmp_path / "written"
    write_config(written, model.config)
    write_parameters(written, model.state_dict(), model.config, FLOAT)
    loaded = load_model(written, read_config_file(written), device=CPU, dtype=FLOAT)
    assert loaded.config == model.config
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in model.state_dict().items())
    oracle = GPT2LMHeadModel.from_pretrained(written, attn_implementation="eager").eval()
    assert torch.allclose(oracle(IDS).logits, loaded(IDS), atol=1e-4)


def test_from_checkpoint_is_the_inverse_of_to_checkpoint_in_both_families(tmp_path: Path) -> None:
    for folder in (write_gpt2(tmp_path / "gpt2"), write_llama(tmp_path / "llama")):
        model = load_model(folder, read_config_file(folder), device=CPU, dtype=FLOAT)
        state = from_checkpoint(to_checkpoint(model.state_dict(), model.config), model.config)
        assert state.keys() == model.state_dict().keys()
        assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())


def test_float16_halves_the_file(tmp_path: Path) -> None:
    folder = write_gpt2(tmp_path / "given")
    model = load_model(folder, read_config_file(folder), device=CPU, dtype=FLOAT)
    sizes = []
    for dtype in (torch.float16, torch.float32):
        write_parameters(tmp_path / str(dtype), model.state_dict(), model.config, dtype)
        sizes.append((tmp_path / str(dtype) / "model.safetensors").stat().st_size)
    assert 0.5 < sizes[0] / sizes[1] < 0.6


def test_only_gpt2s_are_written(tmp_path: Path) -> None:
    folder = write_llama(tmp_path / "llama")
    with pytest.raises(ValueError, match="only GPT-2s are written"):
        write_config(tmp_path, read_config_file(folder))


def test_on_a_full_disk_the_old_content_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")

    def raise_no_space(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", raise_no_space)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(path, b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() == b"old"
