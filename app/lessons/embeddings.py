"""What the lessons about embeddings share: two tokens to compare, and the tables that their vectors come from."""

# shapes: T tokens, V tokens of the vocabulary, C positions of the context, N pairs of tokens, X chosen tokens,
#         M features of a token

from collections.abc import Callable, Iterator, Mapping
from typing import Annotated

from torch import Tensor
from torch.nn import functional as F

from app.engine import Reading
from app.experiments.base import Work
from app.experiments.checks import Check, at_most, does_not_apply
from app.experiments.controls import Controls, TokenOf
from app.experiments.panels import Facts, facts
from model.positions import LearnedPositions

N_PAIRS = 100  # of equal tokens that are compared in a check


class PairControls(Controls):
    """Two tokens of the text."""

    token: Annotated[int | None, TokenOf("Token", "its vectors are shown")] = 0
    other_token: Annotated[
        int | None,
        TokenOf("Compare with", "at first the next occurrence of the same token", when_none="the same token"),
    ] = None


class PairWork(Work):
    """Two tokens of the text, and what equal tokens have in common."""

    controls: PairControls

    def check_readings(self) -> Iterator[Mapping[str, Reading]]:
        """What the first layer gets."""
        yield {"observed": self.under(sites=frozenset({"embedding"}))}

    @property
    def observed_TM(self) -> Tensor:
        """The input of the first layer as it was observed, in the model's dtype; only checks have it."""
        return self.traces["observed"].observed("embedding")

    @property
    def token(self) -> int:
        """The position of the first token."""
        return self.position(self.controls.token)

    @property
    def other_token(self) -> int | None:
        """The position of the second token; if none is requested, the next one with the same id, or None."""
        requested = self.controls.other_token
        return self.next_same_token(self.token) if requested is None else self.position(requested)

    def only_once(self) -> Facts:
        """That there is no second token."""
        return facts(
            self.token_labels[self.token], {"the same token again": "nowhere in this text: choose another one"}
        )

    def equal_token_check(self, maximum: float, name: str, measure: Callable[[Tensor, Tensor], Tensor]) -> Check:
        """The check that a measure of two positions, (N,) each, is not above a maximum if their tokens are equal."""
        is_equal_TT = self.ids_T[:, None] == self.ids_T
        first_N, second_N = is_equal_TT.triu(1).nonzero()[:N_PAIRS].cpu().unbind(1)
        if not len(first_N):
            return does_not_apply(name, "no two tokens of this text are the same")
        return at_most(maximum, measure(first_N, second_N).max().item(), name)


def one_hot_product(table_VM: Tensor, ids_X: Tensor) -> Tensor:
    """One-hot vectors times the table, (X, M): each multiplies every row by 0, except one.

    >>> one_hot_product(Tensor([[1.0, 2.0], [3.0, 4.0]]), Tensor([1]).long()).tolist()
    [[3.0, 4.0]]
    """
    return F.one_hot(ids_X, len(table_VM)).float() @ table_VM


def position_table(work: Work) -> Tensor:
    """P, (C, M), float32: one row per position; if the work is broken, each row is that of the position before."""
    positions = work.network.positions
    assert isinstance(positions, LearnedPositions)
    table_CM = positions.table.weight.detach().float().cpu()
    return table_CM.roll(1, 0) if work.controls.broken else table_CM
