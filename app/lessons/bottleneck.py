"""S13: recurrent networks had to put a whole text into one vector; attention keeps one vector per token."""

# shapes: N toy texts, T tokens, H features of a state, I features of an input, X features of a state or a token

import math
from collections.abc import Iterator
from functools import cached_property
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from app.experiments.base import Lesson, Work, panel
from app.experiments.checks import Arithmetic, Check, at_least, at_most, equal, product_scales
from app.experiments.controls import Controls, Slider, TokenOf
from app.experiments.panels import Bars, Curves, Facts, Heatmap, Line, facts, numbers, signed
from app.lessons.posts import PART_5, chapter
from app.lessons.recurrent import (
    MAX_TOY_TOKENS,
    N_TESTED,
    N_TOY_WORDS,
    Encoder,
    accuracy_from_last,
    gradient_norms,
    make_encoder,
    readout_accuracy,
    toy_states,
)

TOY_LENGTHS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, MAX_TOY_TOKENS)
N_STATES_DRAWN = 32  # tokens, and features of a state
N_PREFIXES = 12  # lengths of the text at which numbers are counted


class BottleneckControls(Controls):
    """The width of a state, the length of the toy texts, and the state that attention attends to."""

    width: Annotated[
        int, Slider(8, 64, 1, "Width of a state", "the state has this many numbers, however long the text is")
    ] = 16
    toy_length: Annotated[
        int, Slider(2, MAX_TOY_TOKENS, 1, "Length of the toy texts", "where the curves end, in tokens", playable=True)
    ] = 32
    attended_token: Annotated[int | None, TokenOf("Attend to", "the state after this token gets the highest score")] = 0
    sharpness: Annotated[
        float, Slider(0, 12, 0.5, "Sharpness", "the score of the attended state; all others have score 0")
    ] = 8.0


class BottleneckWork(Work):
    """What one state of fixed size retains, what attention over all states retrieves, and the memory that both need."""

    controls: BottleneckControls

    @cached_property
    def inputs_TI(self) -> Tensor:
        """The input of the toy network: the model's token vectors, scaled to mean square 1."""
        return F.normalize(self.embeddings_TM, dim=1) * math.sqrt(self.config.d_model)

    @cached_property
    def encoder(self) -> Encoder:
        """The toy network."""
        return make_encoder(self.controls.width, self.config.d_model)

    @cached_property
    def states_TH(self) -> Tensor:
        """Its state after each token of the text."""
        return self.encoder.states(self.inputs_TI[None])[0]

    @property
    def attended(self) -> int:
        """The position of the attended state."""
        return self.position(self.controls.attended_token)

    @property
    def weight_T(self) -> Tensor:
        """The attention weights over the states of the text."""
        return self.attention_over(len(self.tokens), self.attended, self.controls.sharpness)

    def attention_over(self, n: int, attended: int, sharpness: float) -> Tensor:
        """The weights of a query over n states, (T,): the attended state has score `sharpness`, all others have 0."""
        score_T = sharpness * F.one_hot(torch.tensor(min(attended, n - 1)), n).float()
        return only(n - 1, n) if self.controls.broken else score_T.softmax(-1)

    def accuracy_from_all(self, n: int, attended: int, sharpness: float) -> float:
        """How often the first of n words is guessed correctly from the context vector of attention over all states."""
        states_NTH, first_N = toy_states(self.controls.width)
        return readout_accuracy(self.attention_over(n, attended, sharpness) @ states_NTH[:, :n], first_N)

    @cached_property
    def stored(self) -> dict[int, dict[str, float]]:
        """How many numbers are stored at up to `N_PREFIXES` lengths of the text, from one token to all."""
        n_more = len(self.tokens) - 1
        return {n: self.stored_after(n) for n in (1 + round(i * n_more / (N_PREFIXES - 1)) for i in range(N_PREFIXES))}

    def stored_after(self, n: int) -> dict[str, float]:
        """How many numbers are stored after n tokens of the text, counted in the arrays themselves."""
        states_TH, prefix = self.states_TH[:n], self.trace.prefix(n)
        attendable = slice(-1, None) if self.controls.broken else slice(None)
        return {
            "recurrent network: the last state": states_TH[-1].numel(),
            "attention over its states": states_TH[attendable].numel(),
            "GPT: one vector per token": prefix.hidden_TM[attendable].numel(),
            "GPT: keys and values of all layers": sum(
                chunk.keys_LGTD.numel() + chunk.values_LGTD.numel() for chunk in prefix.chunks
            ),
        }

    def bars(self, title: str, value_T: Tensor, *, probabilities: bool = False) -> Bars:
        """One number per token."""
        return Bars(
            title=title,
            labels=self.token_labels,
            values=numbers(value_T),
            chosen=self.attended,
            probabilities=probabilities,
            selects="attended_token",
        )

    @panel
    def states(self) -> Heatmap:
        """The toy network after each token of the text."""
        (n_tokens, width), drawn_TH = self.states_TH.shape, self.states_TH[:N_STATES_DRAWN, :N_STATES_DRAWN]
        labels, features = self.token_labels[:N_STATES_DRAWN], [str(feature) for feature in range(drawn_TH.shape[1])]
        title = f"States of the toy network: {len(labels)} of {n_tokens} tokens, {len(features)} of {width} features"
        return signed(title, labels, features, drawn_TH)

    @panel
    def state_gradients(self) -> Bars:
        """How strongly the last state depends on each token."""
        n = len(self.tokens)
        norm_T = gradient_norms(self.encoder, self.states_TH, only(n - 1, n))
        return self.bars("Dependence of the last state on each token, |ds/dx|", norm_T)

    @panel
    def weights(self) -> Bars:
        """The toy's attention weights over the states of the text."""
        title = f"Weights of a query that attends to {self.token_labels[self.attended]}"
        return self.bars(title, self.weight_T, probabilities=True)

    @panel
    def context_gradients(self) -> Bars:
        """How strongly the context vector depends on each token."""
        norm_T = gradient_norms(self.encoder, self.states_TH, self.weight_T)
        return self.bars("Dependence of the context vector on each token, |dc/dx|", norm_T)

    @panel
    def accuracy(self) -> Curves:
        """How often the first word is guessed correctly, by length of the toy text."""
        width, longest, sharpness = self.controls.width, self.controls.toy_length, self.controls.sharpness
        lengths = [*(length for length in TOY_LENGTHS if length < longest), longest]
        accuracies = {
            "from the last state": [accuracy_from_last(width, n) for n in lengths],
            f"from attention to state {self.attended}": [
                self.accuracy_from_all(n, self.attended, sharpness) for n in lengths
            ],
            "by chance": [1 / N_TOY_WORDS] * len(lengths),
        }
        return Curves(
            title=f"Accuracy for the first of {N_TOY_WORDS} words, {N_TESTED} toy texts, states of {width} numbers",
            x_axis="tokens of a toy text",
            lines=[Line(name=name, x=[*map(float, lengths)], y=[*values]) for name, values in accuracies.items()],
        )

    @panel
    def memory(self) -> Curves:
        """Numbers that are stored, by tokens read."""
        lengths = [*map(float, self.stored)]
        lines = [
            Line(name=name, x=lengths, y=[counts[name] for counts in self.stored.values()]) for name in self.stored[1]
        ]
        return Curves(title="Numbers stored", x_axis="tokens of the text read", lines=lines)

    @panel
    def memory_facts(self) -> Facts:
        """Numbers that are stored after the whole text."""
        n = len(self.tokens)
        return facts(f"Numbers stored after {n} tokens", self.stored[n])

    def checks(self) -> Iterator[Check]:
        """One state has a fixed size and forgets; attention needs memory for every token and does not forget."""
        yield from self.memory_checks()
        sum_1, arithmetic = self.weight_T.sum()[None], Arithmetic(len(self.tokens))
        yield equal("the weights over the states sum to 1", sum_1, torch.ones(1), arithmetic)
        n, width = MAX_TOY_TOKENS, self.controls.width
        lost = accuracy_from_last(width, 1) - accuracy_from_last(width, n)
        yield at_least(0.5, lost, f"the last state forgets: its accuracy falls from length 1 to {n}")
        attention = self.accuracy_from_all(n, 0, sharpness=8.0)
        name = f"attention to the first state does not: its accuracy is high at length {n}"
        yield at_least(0.9, attention, name)
        yield from self.torch_checks()

    def memory_checks(self) -> Iterator[Check]:
        """The last state has a fixed size; everything else that is stored grows by the same size with each token."""
        config, (last, *growing) = self.config, self.stored[1]
        sizes = [counts[last] for counts in self.stored.values()]
        yield at_most(0, max(sizes) - min(sizes), f"{last}: its size does not depend on the length of the text")
        sizes_per_token = self.controls.width, config.d_model, 2 * config.n_layers * config.n_kv_heads * config.d_head
        for name, size in zip(growing, sizes_per_token, strict=True):
            difference = max(abs(counts[name] - n * size) for n, counts in self.stored.items())
            yield at_most(0, difference, f"{name}: {size:,} numbers per token at every length")

    def torch_checks(self) -> Iterator[Check]:
        """The toy network computes what `torch.nn.RNN` computes, and its derivatives are those of autograd."""
        encoder, width, d_model, x_TI = self.encoder, self.controls.width, self.config.d_model, self.inputs_TI
        rnn = nn.RNN(d_model, width, bias=False, batch_first=True)
        rnn.load_state_dict({"weight_hh_l0": encoder.recurrent_HH, "weight_ih_l0": encoder.input_HI})
        last_H = rnn.requires_grad_(False)(x_TI[None])[1][0, 0]
        scale = product_scales(x_TI, encoder.input_HI).max().item()
        steps = Arithmetic(n_terms=width + d_model)
        yield equal("the last state is that of torch.nn.RNN", last_H, self.states_TH[-1], steps, scale)
        first_TI = x_TI[:N_STATES_DRAWN].clone().requires_grad_()
        n, last_H = len(first_TI), rnn(first_TI[None])[1][0, 0]
        gradients = [torch.autograd.grad(number, first_TI, retain_graph=True)[0] for number in last_H]
        autograd_T = torch.stack(gradients, dim=1).flatten(1).norm(dim=1)
        norm_T = gradient_norms(encoder, self.states_TH[:n], only(n - 1, n))
        chain = Arithmetic(n_terms=width * n + d_model)
        yield equal("its dependence on each token is that of autograd", norm_T, autograd_T, chain)


def only(index: int, n: int) -> Tensor:
    """Weight 1 on one of n states, 0 on all others, (T,)."""
    return F.one_hot(torch.tensor(index), n).float()


EXPERIMENT = Lesson(
    number=13,
    title="Before transformers",
    posts=(PART_5, chapter("3.1"), chapter("3.2")),
    work=BottleneckWork,
    break_description="let attention attend to the last state only",
    code_references=(
        "app/lessons/recurrent.py: Encoder, readout_accuracy",
        "app/lessons/bottleneck.py: BottleneckWork.attention_over",
        "model/trace.py: Trace.prefix, Chunk",
    ),
)
