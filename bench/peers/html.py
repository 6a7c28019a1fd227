"""BertViz: `head_view` of all layers and heads as HTML, including the forward pass."""

from collections.abc import Sequence
from pathlib import Path

import bertviz
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from bench.peers import Output, Work


def head_view(folder: Path) -> Work:
    """The usual notebook cell: eager attention with `output_attentions=True`, then the HTML."""
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)

    def work(texts: Sequence[Sequence[int]], _: int) -> Output:
        (ids,) = texts
        output = model(torch.tensor([ids]), output_attentions=True)
        tokens = tokenizer.convert_ids_to_tokens(ids)
        page = bertviz.head_view(attention=output.attentions, tokens=tokens, html_action="return")
        return Output(len(page.data.encode()), float(output.logits[0, -1].max()))

    return work
