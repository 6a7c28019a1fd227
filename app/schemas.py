"""Requests and replies of the JSON API, with their limits and units. Layers, heads and positions count from 0.

Without torch: what imports this file starts fast.
"""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from model.sites import Stage

N_POSITIONS = 16_384  # of one request
N_EDITS_CHARACTERS = 8_000  # of the edits of a request


def _no_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError(f"character {text.index(chr(0))} of this text is a NUL, which no text contains; remove it")
    return text


Text = Annotated[
    str,
    AfterValidator(_no_nul),
    Field(
        description="the text to read: at least one character, at most the model's `max_tokens`; or give `ids` instead"
    ),
]
Index = Annotated[int, Field(ge=0, le=1_000_000)]
Step = Annotated[
    int | None,
    Field(
        ge=0,
        le=2**53,
        description="a training step of the model, from `GET /api/v2/models/{name}/checkpoints`; the last if left out",
    ),
]
Indices = Annotated[list[Index], Field(min_length=1, max_length=256, fail_fast=True)]
Positions = Annotated[
    list[Index] | None,
    Field(
        min_length=1,
        max_length=N_POSITIONS,
        fail_fast=True,
        description="positions of tokens, in the order of the reply; all if left out",
    ),
]
IdList = Annotated[
    list[Index] | None,
    Field(
        min_length=1,
        max_length=1_000_000,
        fail_fast=True,
        description="the ids of the tokens to read, instead of `text`. They need not spell whole characters, and an id "
        "of a special token is that token",
    ),
]
LogitIds = Annotated[list[Index], Field(min_length=1, max_length=16_384, fail_fast=True)] | None
ActivationSite = Literal["embedding", "queries", "keys", "values", "context", "attention", "mlp", "block"]
HEAD_SITES: tuple[ActivationSite, ...] = ("queries", "keys", "values", "context")  # one vector per head
EditsText = Annotated[
    str,
    Field(
        max_length=N_EDITS_CHARACTERS,
        description="what is changed while the model reads, as the section *Edits* at the top says; empty for nothing",
        examples=["scale:3.5:0,cut:11.7:2>1"],
    ),
    AfterValidator(_no_nul),
]
DirectionName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]*$", max_length=64)]
Direction = Annotated[list[FiniteFloat], Field(min_length=1, max_length=65_536, fail_fast=True)]
N_UNKNOWN = 10  # unknown fields that are reported one by one


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_extra={"examples": [{"text": "the fat cat"}]})

    @model_validator(mode="before")
    @classmethod
    def _refuse_many_unknown(cls, data: object) -> object:
        """One error for each of 90,000 unknown fields would make every other request wait for seconds."""
        unknown = data.keys() - cls.model_fields.keys() if isinstance(data, dict) else ()
        if len(unknown) > N_UNKNOWN:
            raise ValueError(f"{len(unknown):,} fields are unknown; the known ones are {', '.join(cls.model_fields)}")
        return data


class _Reply(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TokensRequest(_Request):
    """A text or its token ids, the model that reads it, and what is changed while it does."""

    text: Text = ""
    ids: IdList = None
    model: str | None = Field(None, description="a name from `GET /api/v1/models`; the default model if left out")
    step: Step = None
    special_tokens: bool = Field(
        False, description="read names such as `<|im_start|>` as the special tokens they name, not as ordinary text"
    )
    edits: EditsText = ""
    directions: dict[DirectionName, Direction] = Field(
        {},
        max_length=16,
        description="the directions that `steer` names, each with `d_model` numbers",
    )

    @model_validator(mode="after")
    def _text_or_ids(self) -> Self:
        if self.ids is None and "text" not in self.model_fields_set:
            raise ValueError("there is no text: this request needs `text` or `ids`")
        if self.ids is not None and "text" in self.model_fields_set:
            raise ValueError("`text` and `ids` are two ways to give a text; leave one of them out")
        return self


class AttentionRequest(TokensRequest):
    """A text, and which heads and stage of attention to return."""

    layers: Indices | None = Field(None, description="layers, in the order of the reply; all if left out")
    heads: Indices | None = Field(None, description="heads of each layer, in the order of the reply; all if left out")
    stage: Stage = Field(
        "weights",
        description="`scores`: q·k; `scaled`: divided by √d_head; `masked`: −∞ (`null` in JSON) for later tokens; "
        "`weights`: after softmax, 0 for later tokens",
    )


class PredictionsRequest(TokensRequest):
    """How many next tokens, and after which positions."""

    top: int = Field(10, ge=1, le=100, description="how many next tokens, the likeliest first")
    positions: Literal["last", "all"] = Field("last", description="after the last token, or after every one")


class ActivationsRequest(TokensRequest):
    """Which vectors of a pass to return: a site, and which layers, heads and positions."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"text": "the fat cat", "site": "block", "layers": [3]}]})

    site: ActivationSite = Field(
        description="`embedding`: the residual stream before the first layer; `queries`, `keys` (both after "
        "rotation), `values`, `context` (before the output projection): one vector per head; `attention`, `mlp`: what "
        "these add to the residual stream; `block`: the residual stream after a layer"
    )
    layers: Indices | None = Field(
        None, description="layers, in the order of the reply; all if left out. The embedding has none"
    )
    heads: Indices | None = Field(
        None,
        description="heads of each layer, in the order of the reply; all if left out. For `keys` and `values` they are "
        "key heads, from 0 to `n_kv_heads` - 1. Only the sites with one vector per head have them",
    )
    positions: Positions = None

    @model_validator(mode="after")
    def _has_layers_and_heads(self) -> Self:
        if self.site == "embedding" and self.layers is not None:
            raise ValueError("the embedding has no layers; leave `layers` out")
        if self.site not in HEAD_SITES and self.heads is not None:
            raise ValueError(f"{self.site} has no heads; leave `heads` out, or choose {', '.join(HEAD_SITES)}")
        return self


class LogitsRequest(TokensRequest):
    """The logits of which next tokens to return, and after which positions."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"text": "the fat cat", "tokens": [" sat", " is"]}]})

    token_ids: LogitIds = Field(
        None, description="the next tokens, in the order of the reply; all if this and `tokens` are left out"
    )
    tokens: Annotated[list[Text], Field(min_length=1, max_length=256)] | None = Field(
        None,
        description="the next tokens as texts, instead of `token_ids`; each must be exactly one token, such as ` mat`",
    )
    positions: Positions = None

    @model_validator(mode="after")
    def _ids_or_texts(self) -> Self:
        if self.token_ids is not None and self.tokens is not None:
            raise ValueError("`token_ids` and `tokens` are two ways to choose next tokens; leave one of them out")
        return self


class PageRequest(TokensRequest):
    """What the page shows: the chosen head, its stage, and the chosen query."""

    layer: Index = 0
    head: Index = 0
    query: Index | None = Field(
        None, description="the token whose next-token predictions are shown; the last if left out"
    )
    stage: Stage = "weights"
    window: tuple[Index, Index, Index, Index] | None = Field(
        None, description="the part of the head that is shown, `[top, bottom, left, right]` in tokens; all if left out"
    )


class ViewRequest(PageRequest):
    """What the page shows, in one reply."""

    overview: bool = Field(
        True, description="also send what does not depend on the chosen head: thumbnails of all heads, and the norms"
    )


class LiveRequest(PageRequest):
    """What the page shows now, for the live channel."""

    seq: int = Field(ge=0, le=2**53, description="the number of this request; the client counts up")


class ModelInfo(_Reply):
    """A model: its shape, where it comes from, and whether it is ready."""

    name: str = Field(description="for the field `model` of requests")
    family: Literal["gpt2", "llama"] = Field(description="the architecture")
    n_layers: int
    n_heads: int = Field(description="query heads of each layer")
    n_kv_heads: int = Field(description="key and value heads of each layer, shared by the query heads")
    d_model: int = Field(description="features of the residual stream")
    d_head: int = Field(description="features of a query, a key, a value")
    n_vocab: int = Field(description="rows of the token embedding")
    n_context: int = Field(description="the longest text that the model can read, in tokens")
    max_tokens: int = Field(description="the longest text that this server reads, in tokens: `n_context` or less")
    max_tokens_from: Literal["n_context", "LOOKBACK_MAX_TOKENS"] = Field(
        description="what limits `max_tokens`: the model, or a setting of this server"
    )
    n_parameters: int = Field(description="a matrix that is used twice is counted once")
    norm: Literal["layernorm", "rmsnorm"] = Field(description="the kind of all its norms")
    positions: Literal["learned", "rotary"] = Field(description="learned vectors, or rotated queries and keys")
    tied: bool = Field(description="whether the unembedding is the same matrix as the embedding")
    about: str = Field(description="the model, the precision of its weights, and the dtype of the computation")
    source: str = Field(description="where the weights come from")
    state: Literal["ready", "loading", "failed", "available", "not here"] = Field(
        description="`available`: the first request loads it; `not here`: its weights are not on this machine, and no "
        "request fetches them"
    )
    command: str | None = Field(description="the command with which the operator fetches it; `null` unless `not here`")
    default: bool = Field(description="whether it is used if a request names no model")
    device: str | None = Field(description="where it runs; `null` until it is ready")
    dtype: Literal["float32", "bfloat16"] = Field(description="of the computation")


class ModelsReply(_Reply):
    """All models."""

    models: list[ModelInfo]


class CurvePoint(_Reply):
    """The losses of a training run at one step."""

    step: int
    n_tokens: int = Field(description="read until then")
    loss: float = Field(description="mean over the steps since the last point, in nats per token")
    held_out_loss: float = Field(description="on text that is not used for training, in nats per token")
    bits_per_byte: float = Field(description="the held-out loss in bits per byte of text")


class Patterns(_Reply):
    """What each head does, `[layer][head]`, as mean weights over random tokens that are repeated once; 0 to 1."""

    previous: list[list[float]] = Field(description="from every token but the first to the one before it")
    first: list[list[float]] = Field(description="from every token but the first to the first")
    induction: list[list[float]] = Field(
        description="from every repeated token to the one that followed it the first time"
    )


class Checkpoint(_Reply):
    """A model at one step of its training."""

    step: int | None = Field(description="for the field `step` of other requests; `null` if it is unknown")
    patterns: Patterns


class CheckpointsReply(_Reply):
    """A model through its training."""

    model: str
    checkpoints: list[Checkpoint] = Field(description="in the order of training; the last is the finished model")
    curve: list[CurvePoint] = Field(description="empty if the model came without a record of its training")
    n_curriculum_steps: int = Field(description="steps at the beginning with repeated random tokens instead of text")


class TokenInfo(_Reply):
    """A token; `start` and `end` count characters (Unicode code points) of the text.

    A token that is part of a character covers all of it, so neighbours may overlap.
    """

    position: int
    id: int
    text: str = Field(description="its bytes made visible: `·` is a space, `↵` a line end, `‹e2 80›` raw bytes")
    bytes: str = Field(description="in hexadecimal")
    start: int
    end: int


class DroppedInfo(_Reply):
    """A character that is not in the vocabulary; the model does not see it."""

    start: int
    end: int
    text: str


class Timings(_Reply):
    """Where the time went."""

    queued_ms: float = Field(ge=0, description="waiting while other texts were read")
    computed_ms: float = Field(
        ge=0, description="reading the text and computing this reply; shorter if the text was cached"
    )


class TokensReply(_Reply):
    """The tokens of a text."""

    model: str
    step: int | None = Field(description="training step; `null` is the finished model")
    edits: str = Field(description="what was changed, in its canonical form; empty if nothing was")
    text: str | None = Field(
        description="the text that the `ids` of the request spell, of which `start` and `end` count the characters; "
        "bytes that are no whole character are U+FFFD. `null` if the request has a `text`"
    )
    tokens: list[TokenInfo]
    dropped: list[DroppedInfo]


class AttentionReply(TokensReply):
    """The chosen stage of the chosen heads."""

    stage: Stage
    layers: list[int]
    heads: list[int]
    mask: list[list[bool]] = Field(
        description="the causal mask, `mask[query][key]`: true where the query may attend to the key. Edits may close "
        "further cells of a head, or open all of them"
    )
    values: list[list[list[list[float | None]]]] = Field(
        description="`values[layer][head][query][key]`, in the order of `layers` and `heads`; a score of −∞, which the "
        "mask or a cut has closed, is `null`"
    )
    timings: Timings


class ActivationsReply(TokensReply):
    """The vectors of one site."""

    site: ActivationSite
    layers: list[int] | None = Field(description="`null` for the embedding")
    heads: list[int] | None = Field(description="`null` for a site without heads")
    positions: list[int]
    axes: list[str] = Field(
        description="what each axis of `values` counts", examples=[["layer", "position", "feature"]]
    )
    shape: list[int] = Field(description="the length of each axis of `values`")
    values: list[list[float]] | list[list[list[float]]] | list[list[list[list[float]]]] = Field(
        description="float32 numbers, one level of lists per axis"
    )
    timings: Timings


class LogitsReply(TokensReply):
    """The logits of some next tokens."""

    token_ids: list[int] | None = Field(description="the next tokens; `null` for all, in the order of their ids")
    positions: list[int]
    axes: list[str] = Field(description="what each axis of `values` counts: position, next token")
    shape: list[int] = Field(description="the length of each axis of `values`")
    values: list[list[float]] = Field(description="`values[position][token]`, the logits, in float32")
    timings: Timings


class NormStatistics(_Reply):
    """One norm: each list has one number per token. Variances are biased (divided by the number of features)."""

    site: str = Field(description="which norm", examples=["layers.0.norm_1", "norm_final"])
    layer: int | None = Field(description="`null` for the final norm")
    kind: Literal["layernorm", "rmsnorm"]
    eps: float = Field(description="added to the variance or mean square before the root")
    mean: list[float] = Field(description="of the features before the norm")
    variance: list[float] = Field(description="of the features before the norm")
    rms: list[float] = Field(description="root of the mean of squares")
    normalised_mean: list[float] = Field(description="after normalising, before gain and bias")
    normalised_variance: list[float] = Field(description="after normalising, before gain and bias")
    output_mean: list[float] = Field(description="after gain and bias")
    output_variance: list[float] = Field(description="after gain and bias")


class NormsReply(TokensReply):
    """The statistics of every norm."""

    norms: list[NormStatistics] = Field(description="2 · layers + 1 norms, in the order of the forward pass")
    timings: Timings


class NextToken(_Reply):
    """A possible next token."""

    id: int
    text: str = Field(
        description="its bytes made visible; `(no token 50301)` for a row of the embedding without a token"
    )
    bytes: str = Field(description="in hexadecimal; empty if there is no token")
    logit: float
    probability: float = Field(description="over the whole vocabulary")


class Prediction(_Reply):
    """The next-token distribution after one token."""

    position: int
    top: list[NextToken]
    entropy_bits: float = Field(description="of the distribution over the whole vocabulary")
    surprisal_bits: float | None = Field(description="of the token that comes next in the text; `null` after the last")


class PredictionsReply(TokensReply):
    """Next-token predictions."""

    predictions: list[Prediction]
    timings: Timings


class Problem(BaseModel):
    """An error in the format of RFC 9457 (`application/problem+json`)."""

    type: str = Field(examples=["/problems/text-too-long"])
    title: str
    status: int
    detail: str = Field(description="what is wrong and what to do next")
