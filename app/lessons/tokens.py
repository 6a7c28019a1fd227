"""S09: a text becomes tokens: bytes, merged pair by pair as a vocabulary has learned it."""

from collections.abc import Iterator

from pydantic import Field

from app.lessons.checks import Check, at_most
from app.lessons.lesson import Lesson, LessonRequest, LessonResult, Reading
from app.lessons.panels import Chip, ChipRow, Chips, Facts, facts
from app.lessons.posts import PART_2, chapter
from app.schemas import Index
from model.tokenizer import Tokens, token_label


class TokensLessonRequest(LessonRequest):
    """A token to take apart, and how far it is merged."""

    prefix: bool = Field(False, title="Put a space before", description="the text begins with one more")
    chosen: Index | None = Field(
        1, title="Token", description="which one is put together from its bytes", json_schema_extra={"kind": "token"}
    )
    merged: float = Field(
        1.0,
        title="Merged so far",
        ge=0,
        le=1,
        description="0 are the bytes, 1 is the token",
        json_schema_extra={"step": 0.05, "playable": True},
    )


class TokensLessonResult(LessonResult):
    """The tokens, how one of them was merged, and what comes back."""

    token_chips: Chips = Field(description="every token with its id and its bytes")
    merges: Chips = Field(description="the chosen token, from its bytes on, a merge a row")
    facts: Facts


def read(reading: Reading, request: TokensLessonRequest) -> Tokens:
    """The tokens of the text, with a space before it where that is asked for."""
    return reading.model.tokenizer.encode(" " * request.prefix + request.text, special_tokens=request.special_tokens)


def compute(reading: Reading, request: TokensLessonRequest) -> TokensLessonResult:
    """The tokens, and the way to one of them."""
    found = read(reading, request)
    tokenizer = reading.model.tokenizer
    order = found.tokens[::-1] if request.broken else found.tokens
    token = found.tokens[min(reading.position(request.chosen), len(found) - 1)]
    rows = tokenizer.merge_steps(token.id)
    n_shown = 1 + round(request.merged * (len(rows) - 1))
    chips = [
        Chip(text=token_label(one.bytes), about=f"at {one.position}, id {one.id}, bytes {one.bytes.hex(' ')}")
        for one in order
    ]
    steps = [
        ChipRow(name="bytes" if not n else f"merge {n}", chips=[Chip(text=token_label(piece)) for piece in row])
        for n, row in enumerate(rows[:n_shown])
    ]
    n_bytes = len(request.text.encode()) + request.prefix
    return TokensLessonResult(
        token_chips=Chips(title=f"{len(found)} tokens", rows=[ChipRow(name="", chips=chips)]),
        merges=Chips(title=f"{token.position} {token_label(token.bytes)}, merged", rows=steps),
        facts=facts(
            "in numbers",
            {
                "characters": float(len(request.text) + request.prefix),
                "bytes": float(n_bytes),
                "tokens": float(len(found)),
                "bytes a token": n_bytes / len(found),
                "different tokens": float(len(set(found.ids))),
                "merges of the chosen one": float(len(rows) - 1),
                "merges that the tokenizer has learned": float(tokenizer.n_merges),
                "tokens in the vocabulary": float(reading.config.n_vocab),
                "text of the tokens": tokenizer.decode(tuple(token.id for token in order)),
            },
        ),
    )


def checks(reading: Reading, request: TokensLessonRequest) -> Iterator[Check]:
    """The tokens give the text back; the merges lead to them; every id is in the vocabulary."""
    found = read(reading, request)
    tokenizer = reading.model.tokenizer
    ids = found.ids[::-1] if request.broken else found.ids
    asked = " " * request.prefix + request.text
    added = tokenizer.prefix_space and not asked.startswith(" ")  # by the tokenizer itself
    kept = "".join(c for i, c in enumerate(asked) if not any(lost.start <= i < lost.end for lost in found.dropped))
    yield at_most(0, float(tokenizer.decode(ids) != " " * added + kept), "texts that do not come back from their ids")
    ends = [tokenizer.merge_steps(token.id)[-1] for token in found.tokens]
    wrong = sum(end != [token.bytes] for end, token in zip(ends, found.tokens, strict=True))
    yield at_most(0, float(wrong), "tokens that the merges do not lead to")
    yield at_most(reading.config.n_vocab - 1, float(max(found.ids)), "the largest id is")


LESSON = Lesson(
    system=9,
    title="Tokens",
    posts=(PART_2, chapter("2.2")),
    request_type=TokensLessonRequest,
    result_type=TokensLessonResult,
    compute=compute,
    checks=checks,
    breaks="put the tokens back together from the last to the first",
    code=("model/tokenizer.py: Tokenizer.encode", "model/tokenizer.py: Tokenizer.merges"),
)
