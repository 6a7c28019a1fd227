"""S22: many heads are one projection, cut: how the arrays are cut and joined, and what a layer loses without a head."""

# shapes: T queries, S keys, M features of a token, H query heads, D features of a head, X = H·D features of all heads,
#         I stretches of the input, V tokens of the vocabulary

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from app.lessons.checks import Arithmetic, Check, at_least, at_most, equal, largest, product_norms, product_scales
from app.lessons.lesson import Lesson, LessonRequest, LessonResult, Reading, parameters
from app.lessons.panels import Bars, Cube, Facts, Heatmap, facts, matrix, numbers, probabilities, signed
from app.lessons.posts import PART_12, chapter
from app.schemas import Index
from model import attention

Way = Literal["one matrix, cut", "a module a head"]
N_SHOWN = {"T": 8, "S": 8, "H": 4, "D": 4, "M": 16, "X": 16}  # of each axis of the array that is walked through
N_HEADS = 16  # side by side
N_NEXT = 5
N_STEPS = 10


class MultiHeadRequest(LessonRequest):
    """A layer, a way to get its heads, a step of that way, and heads to switch off."""

    layer: Index = Field(0, title="Layer")
    head: Index = Field(0, title="Head", description="the one that is shown whole")
    query: Index | None = Field(
        None,
        title="Query",
        description="the token that attends; by default the last",
        json_schema_extra={"kind": "token"},
    )
    way: Way = Field("one matrix, cut", title="Heads are", description="how their queries, keys and values are made")
    place: int = Field(
        3,
        title="Step",
        ge=0,
        le=N_STEPS - 1,
        description="of the array",
        json_schema_extra={"playable": True},
    )
    off: list[Index] = Field(
        [],
        title="Heads switched off",
        max_length=256,
        description="what they bring back is set to 0",
        json_schema_extra={"kind": "heads"},
    )


class MultiHeadResult(LessonResult):
    """All heads of a layer, how their arrays are cut and joined, and what is lost without some of them."""

    query_weights: Heatmap = Field(description="the weights of the chosen query, a row for each head")
    whole: Heatmap = Field(description="the weights of the chosen head")
    reads: Heatmap = Field(description="how long the weights are with which each head reads each stretch of the input")
    ways: Facts
    walk: Cube = Field(description="a corner of the array at the chosen step")
    array: Facts = Field(description="how the array lies in memory at the chosen step, and its shape at every step")
    next: Bars = Field(description="how the probabilities of a few next tokens change with heads off")
    moved: Bars = Field(description="how far the layer's output moves, over its length")
    effect: Facts


@dataclass(frozen=True)
class Step:
    """The array on its way: what was done last, its axes by their letters, its numbers."""

    name: str
    axes: str
    values: Tensor


@dataclass(frozen=True)
class Captured:
    """Of one run: what a layer's attention was given and what it added, (T, M), and the logits after the text, (V,)."""

    given_TM: Tensor
    added_TM: Tensor
    logits_V: Tensor


@torch.inference_mode()
def capture(reading: Reading, layer: int, off: Sequence[int] = ()) -> Captured:
    """The running network with some heads of a layer off: what they bring back is 0 before the output projection."""
    network, d_head = reading.model.network, reading.config.d_head
    part = reading.block(layer).attention
    given, added = list[Tensor](), list[Tensor]()

    def silence(_: nn.Module, joined: tuple[Tensor]) -> tuple[Tensor]:
        left_BTX = joined[0].clone()
        for head in off:
            left_BTX[..., head * d_head : (head + 1) * d_head] = 0
        return (left_BTX,)

    with (
        part.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0][0])),
        part.output.register_forward_pre_hook(silence),
        part.register_forward_hook(lambda _, __, output: added.append(output[0])),
    ):
        last_M = network.hidden(reading.ids_BT)[0, -1]
    return Captured(given[0], added[0], network.unembed(last_M).float().cpu())


def untouched(reading: Reading, layer: int) -> Captured:
    """The same with all heads on, of which the most has been read already."""
    logits_V = reading.next_logits_V
    return Captured(*reading.capture(layer, reading.block(layer).attention), logits_V)


@torch.inference_mode()
def walk(reading: Reading, layer: int, x_TM: Tensor, off: Sequence[int] = (), *, broken: bool = False) -> list[Step]:
    """From a layer's input to its output, with all heads in one array; where one is off, zeros are joined."""
    config, part = reading.config, reading.block(layer).attention
    n, n_heads, d_head = len(x_TM), config.n_heads, config.d_head
    rotate = reading.model.network.positions.rotation(torch.arange(n, device=x_TM.device))
    q_TX = part.query(x_TM)
    q_THD = q_TX.view(n, d_head, n_heads).transpose(1, 2) if broken else q_TX.view(n, n_heads, d_head)
    q_HTD = q_THD.transpose(0, 1)
    k_HSD, v_HSD = (
        linear(x_TM).view(n, -1, d_head).transpose(0, 1).repeat_interleave(n_heads // config.n_kv_heads, 0)
        for linear in (part.key, part.value)
    )
    score_HTS = attention.scores(rotate(q_HTD), rotate(k_HSD))
    weight_HTS = attention.weights(attention.masked(attention.scaled(score_HTS, d_head)))
    context_HTD = attention.context(weight_HTS, v_HSD)
    back_THD = context_HTD.transpose(0, 1)
    on_H1 = torch.tensor([[head not in off] for head in range(n_heads)], device=x_TM.device)
    joined_TX = (back_THD * on_H1 if off else back_THD).reshape(n, -1)
    return [
        Step("x, the input", "TM", x_TM),
        Step("queries of all heads", "TX", q_TX),
        Step("view", "THD", q_THD),
        Step("transpose", "HTD", q_HTD),
        Step("scores", "HTS", score_HTS),
        Step("weights", "HTS", weight_HTS),
        Step("context", "HTD", context_HTD),
        Step("transpose back", "THD", back_THD),
        Step("joined", "TX", joined_TX),
        Step("output", "TM", part.output(joined_TX)),
    ]


@torch.inference_mode()
def alone(reading: Reading, layer: int, x_TM: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """All heads, each a module of its own: queries, (H, T, D), weights, (H, T, S), context vectors, (H, T, D)."""
    config, part = reading.config, reading.block(layer).attention
    rotate = reading.model.network.positions.rotation(torch.arange(len(x_TM), device=x_TM.device))

    def own(linear: nn.Linear, place: int) -> Tensor:
        rows = slice(place * config.d_head, (place + 1) * config.d_head)
        return F.linear(x_TM, linear.weight[rows], None if linear.bias is None else linear.bias[rows])

    queries, weights, contexts = list[Tensor](), list[Tensor](), list[Tensor]()
    for head in range(config.n_heads):
        key_head = config.key_head(head)
        q_TD, k_SD, v_SD = own(part.query, head), own(part.key, key_head), own(part.value, key_head)
        score_TS = attention.scaled(attention.scores(rotate(q_TD), rotate(k_SD)), config.d_head)
        weight_TS = attention.weights(attention.masked(score_TS))
        queries.append(q_TD)
        weights.append(weight_TS)
        contexts.append(attention.context(weight_TS, v_SD))
    return torch.stack(queries), torch.stack(weights), torch.stack(contexts)


def block_lengths(reading: Reading, layer: int) -> tuple[Tensor, list[str], list[str]]:
    """How long each head's rows of W_q are over each stretch of the input, (H, I); names of both."""
    config = reading.config
    weight_XM = reading.block(layer).attention.query.weight.detach().float().cpu()
    weight_HDM = weight_XM.view(config.n_heads, config.d_head, config.d_model)
    chunks = torch.arange(config.d_model).tensor_split(config.n_heads)
    length_HI = torch.stack([weight_HDM[..., stretch].flatten(1).norm(dim=1) for stretch in chunks], dim=1)
    blocks = torch.arange(len(weight_XM)).tensor_split(config.n_heads)
    rows, columns = ([f"{one[0].item()}–{one[-1].item()}" for one in several] for several in (blocks, chunks))
    return length_HI, rows, columns


def corner(step: Step, reading: Reading, title: str) -> Cube:
    """The first few of each axis of an array; of several heads side by side, the first few features of each."""
    names = {
        "T": reading.token_labels,
        "H": [f"head {head}" for head in range(reading.config.n_heads)],
        "D": [f"feature {feature}" for feature in range(reading.config.d_head)],
        "M": [f"feature {feature}" for feature in range(reading.config.d_model)],
    }
    values, axes = step.values.float().cpu(), step.axes
    if axes == "TX":
        values = values.view(len(values), reading.config.n_heads, -1)[:, : N_SHOWN["H"], : N_SHOWN["D"]].flatten(1)
        names["X"] = [
            f"head {h} feature {d}"
            for h in range(N_SHOWN["H"])
            for d in range(min(N_SHOWN["D"], reading.config.d_head))
        ]
    names["S"] = names["T"]
    for axis, letter in enumerate(axes):
        values = values.narrow(axis, 0, min(N_SHOWN[letter], values.shape[axis]))
    sheets = names[axes[0]][: len(values)] if len(axes) == 3 else ["all"]
    values = values if len(axes) == 3 else values[None]
    return Cube(
        title=title,
        sheets=sheets,
        rows=[names[axes[-2]][: values.shape[1]] for _ in sheets],
        columns=names[axes[-1]][: values.shape[2]],
        values=[matrix(sheet) for sheet in values],
    )


def _shape(values: Tensor) -> str:
    return " × ".join(map(str, values.shape))


def array(steps: Sequence[Step], place: int) -> Facts:
    """How the array lies in memory at a step, and the shapes of all steps."""
    values, before = steps[place].values, steps[max(0, place - 1)].values
    is_same = place > 0 and values.untyped_storage().data_ptr() == before.untyped_storage().data_ptr()
    now = {
        "strides": ", ".join(map(str, values.stride())),
        "contiguous": "yes" if values.is_contiguous() else "no",
        "numbers": "where they were" if is_same else "new, or copied",
    }
    shapes = {f"{i}{' →' if i == place else ''} {step.name}": _shape(step.values) for i, step in enumerate(steps)}
    return facts(f"step {place} of {N_STEPS - 1}: {steps[place].name}", {**now, **shapes})


def compute(reading: Reading, request: MultiHeadRequest) -> MultiHeadResult:
    """The layer's heads by the chosen way, the array at the chosen step, the network with heads off."""
    query, token_labels, config = reading.position(request.query), reading.token_labels, reading.config
    captured = capture(reading, request.layer, request.off) if request.off else untouched(reading, request.layer)
    x_TM = captured.given_TM
    steps = walk(reading, request.layer, x_TM, request.off, broken=request.broken)
    shape = f"{config.n_heads} × {len(token_labels)}"
    cut_HTS, alone_HTS = steps[5].values, alone(reading, request.layer, x_TM)[1]
    is_cut = request.way == "one matrix, cut"
    weight_HTS = (cut_HTS if is_cut else alone_HTS).float().cpu()
    length_HI, blocks, chunks = block_lengths(reading, request.layer)
    width = config.n_heads * config.d_head
    matrices = f"1 of {width}" if is_cut else f"{config.n_heads} of {config.d_head}"
    next_tokens, effect = with_heads_off(reading, request, captured.logits_V)
    left_TM = steps[-1].values.float().cpu()
    whole_TM = walk(reading, request.layer, x_TM, broken=request.broken)[-1].values.float().cpu()
    return MultiHeadResult(
        query_weights=probabilities(
            f"layer {request.layer}: what {token_labels[query]} attends to, head by head ({shape})",
            [f"head {head}" for head in range(config.n_heads)][:N_HEADS],
            token_labels,
            weight_HTS[:N_HEADS, query],
            selects=("head", "query"),
        ),
        whole=probabilities(
            f"layer {request.layer}, head {request.head} ({len(token_labels)} × {len(token_labels)})",
            token_labels,
            token_labels,
            weight_HTS[request.head],
            selects=("query", ""),
        ),
        reads=signed(
            f"W_q of layer {request.layer} ({width} × {config.d_model}): each head's rows, over stretches of the input",
            blocks[:N_HEADS],
            chunks,
            length_HI[:N_HEADS],
        ),
        ways=facts(
            request.way,
            {
                "matrices for the queries": f"{matrices} × {config.d_model}",
                "heads for queries": config.n_heads,
                "heads for keys and values": config.n_kv_heads,
                "weights differ from the other way's by": (cut_HTS - alone_HTS).abs().max().item(),
            },
        ),
        walk=corner(
            steps[request.place],
            reading,
            f"{steps[request.place].name}: a corner of {_shape(steps[request.place].values)}",
        ),
        array=array(steps, request.place),
        next=next_tokens,
        moved=Bars(
            title=f"layer {request.layer}: how far its output moves, over its length",
            labels=token_labels,
            values=numbers((left_TM - whole_TM).norm(dim=1) / whole_TM.norm(dim=1).clamp_min(1e-12)),
            selects="query",
        ),
        effect=effect,
    )


def with_heads_off(reading: Reading, request: MultiHeadRequest, logits_V: Tensor) -> tuple[Bars, Facts]:
    """The next tokens whose probabilities change most; where no head is off, the likeliest ones."""
    whole_V = reading.next_logits_V
    before_V, after_V = whole_V.softmax(-1), logits_V.softmax(-1)
    change_V = after_V - before_V
    found = (change_V.abs() if request.off else before_V).topk(N_NEXT).indices
    off = ", ".join(map(str, sorted(set(request.off)))) or "none"

    def named(id: int) -> str:
        return reading.model.tokenizer.label(id)

    bars = Bars(
        title=f"change of probability of {N_NEXT} next tokens, {'most changed' if request.off else 'likeliest'} first",
        labels=[f"{place} {named(id)}" for place, id in enumerate(found.tolist())],
        values=numbers(change_V[found]),
    )
    best = {
        f"likeliest next token {when}": f"{named(int(share_V.argmax()))} ({share_V.max().item():.2%})"
        for when, share_V in (("before", before_V), ("now", after_V))
    }
    moved = {"largest change of a logit": (logits_V - whole_V).abs().max().item()}
    return bars, facts(f"layer {request.layer}, heads off: {off}", {**best, **moved})


@torch.inference_mode()
def checks(reading: Reading, request: MultiHeadRequest) -> Iterator[Check]:
    """Cut heads are separate heads and the model's; each reads the whole input; with none off nothing changes."""
    config, part = reading.config, reading.block(request.layer).attention
    captured = capture(reading, request.layer, request.off)
    x_TM = captured.given_TM
    steps = walk(reading, request.layer, x_TM, request.off, broken=request.broken)
    q_TX, context_HTD = steps[1].values, steps[6].values
    each = alone(reading, request.layer, x_TM)
    arithmetic = Arithmetic(n_terms=config.d_model + config.d_head, dtype=reading.dtype, n_roundings=4)
    weight_scale = reading.weight_scale(request.layer)
    context_scale = weight_scale * largest(each[2])
    query_scale = product_scales(x_TM.float().cpu(), *parameters(part.query), reading.dtype).max().item()
    for name, ours, theirs, scale in (
        ("queries", steps[3].values, each[0], query_scale),
        ("weights", steps[5].values, each[1], weight_scale),
        ("context vectors", context_HTD, each[2], context_scale),
    ):
        yield equal(f"{name}, cut, differ from separate heads' by", ours, theirs, arithmetic, scale)
    theirs_HTD = reading.trace.context(request.layer, range(config.n_heads))
    yield equal("context vectors differ from the model's by", context_HTD, theirs_HTD, arithmetic, context_scale)
    output_scale = product_norms(steps[8].values.float().cpu(), *parameters(part.output)).max().item()
    yield equal(
        "the output differs from what the running layer adds by",
        steps[-1].values,
        captured.added_TM,
        arithmetic,
        weight_scale * output_scale,
    )
    joined = theirs_HTD.shape[0] * theirs_HTD.shape[2]
    yield at_most(
        0, abs(joined - q_TX.shape[1]), f"heads × their width = {q_TX.shape[1]}, as wide as the queries, to within"
    )
    untouched_V = capture(reading, request.layer).logits_V
    yield equal("with no head off the logits move by", untouched_V, reading.next_logits_V, reading.whole_pass)
    x_TM, (weight_XM, _) = x_TM.float().cpu(), parameters(part.query)
    moved = list[float]()
    for stretch in torch.arange(config.d_model).tensor_split(config.n_heads):
        part_THD = (x_TM[:, stretch] @ weight_XM[:, stretch].T).view(-1, config.n_heads, config.d_head)
        moved.append((part_THD.norm(dim=(0, 2)) / q_TX.float().norm().cpu()).min().item())
    limit = Arithmetic(n_terms=config.d_model).error()
    yield at_least(
        limit, min(moved), "without a stretch of the input each head's queries move, relatively, at least by"
    )


LESSON = Lesson(
    system=22,
    title="Many heads",
    posts=(PART_12, chapter("3.6")),
    request_type=MultiHeadRequest,
    result_type=MultiHeadResult,
    compute=compute,
    checks=checks,
    breaks="cut the queries wrongly: give head h the features h, h + H, h + 2H, … instead of neighbours",
    code=("model/attention.py: Attention.forward, Attention._split", "app/lessons/multi_head.py: walk, alone"),
)
