"""What crosses the wire: bounds, units, and where counting starts. Layers, heads and positions count from 0."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from model.trace import Stage


def _no_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError(f"character {text.index(chr(0))} of this text is a NUL, which no text holds; take it away")
    return text


Text = Annotated[
    str,
    AfterValidator(_no_nul),
    Field(description="what to read; at least one character, at most the model's `max_tokens`"),
]
Index = Annotated[int, Field(ge=0, le=1_000_000)]
Step = Annotated[
    int | None,
    Field(
        ge=0,
        le=2**53,
        description="a step of the model's training, from `GET /api/v1/models/{name}/checkpoints`; its end if left out",
    ),
]
Indices = Annotated[list[Index], Field(min_length=1, max_length=256, fail_fast=True)]
N_UNKNOWN = 10  # fields that are told one by one


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_extra={"examples": [{"text": "the fat cat"}]})

    @model_validator(mode="before")
    @classmethod
    def _refuse_many_at_once(cls, given: Any) -> Any:
        """An error for each of 90,000 unknown fields would keep every other request waiting for seconds."""
        unknown = given.keys() - cls.model_fields.keys() if isinstance(given, dict) else ()
        if len(unknown) > N_UNKNOWN:
            raise ValueError(f"{len(unknown):,} fields are unknown; the known ones are {', '.join(cls.model_fields)}")
        return given


class _Reply(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TokensRequest(_Request):
    """A text, and the model that is to read it."""

    text: Text
    model: str | None = Field(None, description="a name from `GET /api/v1/models`; the default model if left out")
    step: Step = None
    special_tokens: bool = Field(
        False, description="read names such as `<|im_start|>` as the special tokens they name, not as ordinary text"
    )


class AttentionRequest(TokensRequest):
    """Which heads to look at, and at which stage."""

    layers: Indices | None = Field(None, description="layers, in the order of the answer; all if left out")
    heads: Indices | None = Field(None, description="heads of each layer, in the order of the answer; all if left out")
    stage: Stage = Field("weights", description="`scores` q·k; `scaled` by √d_head; `masked`; `weights` after softmax")


class PredictionsRequest(TokensRequest):
    """How many next tokens, and where."""

    top: int = Field(10, ge=1, le=100, description="how many next tokens, the likeliest first")
    positions: Literal["last", "all"] = Field("last", description="after the last token, or after every one")


class PageRequest(TokensRequest):
    """What the page has on its screen."""

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
    """What the page has on its screen, for one answer."""

    overview: bool = Field(
        True, description="send what does not depend on the chosen head too: thumbnails of all heads, and the norms"
    )


class LiveRequest(PageRequest):
    """What the page has on its screen now, for the live channel."""

    seq: int = Field(ge=0, le=2**53, description="the number of this ask; a client counts up")


class ModelInfo(_Reply):
    """A model: its shape, where it comes from, and whether it can answer."""

    name: str
    family: Literal["gpt2", "llama"]
    n_layers: int
    n_heads: int = Field(description="query heads of each layer")
    n_kv_heads: int = Field(description="key and value heads of each layer, shared by the query heads")
    d_model: int = Field(description="features of the residual stream")
    d_head: int = Field(description="features of a query, a key, a value")
    n_vocab: int
    n_context: int = Field(description="the most tokens that the model can read at a time")
    max_tokens: int = Field(description="the most tokens that are read here: `n_context`, or less")
    max_tokens_from: Literal["n_context", "LOOKBACK_MAX_TOKENS"] = Field(
        description="what limits `max_tokens`: the model, or the setting of whoever runs the server"
    )
    n_parameters: int = Field(description="tied ones counted once")
    norm: Literal["layernorm", "rmsnorm"]
    positions: Literal["learned", "rotary"]
    tied: bool = Field(description="the unembedding is the embedding")
    about: str = Field(description="the model, the precision of its weights, and the numbers that it computes with")
    source: str = Field(description="where the weights come from")
    state: Literal["ready", "loading", "failed", "available", "not here"] = Field(
        description="`available`: the first request loads it; `not here`: its weights are not on this machine, and no "
        "request fetches them"
    )
    command: str | None = Field(description="what whoever runs this server types to bring it; `null` unless `not here`")
    default: bool
    device: str | None = Field(description="where it runs, `null` until it is ready")
    dtype: Literal["float32", "bfloat16"]


class ModelsReply(_Reply):
    models: list[ModelInfo]


class CurvePoint(_Reply):
    """The losses of a training run after some steps."""

    step: int
    n_tokens: int = Field(description="read so far")
    loss: float = Field(description="mean over the steps since the last point, in nats a token")
    held_out_loss: float = Field(description="on text that training never sees, in nats a token")
    bits_per_byte: float = Field(description="the same in bits, for each byte of that text")


class Patterns(_Reply):
    """What each head does, `[layer][head]`, as mean weights over random tokens that are said twice; 0 to 1."""

    previous: list[list[float]] = Field(description="from every token but the first to the one before it")
    first: list[list[float]] = Field(description="from every token but the first to the first")
    induction: list[list[float]] = Field(
        description="from every token of the second time to the one that followed it the first time"
    )


class Checkpoint(_Reply):
    """A model as it was at a step of its training."""

    step: int | None = Field(description="for the field `step` of other requests; `null` where nobody knows it")
    patterns: Patterns


class CheckpointsReply(_Reply):
    model: str
    checkpoints: list[Checkpoint] = Field(description="in the order of training; the last is the model as it is")
    curve: list[CurvePoint] = Field(description="empty where the model came without a record of its training")
    n_drills: int = Field(description="steps at the beginning that read no text, but tokens that repeat themselves")


class TokenInfo(_Reply):
    """A token; `start` and `end` count characters (Unicode code points) of the text."""

    position: int
    id: int
    text: str = Field(
        description="its bytes as a reader can see them: `·` is a space, `↵` a line end, `‹e2 80›` raw bytes"
    )
    bytes: str = Field(description="in hexadecimal")
    start: int
    end: int


class DroppedInfo(_Reply):
    """A character that the vocabulary cannot hold; the model does not see it."""

    start: int
    end: int
    text: str


class Timings(_Reply):
    """Where the time of this answer went."""

    queued_ms: float = Field(ge=0, description="waiting while others were read")
    computed_ms: float = Field(ge=0, description="reading the text and making this answer's numbers; less if kept")


class TokensReply(_Reply):
    model: str
    step: int | None = Field(description="of the model's training; `null` is its end")
    tokens: list[TokenInfo]
    dropped: list[DroppedInfo]


class AttentionReply(TokensReply):
    """The chosen stage of the chosen heads."""

    stage: Stage
    layers: list[int]
    heads: list[int]
    mask: list[list[bool]] = Field(description="`mask[query][key]`: true where the query may look")
    values: list[list[list[list[float | None]]]] = Field(
        description="`values[layer][head][query][key]`, in the order of `layers` and `heads`; a masked score is `null`"
    )
    timings: Timings


class NormStatistics(_Reply):
    """One norm, over all tokens: each list has an entry for every token. Variances are biased."""

    site: str = Field(examples=["layers.0.norm_1", "norm_final"])
    layer: int | None = Field(description="`null` for the final norm")
    kind: Literal["layernorm", "rmsnorm"]
    eps: float
    mean: list[float] = Field(description="of the features that the norm finds")
    variance: list[float]
    rms: list[float] = Field(description="root of the mean of squares")
    normalised_mean: list[float] = Field(description="after normalising, before gain and bias")
    normalised_variance: list[float]
    output_mean: list[float] = Field(description="after gain and bias")
    output_variance: list[float]


class NormsReply(TokensReply):
    norms: list[NormStatistics] = Field(description="2 · layers + 1 sites, in the order in which a token passes them")
    timings: Timings


class NextToken(_Reply):
    id: int
    text: str = Field(
        description="its bytes as a reader can see them; `(no token 50301)` for a row of the embedding that the "
        "tokenizer has no token for"
    )
    bytes: str = Field(description="in hexadecimal: tells tokens apart that look alike; empty where there is no token")
    logit: float
    probability: float = Field(description="over the whole vocabulary")


class Prediction(_Reply):
    """What the model expects after one token."""

    position: int
    top: list[NextToken]
    entropy_bits: float = Field(description="of the distribution over the whole vocabulary")
    surprisal_bits: float | None = Field(description="of the token that did come next; `null` after the last")


class PredictionsReply(TokensReply):
    predictions: list[Prediction]
    timings: Timings


class Problem(BaseModel):
    """What went wrong, as RFC 9457 (`application/problem+json`) has it."""

    type: str = Field(examples=["/problems/text-too-long"])
    title: str
    status: int
    detail: str = Field(description="a sentence with the numbers in it, and a way out")
