"""Errors that a client can understand and fix, each with its HTTP status.

    AppError
    ├── InvalidText             422
    │   ├── EmptyText
    │   ├── TextTooLong
    │   ├── UnreadableText
    │   ├── NoKnownCharacters
    │   ├── NoSuchToken
    │   └── TextTooLongForEdits
    ├── InvalidEdits            422
    ├── NotOneToken             422
    ├── NoSuchHead              422
    ├── NoSuchPosition          422
    ├── NoSuchStep              422
    ├── NonFiniteNumbers        422
    ├── UnsupportedByModel      422
    ├── EditsNotAccepted        422
    ├── UnknownModel            404
    ├── ModelNotHere            404
    ├── ModelTooLarge           404
    ├── ClientDisconnected      499
    ├── TooLarge                413
    │   ├── BodyTooLarge
    │   ├── ReplyTooLarge
    │   └── OutOfMemory
    └── TemporarilyUnavailable  503, with Retry-After
        ├── Busy
        ├── ModelLoading
        └── ModelUnavailable

Every message says what is wrong, with the value and the limit where that helps, and what to do next.
"""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


class AppError(Exception):
    """An error that the client can understand and fix."""

    status = 500
    title = "Something went wrong"
    retry_after_s: int | None = None

    @classmethod
    def slug(cls) -> str:
        """The name of this kind of error in addresses: text-too-long."""
        return re.sub(r"(?<!^)(?=[A-Z])", "-", cls.__name__).lower()


class InvalidText(AppError):
    """The model cannot read this text."""

    status = 422
    title = "This text cannot be read"


class EmptyText(InvalidText):
    """There is no text."""

    title = "There is no text"

    def __init__(self) -> None:
        super().__init__("The text is empty. Type a word.")


class TextTooLong(InvalidText):
    """The text has more tokens than can be read."""

    title = "The text is too long"

    def __init__(
        self,
        n_tokens: int,
        n_max: int,
        reader: str,
        instead: str = "choose a model with a longer context",
        n_context: int | None = None,
    ) -> None:
        """`n_context` is the model's own limit, if LOOKBACK_MAX_TOKENS is below it."""
        limit = f"{reader} reads {n_max:,}"
        if n_context:
            limit = f"{reader} reads {n_context:,}, but LOOKBACK_MAX_TOKENS limits texts to {n_max:,} here"
            instead = "start Lookback with a larger LOOKBACK_MAX_TOKENS"
        super().__init__(
            f"This text has {n_tokens:,} tokens; {limit}. Remove {n_tokens - n_max:,} tokens, or {instead}."
        )


class UnreadableText(InvalidText):
    """The text contains half a surrogate pair, or a run of one kind of character that is too long to split."""


class NoKnownCharacters(InvalidText):
    """No character of the text is in the model's vocabulary."""

    title = "The model has no token for this text"

    def __init__(self, n_characters: int, model: str) -> None:
        text = "The character" if n_characters == 1 else f"None of the {n_characters:,} characters"
        verb = "is not" if n_characters == 1 else "is"
        super().__init__(
            f"{text} of this text {verb} in the vocabulary of {model}, so there is nothing to read. Add a letter, or "
            "choose another model."
        )


class NoSuchToken(InvalidText):
    """The model has no token of this id."""

    title = "There is no such token"

    def __init__(self, id: int, n_vocab: int, model: str) -> None:
        if id < n_vocab:
            reason = f"{model} has a row {id} in its embedding, but its vocabulary has no token for it"
        else:
            reason = f"There is no token {id}; the ids of {model} are 0 to {n_vocab - 1}"
        super().__init__(f"{reason}. POST /api/v1/tokens gives the ids of a text.")


class InvalidEdits(AppError):
    """The edits of a request cannot be read, or do not fit the model or the text."""

    status = 422
    title = "These edits cannot be made"


class TextTooLongForEdits(InvalidText):
    """A head without a mask needs the whole text in one pass, and the text is too long for that."""

    title = "The text is too long for these edits"

    def __init__(self, n_tokens: int, n_max: int) -> None:
        super().__init__(
            "With nomask, a head attends to later tokens, so the text is read in one pass, of at most "
            f"{n_max:,} tokens (LOOKBACK_MAX_BATCH_TOKENS); this text has {n_tokens:,}. Remove {n_tokens - n_max:,} "
            "tokens, or the nomask edits."
        )


class NotOneToken(AppError):
    """A text that has to be one token is none, or several."""

    status = 422
    title = "This is not one token"

    def __init__(self, text: str, labels: Sequence[str], model: str) -> None:
        parts = f"{len(labels)} tokens of {model}: {', '.join(labels[:10])}{', …' if len(labels) > 10 else ''}"
        super().__init__(
            f"{text[:100]!r} is {parts}. Choose a text that is exactly one token, or give its id in `token_ids`."
        )


class NoSuchHead(AppError):
    """The model has no layer or head of this number."""

    status = 422
    title = "There is no such layer or head"

    def __init__(self, kind: str, index: int, n: int, model: str) -> None:
        super().__init__(f"There is no {kind} {index}; {model} has {n} of them, counted from 0. Choose 0 to {n - 1}.")


class NoSuchPosition(AppError):
    """The position is after the end of the text."""

    status = 422
    title = "There is no such position"

    def __init__(self, position: int, n_tokens: int) -> None:
        super().__init__(
            f"There is no position {position}; the text has {n_tokens} tokens. Choose 0 to {n_tokens - 1}."
        )


class UnsupportedByModel(AppError):
    """The lesson is about something that the chosen model does not have."""

    status = 422
    title = "The model does not have what the lesson is about"

    def __init__(self, model: str, needs: str, alternative: str) -> None:
        super().__init__(f"This lesson needs a model with {needs}, which {model} does not have. Choose {alternative}.")


class NoSuchStep(AppError):
    """The model has no saved parameters of this training step."""

    status = 422
    title = "There is no such step"

    def __init__(self, step: int, saved: Sequence[int], model: str) -> None:
        steps = (
            f"Saved steps: {', '.join(map(str, saved))}."
            if saved
            else "It came without training steps; leave the step out."
        )
        super().__init__(f"{model} has no parameters of step {step}. {steps}")


class NonFiniteNumbers(AppError):
    """The forward pass over this text overflowed: some of its numbers are infinite or NaN."""

    status = 422
    title = "The model's numbers are not finite"

    def __init__(self, model: str, place: str, dtype: str, edits: str = "") -> None:
        cure = "Try another text; if every text fails, the checkpoint is damaged or its training diverged."
        if dtype != "float32":
            cure = f"Lookback computes in {dtype} here; start it with --dtype float32."
        if edits:
            cure = f"It is read under the edits {edits[:200]}: make them weaker."
        super().__init__(
            f"{model} overflows on this text: at {place} some of its numbers are infinite or NaN, and so is everything "
            f"that is computed from them. {cure}"
        )


class EditsNotAccepted(AppError):
    """An experiment that makes its own edits was sent some."""

    status = 422
    title = "This experiment takes no edits"

    def __init__(self, experiment: str, edits: str) -> None:
        super().__init__(
            f"“{experiment}” makes its own changes to the pass, and its checks are about the unchanged model; it "
            f"cannot be run under {edits}. Leave `edits` empty, or read the text under them on the first page."
        )


class UnknownModel(AppError):
    """There is no model of this name."""

    status = 404
    title = "There is no such model"

    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__(f"There is no model {name[:100]!r}. Models: {', '.join(known)}.")


class ModelNotHere(AppError):
    """The model is known, but its weights are not on this machine, and clients may not ask the server to fetch them."""

    status = 404
    title = "The model is not here"

    def __init__(self, name: str, command: str) -> None:
        super().__init__(
            f"The weights of {name} are not on this machine. The operator of this server can fetch them with "
            f"`{command}`, or allow clients to ask for them with LOOKBACK_MODELS={name}."
        )


class ModelTooLarge(AppError):
    """The model needs more memory than the server reserves for models."""

    status = 404
    title = "The model is too large for this server"

    def __init__(self, name: str, n_needed: int, n_free: int, n_budget: int) -> None:
        """All numbers are bytes."""
        super().__init__(
            f"{name} needs {n_needed / 1e6:,.0f} MB for loading; {n_free / 1e6:,.0f} MB of the "
            f"{n_budget / 1e6:,.0f} MB for models can be freed. The operator of this server can raise "
            "LOOKBACK_MODELS_MB."
        )


class ClientDisconnected(AppError):
    """The client closed the connection before the reply."""

    status = 499
    title = "The client closed the connection"

    def __init__(self) -> None:
        super().__init__("The connection was closed before there was a reply. Send the request again.")


class TooLarge(AppError):
    """A request or reply is larger than allowed."""

    status = 413


class BodyTooLarge(TooLarge):
    """The request is longer than the server accepts."""

    title = "The request is too long"

    def __init__(self, max_bytes: int) -> None:
        super().__init__(f"This request is over {max_bytes:,} bytes, which is the limit. Send a shorter text.")


class ReplyTooLarge(TooLarge):
    """The reply would contain more numbers than allowed."""

    title = "The reply is too large"

    def __init__(self, n_numbers: int, n_max: int, cure: str) -> None:
        super().__init__(f"This reply would be {n_numbers:,} numbers; the limit is {n_max:,}. {cure}")


class OutOfMemory(TooLarge):
    """The server ran out of memory for this text."""

    title = "There is not enough memory for this text"

    def __init__(self, n_tokens: int) -> None:
        super().__init__(
            f"The server ran out of memory for this text of {n_tokens:,} tokens; other texts are not affected. Send a "
            "shorter one."
        )


class TemporarilyUnavailable(AppError):
    """The same request can succeed later."""

    status = 503
    retry_after_s = 1


class Busy(TemporarilyUnavailable):
    """The queue of waiting texts is full."""

    title = "The server is busy"

    def __init__(self, n_waiting: int, n_max: int) -> None:
        super().__init__(f"{n_waiting} texts are waiting; the limit is {n_max}. Try again in a second.")


class ModelLoading(TemporarilyUnavailable):
    """The model is being fetched or loaded."""

    title = "The model is loading"

    def __init__(self, name: str, doing: str) -> None:
        super().__init__(f"{name} is not ready yet: {doing}. Try again in a second; /api/v1/models shows its state.")


class ModelUnavailable(TemporarilyUnavailable):
    """The model could not be loaded."""

    title = "The model could not be loaded"
    retry_after_s = 30

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name} could not be loaded. {reason}")


# By pydantic's type of an error, where its own message does not say what to do.
FIELD_MESSAGES = {
    "extra_forbidden": "there is no such field (/docs lists the fields of every call)",
    "missing": "this field is required",
}


def field_message(detail: "ErrorDetails") -> str:
    """An error that pydantic found, in words: the field and what is wrong with it.

    >>> field_message({"type": "missing", "loc": ("body", "text"), "msg": "Field required", "input": {}})
    'text: this field is required'
    """
    field = ".".join(str(part) for part in detail["loc"] if part != "body")
    message = FIELD_MESSAGES.get(detail["type"], detail["msg"].removeprefix("Value error, "))
    return f"{field[:100]}: {message}" if field else message
