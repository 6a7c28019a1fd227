"""Rotary positions: what a rotation preserves, and the frequencies of models with an extended context."""

import pytest
import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from model.config import Config, RotaryScaling
from model.positions import RotaryPositions, rotary_frequencies
from model.weights.config_json import read_config


@pytest.fixture
def rotary(tiny_config: Config) -> RotaryPositions:
    return RotaryPositions(tiny_config)


@pytest.fixture
def tiny_config() -> Config:
    numbers = {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 1, "intermediate_size": 8}
    return read_config({"model_type": "llama", **numbers, "vocab_size": 9, "max_position_embeddings": 99})


def test_position_zero_is_not_rotated(rotary: RotaryPositions) -> None:
    q_BHTD = torch.randn(1, 1, 1, 8)
    assert torch.equal(rotary.rotation(torch.tensor([0]))(q_BHTD), q_BHTD)


def test_a_quarter_rotation_moves_the_first_half_into_the_second(tiny_config: Config) -> None:
    rotary = RotaryPositions(tiny_config)
    rotary.frequencies = [torch.pi / 2] * 4
    rotated = rotary.rotation(torch.tensor([1]))(torch.tensor([[[[1.0, 0, 0, 0, 0, 0, 0, 0]]]]))
    torch.testing.assert_close(rotated.flatten(), torch.tensor([0.0, 0, 0, 0, 1, 0, 0, 0]))


def test_a_score_depends_only_on_the_distance_of_the_two_tokens(rotary: RotaryPositions) -> None:
    q_BHTD, k_BHTD = torch.randn(2, 1, 1, 1, 8, generator=torch.Generator().manual_seed(0))

    def score(query: int, key: int) -> torch.Tensor:
        return (rotary.rotation(torch.tensor([query]))(q_BHTD) * rotary.rotation(torch.tensor([key]))(k_BHTD)).sum()

    torch.testing.assert_close(score(7, 4), score(40, 37))
    assert abs(score(7, 4) - score(7, 5)) > 1e-3


@pytest.mark.parametrize(
    ("scaling", "rope_parameters"),
    [
        (RotaryScaling(kind="linear", factor=4.0), {"rope_type": "linear", "factor": 4.0}),
        (
            RotaryScaling(kind="llama3", factor=32.0, original_context=8192),
            {
                "rope_type": "llama3",
                "factor": 32.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8192,
            },
        ),
    ],
)
def test_scaled_frequencies_are_those_of_transformers(
    scaling: RotaryScaling, rope_parameters: dict[str, object]
) -> None:
    config = LlamaConfig(
        hidden_size=512,
        num_attention_heads=8,
        max_position_embeddings=131_072,
        rope_parameters={"rope_theta": 500_000.0, **rope_parameters},
    )
    expected, _ = ROPE_INIT_FUNCTIONS[str(rope_parameters["rope_type"])](config, torch.device("cpu"))
    torch.testing.assert_close(torch.tensor(rotary_frequencies(64, 500_000.0, scaling)), expected)
