"""No frame is over 4 MB, for a text of the full context and a model with as many layers and heads as SmolLM2."""

import pytest
import torch

from app.live import delta, frame
from app.live.delta import ClientState
from app.models import LoadedModel, ModelInput
from app.schemas import PageRequest
from model.config import Config
from model.edits import NO_EDITS
from model.gpt import GPT
from model.reading import read_batch
from model.tokenizer import Token, Tokens
from model.trace import Trace

N = 2_048
MAX_BYTES = 4_000_000


@pytest.fixture(scope="module")
def model(tiny_model: LoadedModel) -> LoadedModel:
    torch.manual_seed(0)
    network = GPT(
        Config(
            family="llama", n_layers=30, n_heads=9, n_kv_heads=3, d_model=18, d_head=2, d_mlp=8, n_vocab=400,
            n_context=N, norm="rmsnorm", norm_eps=1e-5, positions="rotary", mlp="swiglu", tied=False,
            attention_bias=False, mlp_bias=False,
        )
    )  # fmt: skip
    torch.nn.init.normal_(network.embed.weight)
    return LoadedModel("wide", network.eval(), tiny_model.tokenizer, N)


def text(n: int) -> Tokens:
    return Tokens(tuple(Token(i, i * i % 400, b" something", 10 * i, 10 * i + 10) for i in range(n)), ())


def sizes(model: LoadedModel, trace: Trace, client: ClientState) -> list[int]:
    given = ModelInput(model, text(trace.n_tokens), NO_EDITS)
    frames = delta.frames(trace, given, PageRequest(text="x"), client)
    return [len(frame.encode(header, arrays)) for header, arrays in frames]


def test_no_frame_is_over_4_mb_and_the_frame_of_an_appended_token_is_small(model: LoadedModel) -> None:
    before = read_batch(model.network, [(Trace(model.network, ()), text(N - 1).ids)])[0]
    whole = read_batch(model.network, [(before, text(N).ids[-1:])])[0]
    client = ClientState()
    first = sizes(model, before, client)
    assert len(first) > 10
    assert max(first) < MAX_BYTES
    assert sum(sizes(model, whole, client)) < 100_000
    at_once = delta.merge_frames(
        list(delta.frames(whole, ModelInput(model, text(N), NO_EDITS), PageRequest(text="x"), ClientState()))
    )
    assert len(frame.encode(*at_once)) < MAX_BYTES
