"""A run of the network with some heads of a layer switched off, or without its output projection."""

# shapes: B texts, T tokens, M features of a token, X features of all heads

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from app.lessons.lesson import Reading


@dataclass(frozen=True)
class AttentionRun:
    """Input and output of a layer's attention in one run, and the vectors after the last layer; (T, M) each."""

    input_TM: Tensor
    output_TM: Tensor
    hidden_TM: Tensor


@torch.inference_mode()
def run_with_heads_off(
    reading: Reading, layer: int, heads_off: Sequence[int] = (), *, skip_projection: bool = False
) -> AttentionRun:
    """A run in which the context vectors of some heads of a layer are 0.

    With `skip_projection`, the layer adds its context vectors as they are, without the output projection.
    """
    network, d_head = reading.model.network, reading.config.d_head
    layer_attention = reading.block(layer).attention
    inputs, outputs = list[Tensor](), list[Tensor]()

    def switch_off(_module: nn.Module, joined: tuple[Tensor]) -> tuple[Tensor]:
        joined_BTX = joined[0].clone()
        for head in heads_off:
            joined_BTX[..., head * d_head : (head + 1) * d_head] = 0
        return (joined_BTX,)

    def project(_module: nn.Module, joined: tuple[Tensor], projected_BTM: Tensor) -> Tensor:
        return joined[0] if skip_projection else projected_BTM

    with (
        layer_attention.register_forward_pre_hook(lambda _, args: inputs.append(args[0][0])),
        layer_attention.output.register_forward_pre_hook(switch_off),
        layer_attention.output.register_forward_hook(project),
        layer_attention.register_forward_hook(lambda _, __, output: outputs.append(output[0])),
    ):
        hidden_TM = network.hidden(reading.ids_BT)[0]
    return AttentionRun(inputs[0], outputs[0], hidden_TM)
