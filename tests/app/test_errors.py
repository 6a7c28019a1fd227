"""Every error has a status, a title, and a message that says what to do next."""

import pytest

from app import errors
from app.errors import AppError
from app.routes.pages import descendants

LEAVES = [kind for kind in descendants(AppError) if not kind.__subclasses__()]
EXAMPLES: dict[type[AppError], tuple[object, ...]] = {
    errors.EmptyText: (),
    errors.TextTooLong: (2_100, 2_048, "smollm2-135m"),
    errors.UnreadableText: ("character 1 of this text is half a surrogate pair. Take it away.",),
    errors.NoKnownCharacters: (3, "tiny"),
    errors.NoSuchToken: (400, 400, "tiny"),
    errors.TextTooLongForEdits: (200, 128),
    errors.InvalidEdits: ("edit 'bend:1.1:0': an edit is one of scale:LAYER.HEAD:FACTOR.",),
    errors.NotOneToken: ("the fat", ["the", "·fat"], "tiny"),
    errors.NoSuchHead: ("head", 9, 4, "tiny"),
    errors.NoSuchPosition: (9, 4),
    errors.NoSuchStep: (3, [0, 1, 2], "tiny"),
    errors.UnsupportedByModel: ("tiny", "learned positions", "gpt2"),
    errors.EditsNotAccepted: ("Softmax", "scale:0.1:0"),
    errors.NonFiniteNumbers: ("tiny", "layers.3.norm_1", "float32"),
    errors.UnknownModel: ("gpt5", ["gpt2"]),
    errors.ModelNotHere: ("gpt2", "lookback fetch gpt2"),
    errors.ModelTooLarge: ("gpt2-xl", 12_461_000_000, 6_900_000_000, 8_000_000_000),
    errors.ClientDisconnected: (),
    errors.BodyTooLarge: (1_048_576,),
    errors.ReplyTooLarge: (5_000_000, 4_000_000, "Request fewer heads."),
    errors.OutOfMemory: (2_000,),
    errors.Busy: (64, 64),
    errors.ModelLoading: ("gpt2", "fetching, 3 of 500 MB"),
    errors.ModelUnavailable: ("gpt2", "The hub is out of reach."),
}


def test_every_error_has_an_example_here() -> None:
    assert set(EXAMPLES) == set(LEAVES)


@pytest.mark.parametrize("kind", LEAVES)
def test_an_error_has_a_status_a_title_a_description_and_a_message(kind: type[AppError]) -> None:
    error = kind(*EXAMPLES[kind])
    assert 400 <= error.status < 600
    assert error.status != 500
    assert error.title != AppError.title
    assert kind.__doc__
    assert str(error).endswith(".") or "shows its state" in str(error)
    assert (error.retry_after_s is not None) == (error.status == 503)


def test_the_message_for_a_long_text_has_its_length_and_the_limit() -> None:
    message = str(errors.TextTooLong(2_100, 2_048, "smollm2-135m"))
    assert "2,100 tokens; smollm2-135m reads 2,048. Remove 52" in message


def test_the_message_for_an_overflow_suggests_float32_only_if_that_helps() -> None:
    assert "start it with --dtype float32" in str(errors.NonFiniteNumbers("tiny", "logits", "bfloat16"))
    assert "--dtype" not in str(errors.NonFiniteNumbers("tiny", "logits", "float32"))


def test_the_tree_at_the_top_of_the_file_names_every_error() -> None:
    assert errors.__doc__
    assert all(kind.__name__ in errors.__doc__ for kind in descendants(AppError))
