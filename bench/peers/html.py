"""BertViz: `head_view` of all layers and heads as HTML, with the forward pass that it needs."""

from collections.abc import Sequence
from pathlib import Path

import bertviz
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from bench.peers import Done, Work


def head_view(folder: Path) -> Work:
    """A notebook's cell: eager attention with `output_attentions=True`, then the page."""
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)

    def work(texts: Sequence[Sequence[int]], _: int) -> Done:
        (ids,) = texts
        output = model(torch.tensor([ids]), output_attentions=True)
        tokens = tokenizer.convert_ids_to_tokens(ids)
        page = bertviz.head_view(attention=output.attentions, tokens=tokens, html_action="return")
        return Done(len(page.data.encode()), float(output.logits[0, -1].max()))

    return work
