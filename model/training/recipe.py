"""Recipe: the hyperparameters of a training run."""

import dataclasses
import math
from dataclasses import dataclass

from model.config import Config


class TrainingError(ValueError):
    """A run that cannot start or continue; the message says what to change."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The hyperparameters of a run. The same recipe and texts give the same parameters on the same machine.

    Raises:
        TrainingError: if a number is out of range.
        ConfigError: if the sizes make no GPT-2.
    """

    n_layers: int = 4
    n_heads: int = 4
    d_model: int = 192
    n_context: int = 256  # tokens
    n_vocab: int = 4096  # tokens, including the one between two texts
    dropout: float = 0.1
    dropout_after: float = 0.8  # fraction of the steps before dropout starts, because it slows early learning
    n_steps: int = 2000
    batch_size: int = 8  # sequences of n_context tokens per step
    learning_rate: float = 1e-3  # its maximum
    n_warmup: int = 100  # steps in which the learning rate rises
    weight_decay: float = 0.1
    clip: float = 1.0  # the norm to which a larger gradient is scaled down
    curriculum: float = 0.0  # fraction of the steps, at the beginning, with repeated random tokens and no text
    repeats: float = 0.2  # fraction of the sequences that are repeated random tokens after that, for induction heads
    bfloat16: bool = False  # multiply in bfloat16; parameters and their moments stay float32
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("n_steps", "batch_size"):
            if getattr(self, name) < 1:
                raise TrainingError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if not (self.learning_rate > 0 and math.isfinite(self.learning_rate)):
            raise TrainingError(f"learning_rate is {self.learning_rate}; it must be positive and finite")
        for name in ("curriculum", "repeats", "dropout_after"):
            if not 0 <= getattr(self, name) <= 1:
                raise TrainingError(f"{name} is {getattr(self, name)}; it is a fraction, from 0 to 1")
        if self.d_model % self.n_heads:
            raise TrainingError(f"{self.d_model} features cannot be shared evenly by {self.n_heads} heads")
        if self.n_context < 8:
            raise TrainingError(f"n_context is {self.n_context}; it must be at least 8 tokens")
        _ = self.config

    @property
    def config(self) -> Config:
        """The architecture of the GPT-2."""
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

    def learning_rate_at(self, step: int) -> float:
        """The learning rate of a step: linear warm-up, then a cosine decay to a tenth.

        >>> recipe = Recipe(n_steps=100, n_warmup=10, learning_rate=1.0)
        >>> [round(recipe.learning_rate_at(step), 2) for step in (0, 9, 10, 55, 100)]
        [0.1, 1.0, 1.0, 0.55, 0.1]
        """
        if step < self.n_warmup:
            return self.learning_rate * (step + 1) / self.n_warmup
        progress = (step - self.n_warmup) / max(1, self.n_steps - self.n_warmup)
        return self.learning_rate * (0.1 + 0.9 * (1 + math.cos(math.pi * min(1.0, progress))) / 2)

    def dropout_at(self, step: int) -> float:
        """The dropout rate of a step: 0 at first, then `dropout` (late dropout, Liu et al. 2023).

        >>> [Recipe(n_steps=10, dropout_after=0.5).dropout_at(step) for step in (0, 4, 5, 9)]
        [0.0, 0.0, 0.1, 0.1]
        """
        return self.dropout if step >= self.dropout_after * self.n_steps else 0.0

    @property
    def n_curriculum_steps(self) -> int:
        """How many steps at the beginning learn from repeated random tokens only.

        >>> Recipe(n_steps=10, curriculum=0.3).n_curriculum_steps, Recipe().n_curriculum_steps
        (3, 0)
        """
        return round(self.curriculum * self.n_steps)


def differing_fields(a: Recipe, b: Recipe) -> str:
    """The names of the fields in which two recipes differ.

    >>> differing_fields(Recipe(), Recipe(d_model=200, seed=1))
    'd_model, seed'
    """
    names = (field.name for field in dataclasses.fields(Recipe))
    return ", ".join(name for name in names if getattr(a, name) != getattr(b, name))


def is_saved_step(step: int) -> bool:
    """Whether the parameters after this step are saved: step 0 and the powers of two.

    >>> [step for step in range(20) if is_saved_step(step)]
    [0, 1, 2, 4, 8, 16]
    """
    return step & (step - 1) == 0
