"""S09: a text becomes tokens: its bytes are merged pair by pair, in the order that the tokenizer has learned."""

from collections.abc import Iterator

from pydantic import Field

from app.lessons.checks import Check, at_most
from app.lessons.lesson import Lesson, LessonRequest, LessonResult, Reading
from app.lessons.panels import Chip, ChipRow, Chips, Facts, facts
from app.lessons.posts import PART_2, chapter
from app.schemas import Index
from model.tokenizer import Token, Tokens, token_label


class TokensLessonRequest(LessonRequest):
    """A token, and how many of its merges are applied."""

    leading_space: bool = Field(
        False,
        title="Add a leading space",
        description="starts the text with a space, so that its first word becomes the token that it is inside a text",
    )
    token: Index | None = Field(
        1,
        title="Token",
        description="shows how this token is merged from its bytes",
        json_schema_extra={"kind": "token"},
    )
    merged: float = Field(
        1.0,
        title="Merges applied",
        ge=0,
        le=1,
        description="0 shows the bytes, 1 the whole token",
        json_schema_extra={"step": 0.05, "playable": True},
    )


class TokensLessonResult(LessonResult):
    """The tokens, the merges of one of them, and the text that they decode to."""

    token_chips: Chips = Field(description="every token with its id and its bytes")
    merges: Chips = Field(description="the chosen token: its bytes, then one row per merge")
    facts: Facts


def text_to_encode(request: TokensLessonRequest) -> str:
    """The text of a request, with a leading space if it has one."""
    return " " * request.leading_space + request.text


def encoded(reading: Reading, request: TokensLessonRequest) -> Tokens:
    """The tokens of the text, with its leading space if the request has one."""
    return reading.model.tokenizer.encode(text_to_encode(request), special_tokens=request.special_tokens)


def compute(reading: Reading, request: TokensLessonRequest) -> TokensLessonResult:
    """The tokens of the text, and the merges that make one of them."""
    tokens = encoded(reading, request)
    token = tokens.tokens[min(reading.position(request.token), len(tokens) - 1)]
    return TokensLessonResult(
        token_chips=Chips(
            title=f"Tokens of the text: {len(tokens)}",
            rows=[ChipRow(name="", chips=[_token_chip(token) for token in _ordered(tokens, request)])],
        ),
        merges=_merges(reading, token, request.merged),
        facts=_token_counts(reading, request, tokens, token),
    )


def _ordered(tokens: Tokens, request: TokensLessonRequest) -> tuple[Token, ...]:
    return tokens.tokens[::-1] if request.broken else tokens.tokens


def _token_chip(token: Token) -> Chip:
    return Chip(
        text=token_label(token.bytes), about=f"position {token.position}, id {token.id}, bytes {token.bytes.hex(' ')}"
    )


def _merges(reading: Reading, token: Token, merged: float) -> Chips:
    rows = reading.model.tokenizer.merge_steps(token.id)
    n_shown = 1 + round(merged * (len(rows) - 1))
    chip_rows = [
        ChipRow(name="bytes" if not n else f"merge {n}", chips=[Chip(text=token_label(piece)) for piece in row])
        for n, row in enumerate(rows[:n_shown])
    ]
    return Chips(title=f"Merges of the token {token.position} {token_label(token.bytes)}", rows=chip_rows)


def _token_counts(reading: Reading, request: TokensLessonRequest, tokens: Tokens, token: Token) -> Facts:
    tokenizer, text = reading.model.tokenizer, text_to_encode(request)
    n_bytes = len(text.encode())
    return facts(
        "Counts",
        {
            "characters": float(len(text)),
            "bytes": float(n_bytes),
            "tokens": float(len(tokens)),
            "bytes per token": n_bytes / len(tokens),
            "different tokens": float(len(set(tokens.ids))),
            "merges of the chosen token": float(len(tokenizer.merge_steps(token.id)) - 1),
            "merges that the tokenizer has learned": float(tokenizer.n_merges),
            "tokens in the vocabulary": float(reading.config.n_vocab),
            "decoded text": tokenizer.decode(tuple(token.id for token in _ordered(tokens, request))),
        },
    )


def checks(reading: Reading, request: TokensLessonRequest) -> Iterator[Check]:
    """The ids decode to the text, the merges lead to the tokens, and every id is in the vocabulary."""
    tokens, text = encoded(reading, request), text_to_encode(request)
    tokenizer = reading.model.tokenizer
    decoded = tokenizer.decode([token.id for token in _ordered(tokens, request)])
    added_space = " " * (tokenizer.prefix_space and not text.startswith(" "))  # by the tokenizer itself
    encodable = "".join(
        character
        for i, character in enumerate(text)
        if not any(dropped.start <= i < dropped.end for dropped in tokens.dropped)
    )
    yield at_most(0, float(decoded != added_space + encodable), "the ids decode to the text")
    last_rows = [tokenizer.merge_steps(token.id)[-1] for token in tokens.tokens]
    n_wrong = sum(row != [token.bytes] for row, token in zip(last_rows, tokens.tokens, strict=True))
    yield at_most(0, float(n_wrong), "the merges of every token lead to that token")
    yield at_most(reading.config.n_vocab - 1, float(max(tokens.ids)), "the largest id is in the vocabulary")


LESSON = Lesson(
    number=9,
    title="Tokens",
    posts=(PART_2, chapter("2.2")),
    request_type=TokensLessonRequest,
    result_type=TokensLessonResult,
    compute=compute,
    checks=checks,
    break_description="decode the tokens in reverse order",
    code_references=("model/tokenizer.py: Tokenizer.encode", "model/tokenizer.py: Tokenizer.merge_steps"),
)
