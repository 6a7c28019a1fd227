"""S13: recurrent networks had to put a whole text into one vector; attention keeps one vector per token."""

# shapes: N toy texts, T tokens, H features of a state, I features of an input, M features of a token, X features of
#         a state or a token

import math
from collections.abc import Iterator

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from app.lessons.checks import Arithmetic, Check, at_least, at_most, equal, product_scales
from app.lessons.lesson import Lesson, LessonRequest, LessonResult, Reading
from app.lessons.panels import Bars, Curves, Facts, Heatmap, Line, facts, numbers, signed
from app.lessons.posts import PART_5, chapter
from app.lessons.recurrent import (
    MAX_TOY_TOKENS,
    N_TESTED,
    N_TOY_WORDS,
    accuracy_from_last,
    gradient_norms,
    make_encoder,
    readout_accuracy,
    toy_states,
)
from app.schemas import Index

TOY_LENGTHS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, MAX_TOY_TOKENS)
N_STATES_DRAWN = 32  # tokens, and features of a state
N_PREFIXES = 12  # lengths of the text at which numbers are counted


class BottleneckRequest(LessonRequest):
    """The width of a state, the length of the toy texts, and the state that attention attends to."""

    width: int = Field(
        16,
        title="Width of a state",
        ge=8,
        le=64,
        description="the state has this many numbers, however long the text is",
    )
    toy_length: int = Field(
        32,
        title="Length of the toy texts",
        ge=2,
        le=MAX_TOY_TOKENS,
        description="the curves end at toy texts of this many tokens",
        json_schema_extra={"playable": True},
    )
    attended_token: Index | None = Field(
        0,
        title="Attend to",
        description="the state after this token gets the highest score",
        json_schema_extra={"kind": "token"},
    )
    sharpness: float = Field(
        8.0,
        title="Sharpness",
        ge=0,
        le=12,
        description="the score of the attended state; all others have score 0",
        json_schema_extra={"step": 0.5},
    )


class BottleneckResult(LessonResult):
    """What one state of fixed size retains, what attention over all states retrieves, and the memory that both need."""

    states: Heatmap = Field(description="of the toy network, after each token of the text")
    state_gradients: Bars = Field(description="how strongly the last state depends on each token")
    weights: Bars = Field(description="the toy's attention weights over the states of the text")
    context_gradients: Bars = Field(description="how strongly the context vector depends on each token")
    accuracy: Curves = Field(description="how often the first word is guessed correctly, by length of the toy text")
    memory: Curves = Field(description="numbers that are stored, by tokens read")
    memory_facts: Facts


def encoder_inputs(reading: Reading) -> Tensor:
    """The model's token vectors, scaled to mean square 1, (T, M): the input of the toy network."""
    x_TM = reading.embeddings_TM
    return F.normalize(x_TM, dim=1) * math.sqrt(x_TM.shape[1])


def attention_over(n: int, attended: int, request: BottleneckRequest) -> Tensor:
    """The weights of a query over n states, (T,): the attended state has score `sharpness`, all others have 0."""
    if request.broken:
        return F.one_hot(torch.tensor(n - 1), n).float()
    score_T = torch.zeros(n)
    score_T[min(attended, n - 1)] = request.sharpness
    return score_T.softmax(-1)


def attendable(states_TX: Tensor, request: BottleneckRequest) -> Tensor:
    """The states that attention can attend to: all of them."""
    return states_TX[-1:] if request.broken else states_TX


def accuracy_from_all(n: int, attended: int, request: BottleneckRequest) -> float:
    """How often the first of n words is guessed correctly from the context vector of attention over all states."""
    states_NTH, first_N = toy_states(request.width)
    return readout_accuracy(attention_over(n, attended, request) @ states_NTH[:, :n], first_N)


def stored_numbers(reading: Reading, request: BottleneckRequest, n: int) -> dict[str, float]:
    """How many numbers are stored after n tokens of the text, counted in the arrays themselves."""
    states_TH = make_encoder(request.width, reading.config.d_model).states(encoder_inputs(reading)[None, :n])[0]
    prefix = reading.trace.prefix(n)
    return {
        "recurrent network: the last state": float(states_TH[-1].numel()),
        "attention over its states": float(attendable(states_TH, request).numel()),
        "GPT: one vector per token": float(attendable(prefix.hidden_TM, request).numel()),
        "GPT: keys and values of all layers": float(
            sum(chunk.keys_LGTD.numel() + chunk.values_LGTD.numel() for chunk in prefix.chunks)
        ),
    }


def prefix_lengths(reading: Reading) -> list[int]:
    """Up to `N_PREFIXES` lengths, evenly spaced from one token to the whole text."""
    n = len(reading.tokens)
    return sorted({1 + round(step * (n - 1) / (N_PREFIXES - 1)) for step in range(N_PREFIXES)})


def compute(reading: Reading, request: BottleneckRequest) -> BottleneckResult:
    """The text in the toy network, the accuracy on toy texts of increasing length, and the numbers stored."""
    labels, attended = reading.token_labels, reading.position(request.attended_token)
    n = len(labels)
    encoder = make_encoder(request.width, reading.config.d_model)
    states_TH = encoder.states(encoder_inputs(reading)[None])[0]
    weight_T = attention_over(n, attended, request)
    last_T = F.one_hot(torch.tensor(n - 1), n).float()
    stored = {length: stored_numbers(reading, request, length) for length in prefix_lengths(reading)}
    n_tokens, n_features = min(n, N_STATES_DRAWN), min(request.width, N_STATES_DRAWN)

    def bars(title: str, value_T: Tensor, *, probabilities: bool = False) -> Bars:
        return Bars(
            title=title,
            labels=labels,
            values=numbers(value_T),
            chosen=attended,
            probabilities=probabilities,
            selects="attended_token",
        )

    return BottleneckResult(
        states=signed(
            f"States of the toy network: {n_tokens} of {n} tokens, {n_features} of {request.width} features",
            labels[:n_tokens],
            [str(feature) for feature in range(n_features)],
            states_TH[:n_tokens, :n_features],
        ),
        state_gradients=bars(
            "Dependence of the last state on each token, |ds/dx|", gradient_norms(encoder, states_TH, last_T)
        ),
        weights=bars(f"Weights of a query that attends to {labels[attended]}", weight_T, probabilities=True),
        context_gradients=bars(
            "Dependence of the context vector on each token, |dc/dx|", gradient_norms(encoder, states_TH, weight_T)
        ),
        accuracy=_accuracy_curves(request, attended),
        memory=Curves(
            title="Numbers stored",
            x_axis="tokens of the text read",
            lines=[
                Line(name=name, x=list(map(float, stored)), y=[count[name] for count in stored.values()])
                for name in stored[n]
            ],
        ),
        memory_facts=facts(f"Numbers stored after {n} tokens", stored[n]),
    )


def _accuracy_curves(request: BottleneckRequest, attended: int) -> Curves:
    """How often the first word of a toy text is guessed correctly, by the length of the text."""
    lengths = sorted({*(length for length in TOY_LENGTHS if length < request.toy_length), request.toy_length})
    accuracies = {
        "from the last state": [accuracy_from_last(request.width, length) for length in lengths],
        f"from attention to state {attended}": [accuracy_from_all(length, attended, request) for length in lengths],
        "by chance": [1 / N_TOY_WORDS] * len(lengths),
    }
    return Curves(
        title=f"Accuracy for the first of {N_TOY_WORDS} words, {N_TESTED} toy texts, states of {request.width} numbers",
        x_axis="tokens of a toy text",
        lines=[Line(name=name, x=list(map(float, lengths)), y=[*values]) for name, values in accuracies.items()],
    )


def checks(reading: Reading, request: BottleneckRequest) -> Iterator[Check]:
    """One state has a fixed size and forgets; attention needs memory for every token and does not forget."""
    yield from _memory_checks(reading, request)
    weight_T = attention_over(len(reading.tokens), reading.position(request.attended_token), request)
    sum_1 = weight_T.sum()[None]
    yield equal("the weights over the states sum to 1", sum_1, torch.ones(1), Arithmetic(len(weight_T)))
    sharp = request.model_copy(update={"sharpness": 8.0})
    near, far = accuracy_from_last(request.width, 1), accuracy_from_last(request.width, MAX_TOY_TOKENS)
    attention = accuracy_from_all(MAX_TOY_TOKENS, 0, sharp)
    yield at_least(0.5, near - far, f"the last state forgets: its accuracy falls from length 1 to {MAX_TOY_TOKENS}")
    yield at_least(
        0.9, attention, f"attention to the first state does not: its accuracy is high at length {MAX_TOY_TOKENS}"
    )
    yield from _torch_checks(reading, request)


def _memory_checks(reading: Reading, request: BottleneckRequest) -> Iterator[Check]:
    """The last state has a fixed size; everything else that is stored grows by the same size with each token."""
    config = reading.config
    stored = {n: stored_numbers(reading, request, n) for n in prefix_lengths(reading)}
    last, *growing = stored[1]
    sizes = [count[last] for count in stored.values()]
    yield at_most(0, max(sizes) - min(sizes), f"{last}: its size does not depend on the length of the text")
    sizes_per_token = (request.width, config.d_model, 2 * config.n_layers * config.n_kv_heads * config.d_head)
    for name, size in zip(growing, sizes_per_token, strict=True):
        difference = max(abs(count[name] - n * size) for n, count in stored.items())
        yield at_most(0, difference, f"{name}: {size:,} numbers per token at every length")


def _torch_checks(reading: Reading, request: BottleneckRequest) -> Iterator[Check]:
    """The toy network computes what `torch.nn.RNN` computes, and its derivatives are those of autograd."""
    d_model = reading.config.d_model
    encoder, x_TI = make_encoder(request.width, d_model), encoder_inputs(reading)
    states_TH = encoder.states(x_TI[None])[0]
    rnn = nn.RNN(d_model, request.width, bias=False, batch_first=True)
    rnn.load_state_dict({"weight_hh_l0": encoder.recurrent_HH, "weight_ih_l0": encoder.input_HI})
    rnn.requires_grad_(False)
    last_H = rnn(x_TI[None])[1][0, 0]
    scale = product_scales(x_TI, encoder.input_HI).max().item()
    steps = Arithmetic(n_terms=request.width + d_model)
    yield equal("the last state is that of torch.nn.RNN", last_H, states_TH[-1], steps, scale)
    first_TI = x_TI[:N_STATES_DRAWN].clone().requires_grad_()
    last_H = rnn(first_TI[None])[1][0, 0]
    gradients = [torch.autograd.grad(number, first_TI, retain_graph=True)[0] for number in last_H]
    autograd_T = torch.stack(gradients, dim=1).flatten(1).norm(dim=1)
    last_T = F.one_hot(torch.tensor(len(first_TI) - 1), len(first_TI))
    norm_T = gradient_norms(encoder, states_TH[:N_STATES_DRAWN], last_T)
    chain = Arithmetic(n_terms=request.width * len(first_TI) + d_model)
    yield equal("its dependence on each token is that of autograd", norm_T, autograd_T, chain)


LESSON = Lesson(
    number=13,
    title="Before transformers",
    posts=(PART_5, chapter("3.1"), chapter("3.2")),
    request_type=BottleneckRequest,
    result_type=BottleneckResult,
    compute=compute,
    checks=checks,
    break_description="let attention attend to the last state only",
    code_references=(
        "app/lessons/recurrent.py: Encoder, readout_accuracy",
        "app/lessons/bottleneck.py: attention_over",
        "model/trace.py: Trace.prefix, Chunk",
    ),
)
