"""S13: before transformers a text had to fit into one vector; attention keeps one for each token."""

# shapes: N toy texts, T tokens, H features of a state, I features of what is read, M features of a token, K toy words

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from app.lessons.checks import Arithmetic, Check, at_least, at_most, equal, product_scales
from app.lessons.lesson import Lesson, LessonRequest, LessonResult, Reading
from app.lessons.panels import Bars, Curves, Facts, Heatmap, Line, facts, numbers, signed
from app.lessons.posts import PART_5, chapter
from app.schemas import Index

N_WORDS, D_WORD = 8, 16  # of the toy
N_LEARN, N_TEST = 256, 256  # toy texts that the readout is fitted to, and others that it is tried on
LONGEST = 64  # tokens of a toy text
LENGTHS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, LONGEST)
KEEPS = 0.9  # what a state keeps of the one before it, while it is small
RIDGE = 1e-3
N_SHOWN = 32  # tokens, and features of a state
N_STARTS = 12  # beginnings of the text at which numbers are counted


class BottleneckRequest(LessonRequest):
    """How wide a state is, how long toy texts are, and where attention looks."""

    width: int = Field(16, title="Width of a state", ge=8, le=64, description="numbers in it, whatever the text")
    length: int = Field(
        32,
        title="Length",
        ge=2,
        le=LONGEST,
        description="tokens of the longest toy text",
        json_schema_extra={"playable": True},
    )
    attends: Index | None = Field(
        0,
        title="Attention asks for",
        description="the state after this token; the last if left out",
        json_schema_extra={"kind": "token"},
    )
    sharpness: float = Field(
        8.0,
        title="Sharpness",
        ge=0,
        le=12,
        description="the score of the state that is asked for; all others score 0",
        json_schema_extra={"step": 0.5},
    )


class BottleneckResult(LessonResult):
    """A state that must hold all, states that need not, and how many numbers either way takes along."""

    states: Heatmap = Field(description="of the toy network after each token of the text")
    kept: Bars = Field(description="how strongly the last state depends on each token")
    weights: Bars = Field(description="of the toy's attention over the states of the text")
    attended: Bars = Field(description="how strongly what attention brings back depends on each token")
    recall: Curves = Field(description="how often the first word can be told, over the length of a toy text")
    carried: Curves = Field(description="numbers that are taken along, over the tokens read")
    counts: Facts


@dataclass(frozen=True)
class Encoder:
    """A recurrent network that nobody trained: s_t = tanh(U s_{t-1} + W x_t)."""

    onward_HH: Tensor  # U: turns a state, and makes it a little shorter
    reads_HI: Tensor  # W

    def states(self, x_NTI: Tensor) -> Tensor:
        """The state after each token, (N, T, H); it begins with zeros."""
        read_NTH, state_NH = x_NTI @ self.reads_HI.T, x_NTI.new_zeros(len(x_NTI), len(self.onward_HH))
        found = []
        for read_NH in read_NTH.unbind(1):
            state_NH = torch.tanh(state_NH @ self.onward_HH.T + read_NH)
            found.append(state_NH)
        return torch.stack(found, dim=1)


def encoder(width: int, n_inputs: int) -> Encoder:
    """The one with fixed random numbers; always the same."""
    generator = torch.Generator().manual_seed(0)
    turn_HH: Tensor = torch.linalg.qr(torch.randn(width, width, generator=generator)).Q
    return Encoder(KEEPS * turn_HH, torch.randn(width, n_inputs, generator=generator) / math.sqrt(n_inputs))


def embedded(reading: Reading) -> Tensor:
    """What the toy network reads of the text: the tokens' rows of the model's table, (T, M), of mean square 1."""
    x_TM: Tensor = reading.model.network.embed.weight[reading.ids_BT[0]].detach().float().cpu()
    return F.normalize(x_TM, dim=1) * math.sqrt(x_TM.shape[1])


def attention_over(n: int, asked_for: int, request: BottleneckRequest) -> Tensor:
    """The weights of a query over n states, (T,): it asks for a place, and the score there is the sharpness."""
    if request.broken:
        return F.one_hot(torch.tensor(n - 1), n).float()
    score_T = torch.zeros(n)
    score_T[min(asked_for, n - 1)] = request.sharpness
    return score_T.softmax(-1)


def kept(states_TX: Tensor, request: BottleneckRequest) -> Tensor:
    """The states that attention can look at: all of them."""
    return states_TX[-1:] if request.broken else states_TX


def sensitivity(network: Encoder, states_TH: Tensor, weight_T: Tensor) -> Tensor:
    """How a mean of states with these weights depends on each token, (T,): the length of its derivative by x_i.

    The chain rule from the last state to the first: a token reaches the mean by its own state, and by all later ones.
    """
    by_state_HH, lengths = torch.zeros_like(network.onward_HH), []
    for state_H, weight in zip(states_TH.flip(0), weight_T.flip(0), strict=True):
        by_sum_HH = (by_state_HH + weight * torch.eye(len(state_H))) * (1 - state_H.square())
        lengths.append((by_sum_HH @ network.reads_HI).norm())
        by_state_HH = by_sum_HH @ network.onward_HH
    return torch.stack(lengths[::-1])


@lru_cache(maxsize=4)
def toy(width: int) -> tuple[Tensor, Tensor]:
    """States of texts of random words, (N, T, H), and which word each began with, (N,)."""
    generator = torch.Generator().manual_seed(0)
    words_KI = torch.randn(N_WORDS, D_WORD, generator=generator)
    said_NT = torch.randint(N_WORDS, (N_LEARN + N_TEST, LONGEST), generator=generator)
    return encoder(width, D_WORD).states(words_KI[said_NT]), said_NT[:, 0]


def recall(given_NH: Tensor, first_N: Tensor) -> float:
    """How often a linear readout tells the first word, in texts that it was not fitted to."""
    given_NH = F.pad(given_NH, (0, 1), value=1.0)
    known_NH, new_NH = given_NH[:N_LEARN], given_NH[N_LEARN:]
    squares_HH = known_NH.T @ known_NH + RIDGE * N_LEARN * torch.eye(given_NH.shape[1])
    readout_HK = torch.linalg.solve(squares_HH, known_NH.T @ F.one_hot(first_N[:N_LEARN], N_WORDS).float())
    told_N = (new_NH @ readout_HK).argmax(1)
    return float((told_N == first_N[N_LEARN:]).float().mean())


@cache
def recall_from_last(width: int, n: int) -> float:
    """Of the first of n words, from the last state."""
    states_NTH, first_N = toy(width)
    return recall(states_NTH[:, n - 1], first_N)


def recall_from_all(n: int, asked_for: int, request: BottleneckRequest) -> float:
    """Of the first of n words, from what attention over all states brings back."""
    states_NTH, first_N = toy(request.width)
    return recall(attention_over(n, asked_for, request) @ states_NTH[:, :n], first_N)


def counts(reading: Reading, request: BottleneckRequest, n: int) -> dict[str, float]:
    """How many numbers are taken along after n tokens of the text, counted where they are."""
    states_TH = encoder(request.width, reading.config.d_model).states(embedded(reading)[None, :n])[0]
    start = reading.trace.prefix(n)
    return {
        "recurrent network: the last state": float(states_TH[-1].numel()),
        "attention over its states": float(kept(states_TH, request).numel()),
        "GPT: a vector for each token": float(kept(start.hidden_TM, request).numel()),
        "GPT: keys and values of all layers": float(
            sum(one.keys_LGTD.numel() + one.values_LGTD.numel() for one in start.chunks)
        ),
    }


def starts(reading: Reading) -> list[int]:
    """Lengths of beginnings of the text, from one token to all."""
    n = len(reading.tokens)
    return sorted({1 + round(step * (n - 1) / (N_STARTS - 1)) for step in range(N_STARTS)})


def compute(reading: Reading, request: BottleneckRequest) -> BottleneckResult:
    """The text through the toy network, toy texts of growing length, and what is taken along."""
    names, asked_for = reading.token_labels, reading.position(request.attends)
    n, d_model = len(names), reading.config.d_model
    network = encoder(request.width, d_model)
    states_TH = network.states(embedded(reading)[None])[0]
    weight_T = attention_over(n, asked_for, request)
    last_T = F.one_hot(torch.tensor(n - 1), n).float()
    lengths = sorted({*(length for length in LENGTHS if length < request.length), request.length})
    from_last = [recall_from_last(request.width, length) for length in lengths]
    from_all = [recall_from_all(length, asked_for, request) for length in lengths]
    counted = {start: counts(reading, request, start) for start in starts(reading)}
    return BottleneckResult(
        states=signed(
            f"toy states, {min(n, N_SHOWN)} of {n} tokens, {min(request.width, N_SHOWN)} of {request.width} numbers",
            names[:N_SHOWN],
            [str(feature) for feature in range(min(request.width, N_SHOWN))],
            states_TH[:N_SHOWN, :N_SHOWN],
        ),
        kept=Bars(
            title="what the last state still feels of each token: |ds/dx|",
            labels=names,
            values=numbers(sensitivity(network, states_TH, last_T)),
            chosen=asked_for,
            selects="attends",
        ),
        weights=Bars(
            title=f"weights of a query that asks for {names[asked_for]}",
            labels=names,
            values=numbers(weight_T),
            chosen=asked_for,
            probabilities=True,
            selects="attends",
        ),
        attended=Bars(
            title="what it brings back feels of each token: |dc/dx|",
            labels=names,
            values=numbers(sensitivity(network, states_TH, weight_T)),
            chosen=asked_for,
            selects="attends",
        ),
        recall=Curves(
            title=f"first of {N_WORDS} words told right, {N_TEST} toy texts, states of {request.width} numbers",
            x_axis="tokens of a toy text",
            lines=[
                Line(name=name, x=list(map(float, lengths)), y=values)
                for name, values in (
                    ("from the last state", from_last),
                    (f"attention that asks for place {asked_for}", from_all),
                    ("by chance", [1 / N_WORDS] * len(lengths)),
                )
            ],
        ),
        carried=Curves(
            title="numbers taken along",
            x_axis="tokens of the text read",
            lines=[
                Line(name=name, x=list(map(float, counted)), y=[count[name] for count in counted.values()])
                for name in counted[n]
            ],
        ),
        counts=facts(f"numbers taken along after {n} tokens", counted[n]),
    )


def checks(reading: Reading, request: BottleneckRequest) -> Iterator[Check]:
    """One state stays as it is, many grow with the text; what is far away is lost to one and not to the other."""
    config, asked_for = reading.config, reading.position(request.attends)
    counted = {n: counts(reading, request, n) for n in starts(reading)}
    last, *growing = counted[1]
    numbers_last = [count[last] for count in counted.values()]
    off = max(numbers_last) - min(numbers_last)
    yield at_most(0, off, f"{last}: as many numbers for every start of the text, to within")
    of_a_token = (request.width, config.d_model, 2 * config.n_layers * config.n_kv_heads * config.d_head)
    for name, each in zip(growing, of_a_token, strict=True):
        off = max(abs(count[name] - n * each) for n, count in counted.items())
        yield at_most(0, off, f"{name}: {each:,} numbers for each token of every start, to within")
    weight_T = attention_over(len(reading.tokens), asked_for, request)
    sum_1 = weight_T.sum()[None]
    yield equal("the weights over the states sum to 1, to within", sum_1, torch.ones(1), Arithmetic(len(weight_T)))
    plain = request.model_copy(update={"sharpness": 8.0})
    near, far = recall_from_last(request.width, 1), recall_from_last(request.width, LONGEST)
    attended = recall_from_all(LONGEST, 0, plain)
    yield at_least(
        0.5, near - far, f"from length 1 to {LONGEST} the share of first words told from the last state falls by"
    )
    yield at_least(0.9, attended, f"at length {LONGEST} attention that asks for the first state tells it in a share of")
    network, x_TI = encoder(request.width, config.d_model), embedded(reading)
    states_TH = network.states(x_TI[None])[0]
    theirs = nn.RNN(config.d_model, request.width, bias=False, batch_first=True)
    theirs.load_state_dict({"weight_hh_l0": network.onward_HH, "weight_ih_l0": network.reads_HI})
    theirs.requires_grad_(False)
    last_H = theirs(x_TI[None])[1][0, 0]
    norm = product_scales(x_TI, network.reads_HI).max().item()
    steps = Arithmetic(n_terms=request.width + config.d_model)
    yield equal("the last state differs from that of torch.nn.RNN by", last_H, states_TH[-1], steps, norm)
    some_TI = x_TI[:N_SHOWN].clone().requires_grad_()
    last_H = theirs(some_TI[None])[1][0, 0]
    slopes = [torch.autograd.grad(number, some_TI, retain_graph=True)[0] for number in last_H]
    theirs_T = torch.stack(slopes, dim=1).flatten(1).norm(dim=1)
    last_T = F.one_hot(torch.tensor(len(some_TI) - 1), len(some_TI))
    ours_T = sensitivity(network, states_TH[:N_SHOWN], last_T)
    chain = Arithmetic(n_terms=request.width * len(some_TI) + config.d_model)
    yield equal("what it feels of each token differs from autograd's by", ours_T, theirs_T, chain)


LESSON = Lesson(
    system=13,
    title="Before transformers",
    posts=(PART_5, chapter("3.1"), chapter("3.2")),
    request_type=BottleneckRequest,
    result_type=BottleneckResult,
    compute=compute,
    checks=checks,
    breaks="let attention look at the last state only",
    code=("app/lessons/bottleneck.py: encoder, attention_over, recall", "model/trace.py: Trace.prefix, Chunk"),
)
