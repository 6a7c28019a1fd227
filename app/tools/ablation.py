"""Head ablation: what the model would predict if a head passed nothing on, for every head."""

# shapes: B heads, M features of a token, V tokens of the vocabulary, L layers, H heads of a layer

import math
from collections.abc import Generator, Sequence
from functools import cached_property
from itertools import product
from typing import Annotated, Literal

import torch
from torch import Tensor

from app.errors import TextTooLong
from app.experiments.base import RESIDUAL, Experiment, PanelProgress, Work, panel
from app.experiments.controls import Choice, Controls, ShortText, TokenOf
from app.experiments.panels import Bars, Facts, Heatmap, facts, numbers, signed
from app.schemas import Text
from model.sweep import sweep_heads

N_STRONGEST = 12
N_UNEMBEDDED = 32  # heads whose logits are computed at a time
MAX_WHOLE_TOKENS = 64  # every head at every token of a longer text would take minutes


class AblationControls(Controls):
    """A next token, and where in the text heads are switched off."""

    token: Annotated[int | None, TokenOf("Prediction after", "the text is read up to this token")] = None
    target: Annotated[
        Text, ShortText("Next token", "measures the probability of its first token; of the likeliest if empty")
    ] = ""
    where: Annotated[
        Literal["at this token", "at every token"],
        Choice("Heads switched off", "at this token, the earlier ones are read as usual; at every token takes longer"),
    ] = "at this token"


class AblationWork(Work):
    """The effect of every head on one prediction."""

    sites = RESIDUAL
    controls: AblationControls

    @cached_property
    def last(self) -> int:
        """The position after which the prediction is measured."""
        return self.position(self.controls.token)

    @cached_property
    def log_p_V(self) -> Tensor:
        """The log-probabilities of all tokens with all heads on, (V,), in bits."""
        return _log_probabilities(self.trace.logits([self.last])[0])

    @cached_property
    def target(self) -> int:
        """The id of the token whose probability is measured."""
        if self.controls.target.strip():
            return self.model.tokens(self.controls.target).ids[0]
        return int(self.log_p_V.argmax())

    @cached_property
    def effects(self) -> dict[tuple[int, int], float]:
        """By how many bits the log-probability of the target changes without each head; filled by `sweep`."""
        return {}

    @torch.inference_mode()
    def sweep(self) -> Generator[PanelProgress, None, None]:
        """Switch every head off, in steps; once for all panels.

        Raises:
            TextTooLong: if every head at every token would take minutes.
        """
        n_tokens, at_this_token = self.last + 1, self.controls.where == "at this token"
        if not at_this_token and n_tokens > MAX_WHOLE_TOKENS:
            reader = "“at every token”"
            raise TextTooLong(n_tokens, MAX_WHOLE_TOKENS, reader, "switch the heads off at one token")
        heads = list(product(range(self.config.n_layers), range(self.config.n_heads)))
        if len(self.effects) == len(heads):
            return
        for step in sweep_heads(self.trace.prefix(n_tokens), heads, self.last if at_this_token else 0):
            yield PanelProgress(step.n_done, step.n_total)
            if step.hidden_BRM is not None:
                yield from self._measure(step.heads, step.hidden_BRM[:, -1], PanelProgress(step.n_done, step.n_total))

    def _measure(
        self, heads: Sequence[tuple[int, int]], hidden_BM: Tensor, progress: PanelProgress
    ) -> Generator[PanelProgress, None, None]:
        for first in range(0, len(heads), N_UNEMBEDDED):
            logits_BV = self.network.unembed(hidden_BM[first : first + N_UNEMBEDDED]).float()
            change_B = _log_probabilities(logits_BV)[:, self.target] - self.log_p_V[self.target]
            self.effects.update(zip(heads[first:], change_B.tolist(), strict=False))
            yield progress

    @property
    def target_label(self) -> str:
        """The target in words."""
        return f"“{self.model.tokenizer.label(self.target)}” after {self.token_labels[self.last]}"

    @panel
    def effects_by_head(self) -> Generator[PanelProgress, None, Heatmap]:
        """The change of the target's log-probability without each head, in bits: one row per layer."""
        yield from self.sweep()
        effect_LH = torch.tensor(list(self.effects.values())).view(self.config.n_layers, self.config.n_heads)
        layers, heads = (
            [f"{kind} {number}" for number in range(n)]
            for kind, n in zip(("layer", "head"), effect_LH.shape, strict=True)
        )
        return signed(f"Bits that {self.target_label} gains without each head", layers, heads, effect_LH)

    @panel
    def strongest(self) -> Generator[PanelProgress, None, Bars]:
        """The heads with the largest effect, in bits."""
        yield from self.sweep()
        strongest = sorted(self.effects.items(), key=lambda item: -abs(item[1]))[:N_STRONGEST]
        labels = [f"layer {layer}, head {head}" for (layer, head), _ in strongest]
        values = numbers(torch.tensor([effect for _, effect in strongest]))
        return Bars(title=f"The heads that matter most for {self.target_label}", labels=labels, values=values)

    @panel
    def facts(self) -> Generator[PanelProgress, None, Facts]:
        """The prediction with all heads on, and how many heads matter."""
        yield from self.sweep()
        named = {
            "probability with all heads on": 2.0 ** self.log_p_V[self.target].item(),
            "its log-probability, in bits": self.log_p_V[self.target].item(),
            "heads without which it loses more than 0.1 bits": float(sum(e < -0.1 for e in self.effects.values())),
            "heads without which it gains more than 0.1 bits": float(sum(e > 0.1 for e in self.effects.values())),
            "heads": float(len(self.effects)),
        }
        return facts(self.target_label, named)


def _log_probabilities(logits: Tensor) -> Tensor:
    return logits.float().log_softmax(-1).cpu() / math.log(2)


EXPERIMENT = Experiment(
    title="Which heads matter?",
    work=AblationWork,
    accepts_edits=False,  # a sweep starts from the unchanged model
    code_references=("model/sweep.py: sweep_heads", "app/tools/ablation.py: AblationWork"),
)
