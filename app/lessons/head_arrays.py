"""The arrays of a layer's attention step by step: how one projection is split into heads, and how heads are joined."""

# shapes: T queries, S keys, M features of a token, H query heads, D features of a head, X = H·D features of all heads,
#         G key heads

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from app.experiments.base import Work, project_head
from app.experiments.panels import Cube, Facts, facts, matrix, shape_label
from model import attention

AXIS_LIMITS = {"T": 8, "S": 8, "H": 4, "D": 4, "M": 16, "X": 16}  # of each axis, in the picture of an array
N_ARRAY_STEPS = 10


@dataclass(frozen=True)
class ArrayStep:
    """The array after a step: the name of the step, the letters of the array's axes, and its numbers."""

    name: str
    axes: str
    values: Tensor


@dataclass(frozen=True)
class SeparateHeads:
    """The heads of a layer, each computed as a module of its own."""

    q_HTD: Tensor  # before rotary positions
    weight_HTS: Tensor
    context_HTD: Tensor


@torch.inference_mode()
def array_steps(
    work: Work, layer: int, x_TM: Tensor, heads_off: Sequence[int] = (), *, broken: bool = False
) -> list[ArrayStep]:
    """The array after each step from a layer's input to its output, with all heads in one array.

    The context vectors of heads that are off are 0. If broken, the queries are split wrongly.
    """
    config, layer_attention = work.config, work.block(layer).attention
    n, n_heads, d_head = len(x_TM), config.n_heads, config.d_head
    rotate = work.network.positions.rotation(torch.arange(n, device=x_TM.device))
    q_TX = layer_attention.query(x_TM)
    q_THD = q_TX.view(n, d_head, n_heads).transpose(1, 2) if broken else q_TX.view(n, n_heads, d_head)
    q_HTD = q_THD.transpose(0, 1)
    k_HSD, v_HSD = (
        linear(x_TM).view(n, -1, d_head).transpose(0, 1).repeat_interleave(n_heads // config.n_kv_heads, 0)
        for linear in (layer_attention.key, layer_attention.value)
    )
    score_HTS = attention.scores(rotate(q_HTD), rotate(k_HSD))
    weight_HTS = attention.attention_weights(score_HTS, d_head)
    context_HTD = attention.context(weight_HTS, v_HSD)
    context_THD = context_HTD.transpose(0, 1)
    on_H1 = torch.tensor([[head not in heads_off] for head in range(n_heads)], device=x_TM.device)
    joined_TX = (context_THD * on_H1 if heads_off else context_THD).reshape(n, -1)
    return [
        ArrayStep("x, the input", "TM", x_TM),
        ArrayStep("queries of all heads", "TX", q_TX),
        ArrayStep("view", "THD", q_THD),
        ArrayStep("transpose", "HTD", q_HTD),
        ArrayStep("scores", "HTS", score_HTS),
        ArrayStep("weights", "HTS", weight_HTS),
        ArrayStep("context", "HTD", context_HTD),
        ArrayStep("transpose back", "THD", context_THD),
        ArrayStep("joined", "TX", joined_TX),
        ArrayStep("output", "TM", layer_attention.output(joined_TX)),
    ]


@torch.inference_mode()
def separate_heads(work: Work, layer: int, x_TM: Tensor) -> SeparateHeads:
    """The heads of a layer, each computed with its own rows of the projections."""
    config, layer_attention = work.config, work.block(layer).attention
    rotate = work.network.positions.rotation(torch.arange(len(x_TM), device=x_TM.device))

    def project(linear: nn.Linear, head: int) -> Tensor:
        return project_head(linear, x_TM, head, config.d_head)

    queries, weights, contexts = list[Tensor](), list[Tensor](), list[Tensor]()
    for head in range(config.n_heads):
        key_head = config.key_head(head)
        q_TD = project(layer_attention.query, head)
        k_SD, v_SD = project(layer_attention.key, key_head), project(layer_attention.value, key_head)
        weight_TS = attention.attention_weights(attention.scores(rotate(q_TD), rotate(k_SD)), config.d_head)
        queries.append(q_TD)
        weights.append(weight_TS)
        contexts.append(attention.context(weight_TS, v_SD))
    return SeparateHeads(torch.stack(queries), torch.stack(weights), torch.stack(contexts))


def array_corner(step: ArrayStep, work: Work) -> Cube:
    """The first numbers along each axis of an array; of heads side by side, the first features of each."""
    n_heads, d_head = work.config.n_heads, work.config.d_head
    names = {
        "T": work.token_labels,
        "S": work.token_labels,
        "H": [f"head {head}" for head in range(n_heads)],
        "D": [f"feature {feature}" for feature in range(d_head)],
        "M": [f"feature {feature}" for feature in range(work.config.d_model)],
    }
    values, axes = step.values.float().cpu(), step.axes
    if axes == "TX":
        values = values.view(len(values), n_heads, -1)[:, : AXIS_LIMITS["H"], : AXIS_LIMITS["D"]].flatten(1)
        names["X"] = [
            f"head {head} feature {feature}"
            for head in range(AXIS_LIMITS["H"])
            for feature in range(min(AXIS_LIMITS["D"], d_head))
        ]
    for axis, letter in enumerate(axes):
        values = values.narrow(axis, 0, min(AXIS_LIMITS[letter], values.shape[axis]))
    sheets = names[axes[0]][: len(values)] if len(axes) == 3 else ["all"]
    values = values if len(axes) == 3 else values[None]
    return Cube(
        title=f"{step.name.capitalize()}: a corner of {shape_label(step.values.shape)}",
        sheets=sheets,
        rows=[names[axes[-2]][: values.shape[1]] for _ in sheets],
        columns=names[axes[-1]][: values.shape[2]],
        values=[matrix(sheet) for sheet in values],
    )


def array_facts(steps: Sequence[ArrayStep], index: int) -> Facts:
    """How the array is stored after a step, and the shapes of the arrays of all steps."""
    values, before = steps[index].values, steps[max(0, index - 1)].values
    is_same = index > 0 and values.untyped_storage().data_ptr() == before.untyped_storage().data_ptr()
    storage = {
        "strides": ", ".join(map(str, values.stride())),
        "contiguous": "yes" if values.is_contiguous() else "no",
        "place in memory": "the same as before" if is_same else "new",
    }
    shapes = {
        f"{i}{' →' if i == index else ''} {step.name}": shape_label(step.values.shape) for i, step in enumerate(steps)
    }
    return facts(f"Step {index} of {N_ARRAY_STEPS - 1}: {steps[index].name}", {**storage, **shapes})
