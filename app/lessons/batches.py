"""S21: several texts at once: one more axis, the same weights for all, and padding where a text is short."""

# shapes: B texts, H heads, T tokens of the longest text, D features of a head, M features of a token

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch
from pydantic import Field
from torch import Tensor

from app.lessons.checks import Check, at_most, equal
from app.lessons.clock import forward_milliseconds
from app.lessons.lesson import Lesson, LessonRequest, LessonResult, Reading
from app.lessons.panels import Cube, Curves, Facts, Heatmap, Line, facts, matrix, probabilities, signed
from app.lessons.posts import PART_11, chapter
from app.schemas import Index, Text
from model import attention
from model.attention import Heads
from model.gpt import GPT
from model.reading import read
from model.tokenizer import Tokens, token_label
from model.trace import Trace

N_MOST = 256  # tokens of each text
N_FEATURES = 8  # that are drawn
N_TIMED = (1, 2, 4, 8)  # texts in a batch
N_TOKENS_TIMED, BUDGET_S = 16, 0.15

Stage = Literal["token vectors", "after the last layer"]
Padding = Literal["right", "left"]

_measured: WeakKeyDictionary[GPT, list[float]] = WeakKeyDictionary()  # once for each network; nobody can ask for more


class BatchesRequest(LessonRequest):
    """Up to three more texts, and how they are put into one array."""

    second: Text = Field("my dog ran", title="Second text", description="none if empty", max_length=2000)
    third: Text = Field("", title="Third text", description="none if empty", max_length=2000)
    fourth: Text = Field("", title="Fourth text", description="none if empty", max_length=2000)
    padding: Padding = Field("right", title="Padding", description="where a short text is filled up")
    stage: Stage = Field("after the last layer", title="Show the vectors", description="of all texts in one array")
    layer: Index = Field(0, title="Layer")
    head: Index = Field(0, title="Head")
    sheet: int = Field(0, title="Text of the batch", ge=0, le=3, description="whose weights are shown; from 0")
    timed: bool = Field(False, title="Time it", description="measured once on this machine, and kept")


class BatchesResult(LessonResult):
    """The batch, one of its texts, and the same text read alone."""

    cube: Cube = Field(description="the first features of every token of every text; padding is empty")
    weights: Heatmap = Field(description="of the chosen text in the batch")
    difference: Heatmap = Field(description="less the weights of the same text read alone")
    facts: Facts
    speed: Curves = Field(description="ms a text over the number of texts that are read together")


class Batch:
    """Texts in one array, read in one pass. Where a text is short, its rows are filled up with the token 0."""

    def __init__(self, network: GPT, texts: Sequence[Sequence[int]], padding: Padding) -> None:
        self.n_tokens = max(map(len, texts))
        self.places = [
            range(len(ids)) if padding == "right" else range(self.n_tokens - len(ids), self.n_tokens) for ids in texts
        ]
        self.ids_BT = torch.zeros(len(texts), self.n_tokens, dtype=torch.long, device=network.device)
        for row, (ids, places) in enumerate(zip(texts, self.places, strict=True)):
            self.ids_BT[row, places.start : places.stop] = torch.tensor(ids)
        self.heads: list[tuple[Tensor, Tensor, Tensor]] = []  # queries, keys and values of each layer
        with torch.inference_mode(), ExitStack() as hooks:
            for part in network.modules():
                if isinstance(part, Heads):
                    hooks.enter_context(part.register_forward_hook(self._hear))
            self.hidden_BTM = network.hidden(self.ids_BT)

    def _hear(self, _: Any, looked: tuple[Any, ...], __: Tensor) -> None:
        self.heads.append(looked[:3])

    def hidden(self, text: int) -> Tensor:
        """The vectors of one text after the last layer, its padding left out; (T, M)."""
        places = self.places[text]
        return self.hidden_BTM[text, places.start : places.stop].float().cpu()

    def weights(self, text: int, layer: int, head: int) -> Tensor:
        """Of one text and head, padding and all, (T, T)."""
        q_BHTD, k_BGTD, _ = self.heads[layer]
        key_head = head // (q_BHTD.shape[1] // k_BGTD.shape[1])
        score_TT = attention.scores(q_BHTD[text, head].float(), k_BGTD[text, key_head].float())
        return attention.weights(attention.masked(attention.scaled(score_TT, q_BHTD.shape[-1]))).cpu()


def texts(reading: Reading, request: BatchesRequest) -> list[Tokens]:
    """The page's text and the other ones.

    Raises:
        TextTooLong, UnreadableText, NothingHeld: when one of them cannot be read.
    """
    others = filter(None, (request.second, request.third, request.fourth))
    tokens = [reading.model.tokens(text, special_tokens=request.special_tokens, n_max=N_MOST) for text in others]
    return [reading.tokens, *tokens]


def timed(network: GPT) -> list[float]:
    """The ms that each text takes in batches of N_TIMED, random tokens; measured once."""
    if network not in _measured:
        generator = torch.Generator().manual_seed(0)
        ids_BT = torch.randint(network.config.n_vocab, (max(N_TIMED), N_TOKENS_TIMED), generator=generator).to(
            network.device
        )
        _measured[network] = [forward_milliseconds(network, ids_BT[:n], BUDGET_S) / n for n in N_TIMED]
    return _measured[network]


def compute(reading: Reading, request: BatchesRequest) -> BatchesResult:
    """All texts in one pass, and one of them beside itself alone."""
    network, read_ones = reading.model.network, texts(reading, request)
    traces = alone(reading, read_ones)
    batch = Batch(network, [tokens.ids for tokens in read_ones], "left" if request.broken else request.padding)
    sheet = min(request.sheet, len(read_ones) - 1)
    whole_BTM = batch.hidden_BTM if request.stage == "after the last layer" else network.embed(batch.ids_BT).detach()
    names = [["padding"] * batch.n_tokens for _ in read_ones]
    drawn_BTM = torch.full((len(read_ones), batch.n_tokens, min(N_FEATURES, reading.config.d_model)), torch.nan)
    for text, tokens in enumerate(read_ones):
        for place, token in zip(batch.places[text], tokens.tokens, strict=True):
            names[text][place] = token_label(token.bytes)
            drawn_BTM[text, place] = whole_BTM[text, place, : drawn_BTM.shape[2]].float().cpu()
    labels = [f"{place} {name}" for place, name in enumerate(names[sheet])]
    places = batch.places[sheet]
    alone_TT = traces[sheet].stage("weights", request.layer, [request.head])[0].cpu()
    together_TT = batch.weights(sheet, request.layer, request.head)
    own_TT = together_TT[places.start : places.stop, places.start : places.stop]
    q_BHTD, k_BGTD, v_BGTD = batch.heads[request.layer]
    attended = reading.block(request.layer).attention
    n_cells = batch.ids_BT.numel()
    return BatchesResult(
        cube=Cube(
            title=f"{request.stage}: {_shape(whole_BTM)}, its first {drawn_BTM.shape[2]} features",
            sheets=[f"text {text}" for text in range(len(read_ones))],
            rows=[[f"{place} {name}" for place, name in enumerate(sheet_names)] for sheet_names in names],
            columns=list(map(str, range(drawn_BTM.shape[2]))),
            values=[matrix(sheet_TM) for sheet_TM in drawn_BTM],
        ),
        weights=probabilities(f"weights of text {sheet} in the batch, padding and all", labels, labels, together_TT),
        difference=signed(
            f"less text {sheet} alone",
            [labels[place] for place in places],
            [labels[place] for place in places],
            own_TT - alone_TT,
            limit=0.1,
        ),
        facts=facts(
            "shapes, and what padding costs",
            {
                "ids (texts × tokens)": _shape(batch.ids_BT),
                "X (texts × tokens × features)": _shape(batch.hidden_BTM),
                "W of the queries, one for all texts": _shape(attended.query.weight),
                "Q, in heads": _shape(q_BHTD),
                "K, in heads": _shape(k_BGTD),
                "Kᵀ, its last two axes exchanged": _shape(k_BGTD.mT),
                "V, in heads": _shape(v_BGTD),
                "scores": _shape(q_BHTD[:, : k_BGTD.shape[1]] @ k_BGTD.mT, n_heads=q_BHTD.shape[1]),
                "cells that are padding": float(n_cells - sum(map(len, read_ones))),
                "share of the work that goes to padding": 1 - sum(map(len, read_ones)) / n_cells,
                "largest difference from reading each text alone": difference(batch, traces),
            },
        ),
        speed=Curves(
            title=f"ms a text of {N_TOKENS_TIMED} tokens, on {network.device}, median of a few rounds",
            x_axis="texts read together",
            lines=[
                Line(
                    name="ms a text",
                    x=list(map(float, N_TIMED)),
                    y=[*timed(network)] if request.timed else [None] * len(N_TIMED),
                )
            ],
        ),
    )


def _shape(array: Tensor, n_heads: int | None = None) -> str:
    shape = list(array.shape)
    if n_heads:
        shape[1] = n_heads  # heads that share keys are scored with the same ones
    return " × ".join(map(str, shape))


def alone(reading: Reading, read_ones: Sequence[Tokens]) -> list[Trace]:
    """Each text by itself; the first one has been read already."""
    return [reading.trace, *(read(reading.model.network, tokens.ids) for tokens in read_ones[1:])]


def difference(batch: Batch, traces: Sequence[Trace]) -> float:
    """Of texts in the batch from the same texts alone: the largest, over the largest number of their vectors."""
    found = []
    for text, trace in enumerate(traces):
        alone_TM = trace.hidden_TM.float().cpu()
        found.append(((batch.hidden(text) - alone_TM).abs().max() / alone_TM.abs().max()).item())
    return max(found)


def checks(reading: Reading, request: BatchesRequest) -> Iterator[Check]:
    """Texts of a batch do not know of each other: each is what it is alone, in whatever order."""
    network, read_ones, config = reading.model.network, texts(reading, request), reading.config
    ids = [tokens.ids for tokens in read_ones]
    alone_NM = torch.cat([trace.hidden_TM.float().cpu() for trace in alone(reading, read_ones)])
    batch = Batch(network, ids, "left" if request.broken else "right")
    together_NM = torch.cat([batch.hidden(text) for text in range(len(ids))])
    yield equal("read together, texts differ from themselves alone by", together_NM, alone_NM, reading.whole_pass)
    opposite = Batch(network, ids[::-1], "right")
    opposite_NM = torch.cat([opposite.hidden(text) for text in range(len(ids))][::-1])
    yield equal("in the opposite order, they differ by", opposite_NM, alone_NM, reading.whole_pass)
    wanted = (len(ids), config.n_heads, batch.n_tokens, config.d_head)
    wrong = sum(queries.shape != wanted for queries, _, _ in batch.heads)
    yield at_most(0, float(wrong), "layers whose queries are not (texts × heads × tokens × features)")


LESSON = Lesson(
    system=21,
    title="Batches",
    posts=(PART_11, chapter("3.5.4")),
    request_type=BatchesRequest,
    result_type=BatchesResult,
    compute=compute,
    checks=checks,
    breaks="fill short texts up on the left, and do not tell the model",
    code=("model/attention.py: Attention.forward", "app/engine.py: take_batch", "app/lessons/batches.py: Batch"),
)
