"""The parameters with which training starts."""

# shapes: T positions, V tokens of the vocabulary, M features of a token, F wavelengths

import math

import torch
from torch import Tensor, nn

from model.gpt import GPT
from model.training.corpus import N_EASY_VOCAB
from model.training.recipe import Recipe

INIT_SCALE = 0.65  # times the standard deviation that keeps variances; heads were seen to form with it


def init_model(recipe: Recipe) -> GPT:
    """The network with its initial parameters, which depend on the seed.

    Matrices are normal, with a standard deviation that fits the number of features that are added up (LeCun et al.
    1998, 4.6); those that write to the residual stream are smaller, the more layers there are (Radford et al. 2019,
    2.3). GPT-2's own 0.02 suits wide networks: at a width of 160 it makes attention so even that heads hardly learn.
    Positions are not random, but sinusoidal.
    """
    generator = torch.Generator().manual_seed(recipe.seed)
    model = GPT(recipe.config)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        elif parameter.dim() == 2:
            is_output = name.endswith(("attention.output.weight", "mlp.down.weight"))
            scale = (2 * recipe.n_layers) ** -0.5 if is_output else 1.0
            nn.init.normal_(parameter, std=INIT_SCALE * scale * parameter.shape[1] ** -0.5, generator=generator)
    model.state_dict()["positions.table.weight"].copy_(sinusoidal_positions(recipe.n_context, recipe.d_model))
    return model


@torch.no_grad()
def reset_unused_embeddings(model: GPT, recipe: Recipe) -> None:
    """Initialise again the embeddings of the tokens that easy steps never use, around the mean of the others.

    The easy steps have only taught that these tokens never occur, which moved them far away, all in one direction.
    """
    embeddings_VM = model.get_parameter("embed.weight")
    generator = torch.Generator().manual_seed(recipe.seed)
    new_VM = torch.randn(embeddings_VM[N_EASY_VOCAB:].shape, generator=generator)
    new_VM *= INIT_SCALE * recipe.d_model**-0.5
    embeddings_VM[N_EASY_VOCAB:] = embeddings_VM[:N_EASY_VOCAB].mean(0) + new_VM.to(model.device)


def sinusoidal_positions(n_context: int, d_model: int) -> Tensor:
    """Sines and cosines of positions, (T, M), with wavelengths from 3 tokens to a context, as large as embeddings.

    As fixed positions they would do (Vaswani et al. 2017, 3.5), and those of a trained GPT-2 come to look like them.
    From this start, what is learned at one position holds at the next.

    >>> sinusoidal_positions(6, 2)[:, 0].round(decimals=1)  # one wave of 3 tokens
    tensor([ 0.0000,  0.6000, -0.6000,  0.0000,  0.6000, -0.6000])
    """
    half = (d_model + 1) // 2
    length_F = 3 * (max(n_context, 3) / 3) ** (torch.arange(half) / max(1, half - 1))
    angle_TF = 2 * math.pi * torch.arange(n_context)[:, None] / length_F
    return INIT_SCALE * math.sqrt(2 / d_model) * torch.cat((angle_TF.sin(), angle_TF.cos()), dim=1)[:, :d_model]
