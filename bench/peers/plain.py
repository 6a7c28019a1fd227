"""`transformers`, as most notebooks use it: nothing captured, all attentions, all attentions as JSON."""

from collections.abc import Sequence
from pathlib import Path

import orjson
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from bench.peers import Output, Work


def floor(folder: Path) -> Work:
    """Fused attention, nothing captured: the least that reading the text costs."""
    model = _load(folder, "sdpa")

    def work(texts: Sequence[Sequence[int]], _: int) -> Output:
        (ids,) = texts
        return Output(0, float(model(torch.tensor([ids])).logits[0, -1].max()))

    return work


def attentions(folder: Path) -> Work:
    """Eager attention with `output_attentions=True`: the reference of every ratio."""
    model = _load(folder, "eager")

    def work(texts: Sequence[Sequence[int]], _: int) -> Output:
        (ids,) = texts
        return Output(0, float(model(torch.tensor([ids]), output_attentions=True).logits[0, -1].max()))

    return work


def json(folder: Path) -> Work:
    """`attentions`, then the attentions of all layers and the logits after the last token as JSON."""
    model = _load(folder, "eager")

    def work(texts: Sequence[Sequence[int]], _: int) -> Output:
        (ids,) = texts
        output = model(torch.tensor([ids]), output_attentions=True)
        body = {"attentions": [layer[0].numpy() for layer in output.attentions], "logits": output.logits[0, -1].numpy()}
        return Output(len(orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)), float(output.logits[0, -1].max()))

    return work


def _load(folder: Path, attention: str) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(folder, attn_implementation=attention, dtype=torch.float32).eval()
