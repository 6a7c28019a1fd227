"""S21: several texts in one batch: one more axis, the same weights for all texts, and padding for short ones."""

# shapes: B texts, H heads, G key heads, T tokens of the longest text, D features of a head, M features of a token,
#         N tokens of all texts

from collections.abc import Generator, Iterator, Mapping
from functools import cached_property
from typing import Annotated, Literal

import torch
from torch import Tensor

from app.engine import Reading
from app.experiments.base import Lesson, PanelProgress, Work, panel
from app.experiments.checks import Check, at_most, equal
from app.experiments.controls import Choice, Controls, HeadOf, Layer, ShortText, Slider, Switch
from app.experiments.panels import Cube, Curves, Facts, Heatmap, Line, facts, matrix, probabilities, shape_label, signed
from app.lessons.clock import passes_milliseconds
from app.lessons.posts import PART_11, chapter
from app.schemas import Text
from model.tokenizer import Tokens, token_label
from model.trace import Trace

MAX_TEXT_TOKENS = 256
N_CUBE_FEATURES = 8
PADDING_ID = 0
BATCH_SIZES = (1, 2, 4, 8)  # of the batches that are timed
N_TIMED_TOKENS = 16  # of each text in these

BatchVectors = Literal["token vectors", "after the last layer"]
PaddingSide = Literal["right", "left"]


class BatchesControls(Controls):
    """Up to three more texts, and how they are put into one array."""

    second_text: Annotated[Text, ShortText("Second text", "adds this text")] = "my dog ran"
    third_text: Annotated[Text, ShortText("Third text", "adds this text")] = ""
    fourth_text: Annotated[Text, ShortText("Fourth text", "adds this text")] = ""
    padding: Annotated[PaddingSide, Choice("Padding", "fills up short texts on this side")] = "right"
    vectors: Annotated[BatchVectors, Choice("Vectors", "shows these vectors of all texts in one array")] = (
        "after the last layer"
    )
    layer: Annotated[int, Layer()] = 0
    head: Annotated[int, HeadOf()] = 0
    text_index: Annotated[
        int, Slider(0, 3, 1, "Text of the batch", "shows the weights of this text; the first is text 0")
    ] = 0
    timed: Annotated[
        bool, Switch("Time it", "measures the times on this machine, once; later it shows the same ones")
    ] = False


class BatchesWork(Work):
    """The batch, the weights of one of its texts, and how these differ from those of the same text alone.

    Each row of the batch is a reading of its own, padding included; the engine reads those of a round in one pass.
    """

    controls: BatchesControls

    @cached_property
    def texts(self) -> list[Tokens]:
        """The text of the page, and the texts that are added to it.

        Raises:
            TextTooLong, UnreadableText, NoKnownCharacters: if the model cannot read one of them.
        """
        controls = self.controls
        added = filter(None, (controls.second_text, controls.third_text, controls.fourth_text))
        special = controls.special_tokens
        read = [self.model.tokens(text, special_tokens=special, n_max=MAX_TEXT_TOKENS) for text in added]
        return [self.tokens, *read]

    @property
    def n_tokens(self) -> int:
        """The number of tokens of the longest text: the width of the batch."""
        return max(map(len, self.texts))

    @property
    def side(self) -> PaddingSide:
        """The side on which short texts are padded."""
        return "left" if self.controls.broken else self.controls.padding

    @property
    def checked_side(self) -> PaddingSide:
        """The side on which they are padded for the checks: on the right, padding must change nothing."""
        return "left" if self.controls.broken else "right"

    def padded(self, text: int, side: PaddingSide) -> tuple[int, ...]:
        """The ids of one row of the batch."""
        padding = (PADDING_ID,) * (self.n_tokens - len(self.texts[text]))
        ids = self.texts[text].ids
        return padding + ids if side == "left" else ids + padding

    def own(self, text: int, side: PaddingSide) -> slice:
        """Where a row of the batch has the text, not the padding."""
        n_before = self.n_tokens - len(self.texts[text]) if side == "left" else 0
        return slice(n_before, n_before + len(self.texts[text]))

    def readings(self) -> Iterator[Mapping[str, Reading]]:
        """All rows of the batch; then each added text, in a round of its own because it is to be read alone."""
        numbers = range(len(self.texts))
        yield {f"row {text}": Reading(self.padded(text, self.side), is_fresh=True) for text in numbers}
        for text in numbers[1:]:
            yield {f"alone {text}": Reading(self.texts[text].ids)}

    def check_readings(self) -> Iterator[Mapping[str, Reading]]:
        """The batches that are checked, whatever padding is shown: one in order, and one in reverse order."""
        numbers = range(len(self.texts))
        yield {f"in order {text}": Reading(self.padded(text, self.checked_side), is_fresh=True) for text in numbers}
        yield {f"reverse {text}": Reading(self.padded(text, "right"), is_fresh=True) for text in reversed(numbers)}

    def batch(self, name: str) -> list[Trace]:
        """The traces of the rows of one batch."""
        return [self.traces[f"{name} {text}"] for text in range(len(self.texts))]

    @property
    def alone(self) -> list[Trace]:
        """The traces of the texts, each without padding."""
        return [self.trace, *(self.traces[f"alone {text}"] for text in range(1, len(self.texts)))]

    @cached_property
    def row_labels(self) -> list[list[str]]:
        """The label of every row of every text, padding included."""
        names = []
        for text, tokens in enumerate(self.texts):
            row = ["padding"] * self.n_tokens
            row[self.own(text, self.side)] = [token_label(token.bytes) for token in tokens.tokens]
            names.append([f"{position} {name}" for position, name in enumerate(row)])
        return names

    @property
    def hidden_BTM(self) -> Tensor:
        """The vectors after the last layer, padding included."""
        return torch.stack([trace.hidden_TM for trace in self.batch("row")])

    @property
    def chosen(self) -> int:
        """The text whose weights are shown."""
        return min(self.controls.text_index, len(self.texts) - 1)

    @cached_property
    def weight_TT(self) -> Tensor:
        """The weights of the chosen head on the chosen text in the batch, with its padding."""
        trace = self.traces[f"row {self.chosen}"]
        return trace.stage("weights", self.controls.layer, [self.controls.head])[0].cpu()

    @panel
    def vectors(self) -> Cube:
        """The first features of every token of every text; padding is empty."""
        is_last = self.controls.vectors == "after the last layer"
        ids_BT = torch.tensor([self.padded(text, self.side) for text in range(len(self.texts))])
        x_BTM = self.hidden_BTM if is_last else self.network.embed.weight[ids_BT.to(self.network.device)].detach()
        n_features = min(N_CUBE_FEATURES, self.config.d_model)
        shown_BTM = torch.full((len(self.texts), self.n_tokens, n_features), torch.nan)
        for text in range(len(self.texts)):
            rows = self.own(text, self.side)
            shown_BTM[text, rows] = x_BTM[text, rows, :n_features].float().cpu()
        shape = f"{shape_label(x_BTM.shape)}, the first {n_features} features"
        return Cube(
            title=f"{self.controls.vectors.capitalize()}: {shape}",
            sheets=[f"text {text}" for text in range(len(self.texts))],
            rows=self.row_labels,
            columns=list(map(str, range(n_features))),
            values=[matrix(sheet_TM) for sheet_TM in shown_BTM],
        )

    @panel
    def weights(self) -> Heatmap:
        """The weights of the chosen text in the batch."""
        labels = self.row_labels[self.chosen]
        title = f"Attention weights of text {self.chosen} in the batch, with its padding"
        return probabilities(title, labels, labels, self.weight_TT)

    @panel
    def difference(self) -> Heatmap:
        """These weights minus those of the same text alone."""
        rows = self.own(self.chosen, self.side)
        alone_TT = self.alone[self.chosen].stage("weights", self.controls.layer, [self.controls.head])[0].cpu()
        labels = self.row_labels[self.chosen][rows]
        title = f"Difference to the weights of text {self.chosen} alone"
        return signed(title, labels, labels, self.weight_TT[rows, rows] - alone_TT, limit=0.1)

    @panel
    def batch_facts(self) -> Facts:
        """The shapes of the arrays, how much of the batch is padding, and the difference to each text alone."""
        config, n_texts = self.config, len(self.texts)
        split = (n_texts, config.n_heads, self.n_tokens, config.d_head)
        split_keys = (n_texts, config.n_kv_heads, self.n_tokens, config.d_head)
        n_cells, n_tokens = n_texts * self.n_tokens, sum(map(len, self.texts))
        return facts(
            "Shapes, and the cost of padding",
            {
                "ids (texts × tokens)": shape_label((n_texts, self.n_tokens)),
                "X (texts × tokens × features)": shape_label(self.hidden_BTM.shape),
                "W_q, the same for all texts": shape_label(
                    self.block(self.controls.layer).attention.query.weight.shape
                ),
                "Q, split into heads": shape_label(split),
                "K, split into heads": shape_label(split_keys),
                "Kᵀ, its last two axes exchanged": shape_label((*split_keys[:2], config.d_head, self.n_tokens)),
                "V, split into heads": shape_label(split_keys),
                "scores": shape_label((*split[:3], self.n_tokens)),
                "tokens of padding": float(n_cells - n_tokens),
                "fraction of the batch that is padding": 1 - n_tokens / n_cells,
                "largest relative difference to each text alone": self.largest_difference(),
            },
        )

    def largest_difference(self) -> float:
        """The largest difference of a vector to the same text alone, relative to the text's largest number."""
        rows = self.own_rows("row", self.side)
        alone = [trace.hidden_TM.float().cpu() for trace in self.alone]
        return max(((a - b).abs().max() / b.abs().max()).item() for a, b in zip(rows, alone, strict=True))

    def own_rows(self, name: str, side: PaddingSide) -> list[Tensor]:
        """The vectors of each text after the last layer, without its padding; (T, M) each."""
        return [trace.hidden_TM[self.own(text, side)].float().cpu() for text, trace in enumerate(self.batch(name))]

    @panel
    def times(self) -> Generator[PanelProgress, None, Curves]:
        """Milliseconds per text, over the number of texts in the batch."""
        times: list[float | None] = [None] * len(BATCH_SIZES)
        if self.controls.timed:
            shapes = tuple((n, N_TIMED_TOKENS) for n in BATCH_SIZES)
            measured = yield from passes_milliseconds(self.network, shapes)
            times = [ms and ms / n for ms, n in zip(measured, BATCH_SIZES, strict=True)]
        return Curves(
            title=f"Milliseconds per text of {N_TIMED_TOKENS} tokens, on {self.network.device}, median of a few rounds",
            x_axis="texts in the batch",
            lines=[Line(name="ms per text", x=list(map(float, BATCH_SIZES)), y=times)],
        )

    def checks(self) -> Iterator[Check]:
        """The texts of a batch do not affect each other: each has the same vectors as alone, in any order."""
        alone_NM = torch.cat([trace.hidden_TM.float().cpu() for trace in self.alone])
        in_order_NM = torch.cat(self.own_rows("in order", self.checked_side))
        name = "each text in the batch has the same vectors as alone"
        yield equal(name, in_order_NM, alone_NM, self.whole_pass)
        reverse_NM = torch.cat(self.own_rows("reverse", "right"))
        yield equal("in a batch in reverse order, it has them too", reverse_NM, alone_NM, self.whole_pass)
        config, batch = self.config, self.batch("in order")
        shape, heads = (len(batch), config.n_heads, self.n_tokens, config.d_head), range(config.n_heads)
        queries = (torch.stack([trace.queries(layer, heads) for trace in batch]) for layer in range(config.n_layers))
        n_wrong = sum(q_BHTD.shape != shape for q_BHTD in queries)
        name = "queries are texts × heads × tokens × features in every layer (other layers)"
        yield at_most(0, float(n_wrong), name)


EXPERIMENT = Lesson(
    number=21,
    title="Batches",
    posts=(PART_11, chapter("3.5.4")),
    work=BatchesWork,
    break_description="pad short texts on the left, without a mask for the padding",
    code_references=(
        "model/attention.py: Attention.forward",
        "model/reading.py: read_batch",
        "app/engine.py: split_budget",
        "app/lessons/batches.py: BatchesWork",
    ),
)
