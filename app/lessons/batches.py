"""S21: several texts in one batch: one more axis, the same weights for all texts, and padding for short ones."""

# shapes: B texts, H heads, G key heads, T tokens of the longest text, D features of a head, M features of a token,
#         N tokens of all texts

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Literal
from weakref import WeakKeyDictionary

import torch
from pydantic import Field
from torch import Tensor, nn

from app.lessons.checks import Check, at_most, equal
from app.lessons.clock import forward_milliseconds, random_ids
from app.lessons.lesson import Lesson, LessonRequest, LessonResult, Reading
from app.lessons.panels import Cube, Curves, Facts, Heatmap, Line, facts, matrix, probabilities, shape_label, signed
from app.lessons.posts import PART_11, chapter
from app.schemas import Index, Text
from model import attention
from model.attention import Heads
from model.gpt import GPT
from model.reading import read
from model.tokenizer import Tokens, token_label
from model.trace import Trace

MAX_TEXT_TOKENS = 256
N_CUBE_FEATURES = 8
BATCH_SIZES = (1, 2, 4, 8)  # of the batches that are timed
N_TIMED_TOKENS = 16  # of each text in these

BatchVectors = Literal["token vectors", "after the last layer"]
PaddingSide = Literal["right", "left"]

_batch_ms: WeakKeyDictionary[GPT, list[float]] = WeakKeyDictionary()  # measured once per network


class BatchesRequest(LessonRequest):
    """Up to three more texts, and how they are put into one array."""

    second_text: Text = Field("my dog ran", title="Second text", description="adds this text", max_length=2000)
    third_text: Text = Field("", title="Third text", description="adds this text", max_length=2000)
    fourth_text: Text = Field("", title="Fourth text", description="adds this text", max_length=2000)
    padding: PaddingSide = Field("right", title="Padding", description="fills up short texts on this side")
    vectors: BatchVectors = Field(
        "after the last layer", title="Vectors", description="shows these vectors of all texts in one array"
    )
    layer: Index = Field(0, title="Layer")
    head: Index = Field(0, title="Head")
    text_index: int = Field(
        0, title="Text of the batch", ge=0, le=3, description="shows the weights of this text; the first is text 0"
    )
    timed: bool = Field(
        False, title="Time it", description="measures the times on this machine, once; later it shows the same ones"
    )


class BatchesResult(LessonResult):
    """The batch, the weights of one of its texts, and how these differ from those of the same text alone."""

    vectors: Cube = Field(description="the first features of every token of every text; padding is empty")
    weights: Heatmap = Field(description="of the chosen text in the batch")
    difference: Heatmap = Field(description="these weights minus those of the same text alone")
    batch_facts: Facts
    times: Curves = Field(description="milliseconds per text, over the number of texts in the batch")


class PaddedBatch:
    """Texts in one array, computed in one pass. Short texts are padded with token 0."""

    def __init__(self, network: GPT, texts: Sequence[Sequence[int]], padding: PaddingSide) -> None:
        self.config = network.config
        self.n_tokens = max(map(len, texts))
        self.positions = [
            range(len(ids)) if padding == "right" else range(self.n_tokens - len(ids), self.n_tokens) for ids in texts
        ]
        self.ids_BT = torch.zeros(len(texts), self.n_tokens, dtype=torch.long, device=network.device)
        for row, (ids, positions) in enumerate(zip(texts, self.positions, strict=True)):
            self.ids_BT[row, positions.start : positions.stop] = torch.tensor(ids)
        self.layers: list[tuple[Tensor, Tensor, Tensor]] = []  # queries, keys and values of each layer
        with torch.inference_mode(), ExitStack() as hooks:
            for module in network.modules():
                if isinstance(module, Heads):
                    hooks.enter_context(module.register_forward_hook(self._capture))
            self.hidden_BTM = network.hidden(self.ids_BT)

    def _capture(self, _module: nn.Module, inputs: tuple[Tensor, Tensor, Tensor, object], _output: Tensor) -> None:
        q_BHTD, k_BGTD, v_BGTD, _ = inputs
        self.layers.append((q_BHTD, k_BGTD, v_BGTD))

    def hidden(self, text: int) -> Tensor:
        """The vectors of one text after the last layer, without its padding; (T, M)."""
        positions = self.positions[text]
        return self.hidden_BTM[text, positions.start : positions.stop].float().cpu()

    def weights(self, text: int, layer: int, head: int) -> Tensor:
        """The attention weights of one head on one text with its padding, (T, T)."""
        q_BHTD, k_BGTD, _ = self.layers[layer]
        key_head = self.config.key_head(head)
        score_TT = attention.scores(q_BHTD[text, head].float(), k_BGTD[text, key_head].float())
        return attention.attention_weights(score_TT, q_BHTD.shape[-1]).cpu()


def batch_texts(reading: Reading, request: BatchesRequest) -> list[Tokens]:
    """The text of the page, and the texts that are added to it.

    Raises:
        TextTooLong, UnreadableText, NoKnownCharacters: if the model cannot read one of them.
    """
    added = filter(None, (request.second_text, request.third_text, request.fourth_text))
    tokens = [
        reading.model.tokens(text, special_tokens=request.special_tokens, n_max=MAX_TEXT_TOKENS) for text in added
    ]
    return [reading.tokens, *tokens]


def batch_milliseconds(network: GPT) -> list[float]:
    """The time per text in batches of BATCH_SIZES random texts, in ms; measured once."""
    if network not in _batch_ms:
        ids_BT = random_ids(network, max(BATCH_SIZES), N_TIMED_TOKENS)
        _batch_ms[network] = [forward_milliseconds(network, ids_BT[:n]) / n for n in BATCH_SIZES]
    return _batch_ms[network]


def compute(reading: Reading, request: BatchesRequest) -> BatchesResult:
    """All texts in one pass, and the attention weights of one of them beside those of the same text alone."""
    network, texts = reading.model.network, batch_texts(reading, request)
    traces = separate_traces(reading, texts)
    batch = PaddedBatch(network, [tokens.ids for tokens in texts], "left" if request.broken else request.padding)
    index = min(request.text_index, len(texts) - 1)
    positions, labels = batch.positions[index], _row_labels(batch, texts)[index]
    alone_TT = traces[index].stage("weights", request.layer, [request.head])[0].cpu()
    batch_TT = batch.weights(index, request.layer, request.head)
    own_labels = [labels[position] for position in positions]
    return BatchesResult(
        vectors=_vectors_panel(reading, request, batch, texts),
        weights=probabilities(
            f"Attention weights of text {index} in the batch, with its padding", labels, labels, batch_TT
        ),
        difference=signed(
            f"Difference to the weights of text {index} alone",
            own_labels,
            own_labels,
            batch_TT[positions.start : positions.stop, positions.start : positions.stop] - alone_TT,
            limit=0.1,
        ),
        batch_facts=_batch_facts(reading, request.layer, batch, traces),
        times=Curves(
            title=f"Milliseconds per text of {N_TIMED_TOKENS} tokens, on {network.device}, median of a few rounds",
            x_axis="texts in the batch",
            lines=[
                Line(
                    name="ms per text",
                    x=list(map(float, BATCH_SIZES)),
                    y=[*batch_milliseconds(network)] if request.timed else [None] * len(BATCH_SIZES),
                )
            ],
        ),
    )


def _row_labels(batch: PaddedBatch, texts: Sequence[Tokens]) -> list[list[str]]:
    """The label of every row of every text, padding included."""
    names = [["padding"] * batch.n_tokens for _ in texts]
    for text_names, positions, tokens in zip(names, batch.positions, texts, strict=True):
        text_names[positions.start : positions.stop] = [token_label(token.bytes) for token in tokens.tokens]
    return [[f"{position} {name}" for position, name in enumerate(text_names)] for text_names in names]


def _vectors_panel(reading: Reading, request: BatchesRequest, batch: PaddedBatch, texts: Sequence[Tokens]) -> Cube:
    """The first features of the chosen vectors of all texts; padding is empty."""
    is_last = request.vectors == "after the last layer"
    x_BTM = batch.hidden_BTM if is_last else reading.model.network.embed(batch.ids_BT).detach()
    n_features = min(N_CUBE_FEATURES, reading.config.d_model)
    shown_BTM = torch.full((len(texts), batch.n_tokens, n_features), torch.nan)
    for text, positions in enumerate(batch.positions):
        rows = slice(positions.start, positions.stop)
        shown_BTM[text, rows] = x_BTM[text, rows, :n_features].float().cpu()
    return Cube(
        title=f"{request.vectors.capitalize()}: {shape_label(x_BTM.shape)}, the first {n_features} features",
        sheets=[f"text {text}" for text in range(len(texts))],
        rows=_row_labels(batch, texts),
        columns=list(map(str, range(n_features))),
        values=[matrix(sheet_TM) for sheet_TM in shown_BTM],
    )


def _batch_facts(reading: Reading, layer: int, batch: PaddedBatch, traces: Sequence[Trace]) -> Facts:
    """The shapes of the arrays, how much of the batch is padding, and the difference to each text alone."""
    q_BHTD, k_BGTD, v_BGTD = batch.layers[layer]
    n_cells = batch.ids_BT.numel()
    n_tokens = sum(trace.n_tokens for trace in traces)
    return facts(
        "Shapes, and the cost of padding",
        {
            "ids (texts × tokens)": shape_label(batch.ids_BT.shape),
            "X (texts × tokens × features)": shape_label(batch.hidden_BTM.shape),
            "W_q, the same for all texts": shape_label(reading.block(layer).attention.query.weight.shape),
            "Q, split into heads": shape_label(q_BHTD.shape),
            "K, split into heads": shape_label(k_BGTD.shape),
            "Kᵀ, its last two axes exchanged": shape_label(k_BGTD.mT.shape),
            "V, split into heads": shape_label(v_BGTD.shape),
            "scores": shape_label((*q_BHTD.shape[:3], k_BGTD.shape[2])),
            "tokens of padding": float(n_cells - n_tokens),
            "fraction of the batch that is padding": 1 - n_tokens / n_cells,
            "largest relative difference to each text alone": largest_difference(batch, traces),
        },
    )


def separate_traces(reading: Reading, texts: Sequence[Tokens]) -> list[Trace]:
    """The trace of each text alone; that of the page's text is there already."""
    return [reading.trace, *(read(reading.model.network, tokens.ids) for tokens in texts[1:])]


def largest_difference(batch: PaddedBatch, traces: Sequence[Trace]) -> float:
    """The largest difference of a vector in the batch to the same text alone, relative to the text's largest number."""
    differences = []
    for text, trace in enumerate(traces):
        alone_TM = trace.hidden_TM.float().cpu()
        differences.append(((batch.hidden(text) - alone_TM).abs().max() / alone_TM.abs().max()).item())
    return max(differences)


def checks(reading: Reading, request: BatchesRequest) -> Iterator[Check]:
    """The texts of a batch do not affect each other: each has the same vectors as alone, in any order."""
    network, texts, config = reading.model.network, batch_texts(reading, request), reading.config
    ids = [tokens.ids for tokens in texts]
    alone_NM = torch.cat([trace.hidden_TM.float().cpu() for trace in separate_traces(reading, texts)])
    batch = PaddedBatch(network, ids, "left" if request.broken else "right")
    batch_NM = torch.cat([batch.hidden(text) for text in range(len(ids))])
    yield equal("each text in the batch has the same vectors as alone", batch_NM, alone_NM, reading.whole_pass)
    reverse = PaddedBatch(network, ids[::-1], "right")
    reverse_NM = torch.cat([reverse.hidden(text) for text in range(len(ids))][::-1])
    yield equal("in a batch in reverse order, it has them too", reverse_NM, alone_NM, reading.whole_pass)
    shape = (len(ids), config.n_heads, batch.n_tokens, config.d_head)
    n_wrong = sum(q_BHTD.shape != shape for q_BHTD, _, _ in batch.layers)
    yield at_most(0, float(n_wrong), "queries are texts × heads × tokens × features in every layer (other layers)")


LESSON = Lesson(
    number=21,
    title="Batches",
    posts=(PART_11, chapter("3.5.4")),
    request_type=BatchesRequest,
    result_type=BatchesResult,
    compute=compute,
    checks=checks,
    break_description="pad short texts on the left, without a mask for the padding",
    code_references=(
        "model/attention.py: Attention.forward",
        "app/engine.py: take_batch",
        "app/lessons/batches.py: PaddedBatch",
    ),
)
