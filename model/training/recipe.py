"""Recipe: the numbers that fix a training run."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from model.config import Config


class TrainingError(ValueError):
    """A run that cannot begin or go on; the message says what to change."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a run is made of. The same recipe over the same texts gives the same parameters on the same machine.

    Raises:
        TrainingError: when a number makes no sense.
        ConfigError: when the numbers make no GPT-2.
    """

    n_layers: int = 4
    n_heads: int = 4
    d_model: int = 192
    n_context: int = 256  # tokens
    n_vocab: int = 4096  # tokens, the one between two texts among them
    dropout: float = 0.1
    late: float = 0.8  # the share of the steps before any dropout: a model that has yet to learn learns slower with it
    n_steps: int = 2000
    n_texts: int = 8  # stretches of n_context tokens that one step learns from
    learning_rate: float = 1e-3  # at its highest
    n_warmup: int = 100  # steps in which the learning rate rises
    weight_decay: float = 0.1
    clip: float = 1.0  # the longest gradient that is taken as it is
    drills: float = 0.0  # the share of the steps, at the beginning, in which all stretches repeat themselves
    repeats: float = 0.2  # the share of stretches that do in the other steps, so that induction has something to learn
    bfloat16: bool = False  # multiply in bfloat16; parameters and their moments stay float32
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("n_steps", "n_texts"):
            if getattr(self, name) < 1:
                raise TrainingError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if not (self.learning_rate > 0 and math.isfinite(self.learning_rate)):
            raise TrainingError(f"learning_rate is {self.learning_rate}; it must be positive and finite")
        for name in ("drills", "repeats", "late"):
            if not 0 <= getattr(self, name) <= 1:
                raise TrainingError(f"{name} is {getattr(self, name)}; it is a share, from 0 to 1")
        if self.d_model % self.n_heads:
            raise TrainingError(f"{self.d_model} features cannot be shared evenly by {self.n_heads} heads")
        if self.n_context < 8:
            raise TrainingError(f"n_context is {self.n_context}; below 8 tokens there is little to look back at")
        _ = self.config

    @property
    def config(self) -> Config:
        """The GPT-2 that this recipe trains."""
        return Config(
            family="gpt2",
            n_layers=self.n_layers,
            n_heads=self.n_heads,
            n_kv_heads=self.n_heads,
            d_model=self.d_model,
            d_head=self.d_model // self.n_heads,
            d_mlp=4 * self.d_model,
            n_vocab=self.n_vocab,
            n_context=self.n_context,
            norm="layernorm",
            norm_eps=1e-5,
            positions="learned",
            mlp="gelu",
            tied=True,
            attention_bias=True,
            mlp_bias=True,
            dropout=self.dropout,
        )

    def rate(self, step: int) -> float:
        """The learning rate of a step: up in a line, then down along half a cosine, to a tenth.

        >>> recipe = Recipe(n_steps=100, n_warmup=10, learning_rate=1.0)
        >>> [round(recipe.rate(step), 2) for step in (0, 9, 10, 55, 100)]
        [0.1, 1.0, 1.0, 0.55, 0.1]
        """
        if step < self.n_warmup:
            return self.learning_rate * (step + 1) / self.n_warmup
        way = (step - self.n_warmup) / max(1, self.n_steps - self.n_warmup)
        return self.learning_rate * (0.1 + 0.9 * (1 + math.cos(math.pi * min(1.0, way))) / 2)

    def rate_of_dropout(self, step: int) -> float:
        """The share of numbers that a step drops: none at first, then `dropout` (late dropout, Liu et al. 2023).

        >>> [Recipe(n_steps=10, late=0.5).rate_of_dropout(step) for step in (0, 4, 5, 9)]
        [0.0, 0.0, 0.1, 0.1]
        """
        return self.dropout if step >= self.late * self.n_steps else 0.0

    @property
    def n_drills(self) -> int:
        """Steps at the beginning that learn from stretches that repeat themselves, and from nothing else.

        >>> Recipe(n_steps=10, drills=0.3).n_drills, Recipe().n_drills
        (3, 0)
        """
        return round(self.drills * self.n_steps)

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def differences(before: Mapping[str, Any], recipe: Recipe) -> str:
    """The names of the numbers in which a recipe differs from one that was written down.

    >>> differences(Recipe().as_dict(), Recipe(d_model=200, seed=1))
    'd_model, seed'
    """
    return ", ".join(name for name, value in recipe.as_dict().items() if before.get(name) != value)


def is_kept(step: int) -> bool:
    """Steps whose parameters are kept beside the last ones: 0 and the powers of two.

    >>> [step for step in range(20) if is_kept(step)]
    [0, 1, 2, 4, 8, 16]
    """
    return step & (step - 1) == 0
