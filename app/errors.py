"""What can go wrong for a visitor, and the status of each.

    AppError
    ├── BadText           422
    │   ├── EmptyText
    │   ├── TextTooLong
    │   ├── UnreadableText
    │   └── NothingHeld
    ├── NoSuchHead        422
    ├── NoSuchPosition    422
    ├── NoSuchStep        422
    ├── NonFiniteNumbers  422
    ├── ModelLacks        422
    ├── UnknownModel      404
    ├── ModelNotHere      404
    ├── ModelTooLarge     404
    ├── VisitorLeft       499
    ├── TooLarge          413
    │   ├── BodyTooLarge
    │   ├── AnswerTooLarge
    │   └── OutOfMemory
    └── NotNow            503, with Retry-After
        ├── Busy
        ├── ModelLoading
        └── ModelUnavailable

Every message is a sentence with the numbers in it, and a way out.
"""

import re
from collections.abc import Sequence


class AppError(Exception):
    """Something that a visitor can understand and mend."""

    status = 500
    title = "Something went wrong"
    retry_after_s: int | None = None

    @classmethod
    def slug(cls) -> str:
        """A name for programs: text-too-long."""
        return re.sub(r"(?<!^)(?=[A-Z])", "-", cls.__name__).lower()


class BadText(AppError):
    """This text cannot be read."""

    status = 422
    title = "This text cannot be read"


class EmptyText(BadText):
    """There is no text."""

    title = "There is no text"

    def __init__(self) -> None:
        super().__init__("The text has 0 characters; a reading needs at least 1. Type a word.")


class TextTooLong(BadText):
    """The text has more tokens than the model reads at a time."""

    title = "The text is too long"

    def __init__(
        self,
        n_tokens: int,
        n_most: int,
        reader: str,
        instead: str = "choose a model with a longer context",
        n_context: int | None = None,
    ) -> None:
        limit = f"{reader} reads {n_most:,}"
        if n_context:  # the model could read so many
            limit = f"{reader} reads {n_context:,}, but LOOKBACK_MAX_TOKENS limits texts to {n_most:,} here"
            instead = "start Lookback with a larger LOOKBACK_MAX_TOKENS"
        super().__init__(f"This text is {n_tokens:,} tokens; {limit}. Take away {n_tokens - n_most:,}, or {instead}.")


class UnreadableText(BadText):
    """The text holds something that stands for no character, or goes on with one kind of character for too long."""


class NothingHeld(BadText):
    """No character of the text has a token in the model's vocabulary."""

    title = "The model has no token for this text"

    def __init__(self, n_characters: int, model: str) -> None:
        super().__init__(
            f"None of the {n_characters:,} characters of this text is in the vocabulary of {model}, so 0 tokens are "
            "left to read. Add a letter, or choose another model."
        )


class NoSuchHead(AppError):
    """A layer or head that the model does not have."""

    status = 422
    title = "There is no such layer or head"

    def __init__(self, kind: str, wrong: int, n: int, model: str) -> None:
        super().__init__(f"There is no {kind} {wrong}; {model} has {n} of them, counted from 0. Choose 0 to {n - 1}.")


class NoSuchPosition(AppError):
    """A position behind the end of the text."""

    status = 422
    title = "There is no such position"

    def __init__(self, wrong: int, n_tokens: int) -> None:
        super().__init__(f"There is no position {wrong}; the text has {n_tokens} tokens. Choose 0 to {n_tokens - 1}.")


class ModelLacks(AppError):
    """A lesson on something that the chosen model does not have."""

    status = 422
    title = "The model does not have what the lesson is about"

    def __init__(self, model: str, needs: str, other: str) -> None:
        super().__init__(f"This lesson needs a model with {needs}, which {model} does not have. Choose {other}.")


class NoSuchStep(AppError):
    """A step of training that the model has no parameters of."""

    status = 422
    title = "There is no such step"

    def __init__(self, wrong: int, known: Sequence[int], model: str) -> None:
        steps = f"There are: {', '.join(map(str, known))}." if known else "It came without any; leave the step out."
        super().__init__(f"{model} has no parameters of step {wrong}. {steps}")


class NonFiniteNumbers(AppError):
    """The model overflowed: numbers of its pass over this text are infinite or NaN, and so would the answer be."""

    status = 422
    title = "The model's numbers are not finite"

    def __init__(self, model: str, place: str, dtype: str) -> None:
        cure = (
            "Try another text; if every text fails, the checkpoint is damaged or its training diverged."
            if dtype == "float32"
            else f"Lookback computes in {dtype} here; start it with --dtype float32."
        )
        super().__init__(
            f"{model} overflows on this text: at {place} some of its numbers are infinite or NaN, and so is all that "
            f"is computed from them. {cure}"
        )


class UnknownModel(AppError):
    """No model has this name."""

    status = 404
    title = "There is no such model"

    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__(f"There is no model {name[:100]!r}. There are: {', '.join(known)}.")


class ModelNotHere(AppError):
    """The model is known, but its weights are not on this machine, and visitors may not have them fetched."""

    status = 404
    title = "The model is not here"

    def __init__(self, name: str, command: str) -> None:
        super().__init__(
            f"The weights of {name} are not on this machine. Whoever runs this server brings them with "
            f"`{command}`, or lets visitors fetch them with LOOKBACK_MODELS={name}."
        )


class ModelTooLarge(AppError):
    """The model needs more memory than the server gives to models."""

    status = 404
    title = "The model is too large for this server"

    def __init__(self, name: str, n_needed: int, n_free: int, n_budget: int) -> None:
        super().__init__(
            f"{name} needs {n_needed / 1e6:,.0f} MB while it is loaded; {n_free / 1e6:,.0f} MB of the "
            f"{n_budget / 1e6:,.0f} MB for models can be had. Whoever runs this server can raise LOOKBACK_MODELS_MB."
        )


class VisitorLeft(AppError):
    """The visitor did not wait for the answer."""

    status = 499
    title = "Nobody waits for this answer"

    def __init__(self) -> None:
        super().__init__("The connection was closed before there was an answer, so 0 numbers were sent. Ask again.")


class TooLarge(AppError):
    """More than one message may hold."""

    status = 413


class BodyTooLarge(TooLarge):
    """The request is longer than the server takes."""

    title = "The request is too long"

    def __init__(self, max_bytes: int) -> None:
        super().__init__(f"This request is over {max_bytes:,} bytes, the most that is taken. Send a shorter text.")


class AnswerTooLarge(TooLarge):
    """The answer would hold more numbers than one reply may."""

    title = "The answer is too large"

    def __init__(self, n_numbers: int, n_most: int, cure: str) -> None:
        super().__init__(f"This answer would be {n_numbers:,} numbers; one reply holds {n_most:,}. {cure}")


class OutOfMemory(TooLarge):
    """The server's memory did not suffice for this text."""

    title = "There is not enough memory for this text"

    def __init__(self, n_tokens: int) -> None:
        super().__init__(
            f"The server ran out of memory for this text of {n_tokens:,} tokens; other texts go on. Send a shorter one."
        )


class NotNow(AppError):
    """The same request can succeed later."""

    status = 503
    retry_after_s = 1


class Busy(NotNow):
    """More texts are waiting than the server keeps."""

    title = "The server is busy"

    def __init__(self, n_waiting: int, n_most: int) -> None:
        super().__init__(f"{n_waiting} texts are waiting; the server keeps {n_most}. Try again in a second.")


class ModelLoading(NotNow):
    """The model is being fetched or loaded."""

    title = "The model is loading"

    def __init__(self, name: str, doing: str) -> None:
        super().__init__(f"{name} is not ready yet: {doing}. Try again in a second; /api/v1/models says when.")


class ModelUnavailable(NotNow):
    """The model could not be loaded."""

    title = "The model could not be loaded"
    retry_after_s = 30

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"{name} could not be loaded. {why}")
