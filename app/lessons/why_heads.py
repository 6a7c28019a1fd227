"""S24: why attention works: a head matches what one token asks for with what another one is, and does no more."""

# shapes: T tokens, H heads, L layers, D features of a head, P patterns, K = 2 features of a made-up head

import math
from collections.abc import Iterator, Sequence
from typing import Annotated

import torch
from pydantic import Field
from pydantic.config import JsonDict
from torch import Tensor

from app.lessons.checks import Arithmetic, Check, at_least, at_most, does_not_apply, equal
from app.lessons.lesson import Lesson, LessonRequest, LessonResult, Reading
from app.lessons.panels import Bars, Chip, ChipRow, Chips, Facts, Heatmap, Point, Points, facts, numbers, probabilities
from app.lessons.posts import PART_13, chapter
from app.schemas import Index
from model import attention
from model.heads import TEXT_PATTERNS, TextPattern, text_scores

ARTICLES, NOUNS = {"the", "a", "an"}, {"cat", "mat"}
KINDS = ("an article", "a noun")
LIMIT = 5.0
N_PLANE = 16  # tokens whose queries and keys are drawn; names of more would hide one another
N_PAIRS = 8
LEAST_RATIO = 1.5  # to a uniform look, for a head to be called by a pattern

Coordinate = Annotated[float, Field(ge=-LIMIT, le=LIMIT)]
Plane = Annotated[list[Coordinate], Field(min_length=2, max_length=2)]
DRAGGED: JsonDict = {"kind": "sliders", "limit": LIMIT, "names": ["article", "noun"]}


class WhyHeadsRequest(LessonRequest):
    """What a made-up head asks for and offers, a real head, and a pattern."""

    noun_query: Plane = Field(
        [1.0, 1.0], title="A noun asks for", description="its query: a column of W_q", json_schema_extra=DRAGGED
    )
    article_query: Plane = Field(
        [-1.0, 2.0], title="An article asks for", description="the other column", json_schema_extra=DRAGGED
    )
    noun_key: Plane = Field(
        [0.0, 3.0], title="A noun offers", description="its key: a column of W_k", json_schema_extra=DRAGGED
    )
    article_key: Plane = Field(
        [3.0, 0.0], title="An article offers", description="the other column", json_schema_extra=DRAGGED
    )
    ahead: bool = Field(False, title="Look ahead too", description="takes the causal mask off the made-up head")
    layer: Index = Field(0, title="Layer")
    head: Index = Field(0, title="Head")
    pattern: TextPattern = Field(
        "previous token", title="Pattern", description="what all heads of the model are asked for"
    )


class WhyHeadsResult(LessonResult):
    """The made-up head, a real one, and what all heads of the model do."""

    words: Chips = Field(description="what kind of word each token is taken for")
    plane: Points = Field(description="queries and keys of the made-up head")
    toy: Heatmap = Field(description="its weights")
    found: Facts = Field(description="how much nouns look at articles, and articles at nouns")
    weights: Heatmap = Field(description="of the real head")
    space: Points = Field(description="its first queries and keys, in the plane that keeps most of their lengths")
    pairs: Bars = Field(description="pairs of tokens with the highest mean score")
    everywhere: Heatmap = Field(description="how far each head of the model does the chosen pattern")
    layer_heads: Heatmap = Field(description="how far each head of the layer does each pattern")
    labels: Chips = Field(
        description="the pattern that each head of the layer does most, where it clearly beats a uniform look"
    )
    marks: Facts = Field(description="of the chosen head, each beside what a uniform look would have")


def kinds(reading: Reading) -> list[int | None]:
    """What each token is in the made-up head: a place in KINDS, or neither."""
    words = [token.bytes.decode(errors="replace").strip().lower() for token in reading.tokens.tokens]
    return [0 if word in ARTICLES else 1 if word in NOUNS else None for word in words]


def toy_weights(reading: Reading, request: WhyHeadsRequest) -> Tensor:
    """The weights of the made-up head, (T, T): tokens of neither kind have the query and the key 0."""
    x_TK = torch.zeros(len(reading.tokens), 2)  # (1, 0) is an article, (0, 1) a noun
    for place, kind in enumerate(kinds(reading)):
        if kind is not None:
            x_TK[place, kind] = 1
    w_q_KK = torch.tensor([request.article_query, request.noun_query]).T
    w_k_KK = torch.tensor([request.article_key, request.noun_key]).T
    score_TT = attention.scaled(attention.scores(x_TK @ w_q_KK.T, x_TK @ w_k_KK.T), 2)
    return attention.weights(score_TT if request.ahead else attention.masked(score_TT))


def given(weight_TT: Tensor, from_T: Tensor, to_T: Tensor) -> float:
    """How much tokens of one kind give those of another, on average; no number where there is none."""
    return weight_TT[from_T][:, to_T].sum(-1).mean().item()


def uniform(n_tokens: int, *, ahead: bool = False) -> Tensor:
    """The weights of a head that looks at everything it may see alike, (T, T)."""
    seen_TT = torch.ones(n_tokens, n_tokens)
    seen_TT = seen_TT if ahead else seen_TT.tril()
    return seen_TT / seen_TT.sum(-1, keepdim=True)


def pattern_scores(weight_HTT: Tensor, ids: Sequence[int], *, broken: bool = False) -> Tensor:
    """The score of some heads for each of TEXT_PATTERNS, (H, P); broken, the next token counts as the previous one."""
    score_HP = text_scores(weight_HTT, ids)
    if broken:
        score_HP[:, TEXT_PATTERNS.index("previous token")] = weight_HTT.diagonal(1, 1, 2).mean(-1)
    return score_HP


def every_head(reading: Reading, request: WhyHeadsRequest) -> Tensor:
    """The same of all heads of the model, (L, H, P)."""
    heads = range(reading.config.n_heads)
    layers = (reading.trace.stage("weights", layer, heads).cpu() for layer in range(reading.config.n_layers))
    return torch.stack([pattern_scores(weight_HTT, reading.tokens.ids, broken=request.broken) for weight_HTT in layers])


def queries_and_keys(reading: Reading, request: WhyHeadsRequest) -> tuple[Tensor, Tensor]:
    """Of the real head, as it uses them; (T, D) each."""
    layer, heads = request.layer, [request.head]
    return reading.trace.queries(layer, heads)[0].cpu(), reading.trace.keys(layer, heads)[0].cpu()


def space(reading: Reading, request: WhyHeadsRequest) -> Points:
    """The first queries and keys of the real head in one plane through 0: the one that keeps most of their lengths.

    The keys' mean is taken from each: it adds the same to every score of a query, which changes no weight.
    """
    q_TD, k_TD = (x_TD[:N_PLANE] for x_TD in queries_and_keys(reading, request))
    both_XD = torch.cat((q_TD, k_TD - k_TD.mean(0)))
    _, length_D, axis_DD = torch.linalg.svd(both_XD, full_matrices=False)
    place_X2 = both_XD @ axis_DD[:2].T
    part_D = length_D.square() / length_D.square().sum().clamp_min(1e-12)
    names = [(group, name) for group in ("query", "key") for name in reading.token_labels[:N_PLANE]]
    return Points(
        title=f"queries, and keys less their mean: layer {request.layer}, head {request.head}, {len(q_TD)} tokens",
        x_axis=f"{part_D[0]:.0%} of all squared lengths",
        y_axis=f"{part_D[1]:.0%}",
        points=[
            Point(name=name, group=group, x=x, y=y)
            for (group, name), (x, y) in zip(names, place_X2.tolist(), strict=True)
        ],
    )


def best_pairs(reading: Reading, request: WhyHeadsRequest) -> Bars:
    """The pairs of tokens, whatever their places, with the highest mean score, counted from the mean of its row."""
    score_TT = reading.trace.stage("scaled", request.layer, [request.head])[0].cpu()
    score_TT = score_TT - (score_TT * uniform(len(score_TT))).sum(-1, keepdim=True)
    ids_T = torch.tensor(reading.tokens.ids)
    query_N, key_N = torch.ones_like(score_TT).tril().nonzero().T
    pair_N2 = torch.stack((ids_T[query_N], ids_T[key_N]), dim=1)
    found_F2, of_N, count_F = torch.unique(pair_N2, dim=0, return_inverse=True, return_counts=True)
    mean_F = torch.zeros(len(found_F2)).index_add(0, of_N, score_TT[query_N, key_N]) / count_F
    best = mean_F.topk(min(N_PAIRS, len(mean_F)))
    label = reading.model.tokenizer.label
    names = [" → ".join(label(id) for id in found_F2[place].tolist()) for place in best.indices.tolist()]
    return Bars(
        title="highest scores, query → key, counted from the mean of the row", labels=names, values=numbers(best.values)
    )


def compute(reading: Reading, request: WhyHeadsRequest) -> WhyHeadsResult:
    """The made-up head on this text, a real one beside it, and every head by what it does."""
    token_labels, kind_of = reading.token_labels, kinds(reading)
    score_LHP = every_head(reading, request)
    even_P = text_scores(uniform(len(token_labels))[None], reading.tokens.ids)[0]
    heads = [f"head {head}" for head in range(reading.config.n_heads)]
    at = TEXT_PATTERNS.index(request.pattern)
    return WhyHeadsResult(
        words=Chips(
            title="kinds of words",
            rows=[
                ChipRow(
                    name="",
                    chips=[
                        Chip(text=piece, about="other" if kind is None else KINDS[kind].split()[-1])
                        for piece, kind in zip(token_labels, kind_of, strict=True)
                    ],
                )
            ],
        ),
        plane=Points(
            title="queries and keys of the made-up head: pull their tips",
            x_axis="article",
            y_axis="noun",
            points=[
                Point(name=name, group=group, x=values[0], y=values[1])
                for group, name, values in (
                    ("query", KINDS[1], request.noun_query),
                    ("query", KINDS[0], request.article_query),
                    ("key", KINDS[1], request.noun_key),
                    ("key", KINDS[0], request.article_key),
                )
            ],
            arrows=True,
            limit=LIMIT,
            draggable=["noun_query", "article_query", "noun_key", "article_key"],
        ),
        toy=probabilities("weights of the made-up head", token_labels, token_labels, toy_weights(reading, request)),
        found=_found(toy_weights(reading, request), kind_of, request),
        weights=probabilities(
            f"weights of layer {request.layer}, head {request.head}",
            token_labels,
            token_labels,
            reading.trace.stage("weights", request.layer, [request.head])[0],
        ),
        space=space(reading, request),
        pairs=best_pairs(reading, request),
        everywhere=probabilities(
            f"mean weight on: {request.pattern} ({len(score_LHP)} layers × {len(heads)} heads)",
            [f"layer {layer}" for layer in range(len(score_LHP))],
            heads,
            score_LHP[..., at],
            selects=("layer", "head"),
        ),
        layer_heads=probabilities(
            f"all patterns, layer {request.layer}", heads, TEXT_PATTERNS, score_LHP[request.layer], selects=("head", "")
        ),
        labels=Chips(
            title=f"what each head of layer {request.layer} does most",
            rows=[
                ChipRow(
                    name="",
                    chips=[
                        _label(name, score_P, even_P)
                        for name, score_P in zip(heads, score_LHP[request.layer], strict=True)
                    ],
                )
            ],
        ),
        marks=_marks(f"layer {request.layer}, head {request.head}", score_LHP[request.layer, request.head], even_P),
    )


def _found(weight_TT: Tensor, kind_of: Sequence[int | None], request: WhyHeadsRequest) -> Facts:
    article_T, noun_T = (torch.tensor([kind == one for kind in kind_of]) for one in (0, 1))
    even_TT = uniform(len(kind_of), ahead=request.ahead)
    return facts(
        "who finds whom, by mean weight",
        {
            "nouns give articles": given(weight_TT, noun_T, article_T),
            "nouns that look alike everywhere would": given(even_TT, noun_T, article_T),
            "articles give nouns": given(weight_TT, article_T, noun_T),
            "articles that look alike everywhere would": given(even_TT, article_T, noun_T),
        },
    )


def _label(name: str, score_P: Tensor, even_P: Tensor) -> Chip:
    best = int(score_P.nan_to_num(-1).argmax())
    times = (score_P[best] / even_P[best]).item()
    called = TEXT_PATTERNS[best] if times >= LEAST_RATIO else f"none; most is {TEXT_PATTERNS[best]}"
    return Chip(text=name, about=f"{called}, {score_P[best]:.2f} = {times:.1f} × uniform")


def _marks(title: str, score_P: Tensor, even_P: Tensor) -> Facts:
    said = [
        "nothing to measure" if math.isnan(score) else f"{score:.4f}; uniform {even:.4f}; ratio {score / even:.2f}"
        for score, even in zip(score_P.tolist(), even_P.tolist(), strict=True)
    ]
    return Facts(title=title, names=[*TEXT_PATTERNS], values=[*said])


def by_loop(pattern: TextPattern, weight: Sequence[Sequence[float]], ids: Sequence[int]) -> float:
    """What a head has of a pattern, weight by weight.

    >>> by_loop("previous token", [[1.0, 0.0], [0.25, 0.75]], [7, 8])
    0.25
    """
    found = []
    for i, row in enumerate(weight):
        twins = [row[j] for j in range(i) if ids[j] == ids[i]]
        if pattern == "previous token" and i > 0:
            found.append(row[i - 1])
        elif pattern == "current token":
            found.append(row[i])
        elif pattern == "first token" and i > 0:
            found.append(row[0])
        elif pattern == "same token before" and twins:
            found.append(sum(twins))
    return sum(found) / len(found) if found else math.nan


def drawn_weights(plane: Points, kind_of: Sequence[int | None], *, ahead: bool) -> Iterator[list[float]]:
    """Row by row, the softmax of the dot products of the arrows in a picture."""
    tips = {(point.group, point.name): (point.x, point.y) for point in plane.points}

    def tip(group: str, kind: int | None) -> tuple[float, float]:
        return (0.0, 0.0) if kind is None else tips[group, KINDS[kind]]

    for i, asking in enumerate(kind_of):
        x, y = tip("query", asking)
        keys = [tip("key", kind) for kind in (kind_of if ahead else kind_of[: i + 1])]
        powers = [math.exp((x * across + y * up) / math.sqrt(2)) for across, up in keys]
        yield [power / sum(powers) for power in powers] + [0.0] * (len(kind_of) - len(powers))


def checks(reading: Reading, request: WhyHeadsRequest) -> Iterator[Check]:
    """Scores of patterns are what loops over the weights find; the made-up head is a softmax of what is drawn."""
    shown = compute(reading, request)
    weight_HTT = reading.trace.stage("weights", request.layer, range(reading.config.n_heads)).cpu()
    score_LHP = every_head(reading, request)
    means = Arithmetic(n_terms=len(reading.tokens))
    for place, pattern in enumerate(TEXT_PATTERNS):
        looped_H = torch.tensor([by_loop(pattern, weight, reading.tokens.ids) for weight in weight_HTT.tolist()])
        name, score_H = (
            f"{pattern}: this layer's scores differ from those of a loop by",
            score_LHP[request.layer, :, place],
        )
        if looped_H.isnan().all() and score_H.isnan().all():
            yield does_not_apply(name, "this text has nothing to measure")
        else:
            yield equal(name, score_H, looped_H, means, 1.0)
    yield at_least(0, score_LHP.nan_to_num(0).min().item(), "the smallest score of any head is")
    yield at_most(1 + means.error(), score_LHP.nan_to_num(0).max().item(), "the largest score of any head is")
    toy_TT = torch.tensor(shown.toy.values)
    drawn_TT = torch.tensor(list(drawn_weights(shown.plane, kinds(reading), ahead=request.ahead)))
    name = "the made-up weights differ from a softmax of the arrows' products by"
    yield equal(name, toy_TT, drawn_TT, means, LIMIT**2)  # the largest score that arrows of this length have is 35
    for name, weight_TT in (("made-up", toy_TT), ("real", weight_HTT)):
        sums = weight_TT.sum(-1)
        yield equal(f"rows of {name} weights sum to 1, to within", sums, torch.ones_like(sums), means)


LESSON = Lesson(
    system=24,
    title="Heads are dumb",
    posts=(PART_13, chapter("3.4")),
    request_type=WhyHeadsRequest,
    result_type=WhyHeadsResult,
    compute=compute,
    checks=checks,
    breaks="count the next token instead of the previous one",
    code=("model/attention.py: scores", "model/heads.py: text_scores", "app/lessons/why_heads.py: toy_weights"),
)
