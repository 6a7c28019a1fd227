"""The six vectors of the book's example, and the token vectors of the model in the same shape."""

# shapes: T tokens, M features of a token

from typing import Literal

import torch
from torch import Tensor

from app.experiments.base import Work

VectorSource = Literal["model", "book"]

BOOK_NAMES = ["0 Your", "1 journey", "2 starts", "3 with", "4 one", "5 step"]
BOOK = torch.tensor(  # Raschka, chapter 3.3
    [
        [0.43, 0.15, 0.89],
        [0.55, 0.87, 0.66],
        [0.57, 0.85, 0.64],
        [0.22, 0.58, 0.33],
        [0.77, 0.25, 0.10],
        [0.05, 0.80, 0.55],
    ]
)


def vectors(work: Work, source: VectorSource) -> tuple[Tensor, list[str]]:
    """The input of the first layer, (T, M): token vectors with their positions added; and the labels of its rows.

    The work must observe the embedding.
    """
    if source == "book":
        return BOOK, BOOK_NAMES
    return work.trace.observed("embedding").float().cpu(), work.token_labels
