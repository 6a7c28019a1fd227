"""`transformers`, as most notebooks use it: nothing captured, all attentions, all attentions as JSON."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import torch
from transformers import AutoModelForCausalLM

from bench.peers import Done, Work


def floor(folder: Path) -> Work:
    """Fused attention, nothing captured: what reading the text costs at the least."""
    model = _load(folder, "sdpa")

    def work(texts: Sequence[Sequence[int]], _: int) -> Done:
        (ids,) = texts
        return Done(0, float(model(torch.tensor([ids])).logits[0, -1].max()))

    return work


def attentions(folder: Path) -> Work:
    """Eager attention with `output_attentions=True`: every ratio is to this."""
    model = _load(folder, "eager")

    def work(texts: Sequence[Sequence[int]], _: int) -> Done:
        (ids,) = texts
        return Done(0, float(model(torch.tensor([ids]), output_attentions=True).logits[0, -1].max()))

    return work


def json(folder: Path) -> Work:
    """The same, then the attentions of all layers and the logits of the last token as JSON."""
    model = _load(folder, "eager")

    def work(texts: Sequence[Sequence[int]], _: int) -> Done:
        (ids,) = texts
        output = model(torch.tensor([ids]), output_attentions=True)
        said = {"attentions": [layer[0].numpy() for layer in output.attentions], "logits": output.logits[0, -1].numpy()}
        return Done(len(orjson.dumps(said, option=orjson.OPT_SERIALIZE_NUMPY)), float(output.logits[0, -1].max()))

    return work


def _load(folder: Path, attention: str) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, attn_implementation=attention, dtype=torch.float32).eval()
