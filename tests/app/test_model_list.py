"""The list of models: those on this machine can be chosen; for the rest it shows the command that fetches them."""

from types import SimpleNamespace
from typing import Any

from app.templating import templates


def info(name: str, **fields: Any) -> SimpleNamespace:
    """The fields of a ModelInfo that the list uses."""
    return SimpleNamespace(name=name, n_layers=3, n_heads=4, **{"state": "ready", **fields})


MODELS = [
    info("here"),
    info("gpt2", state="available"),
    info("gpt2-xl", state="not here", command="lookback fetch gpt2-xl"),
    info("gpt2-large", state="not here", command="lookback fetch gpt2-large"),
]


def test_a_model_that_is_not_here_cannot_be_chosen_and_its_command_is_shown() -> None:
    sections: Any = templates().env.get_template("sections.html").module
    options = [" ".join(option.split()) for option in str(sections.model_options(MODELS, "gpt2")).split("</option>")]
    assert options[0] == '<option value="here" data-layers="3" data-heads="4">here'
    assert options[1] == '<option value="gpt2" selected data-layers="3" data-heads="4">gpt2'
    assert options[2] == '<option value="gpt2-xl" disabled data-layers="3" data-heads="4">gpt2-xl (not here)'
    details = str(sections.missing_models(MODELS))
    assert "2 models are not here" in details
    assert "<code>lookback fetch gpt2-xl</code>, <code>lookback fetch gpt2-large</code>" in details


def test_without_missing_models_nothing_is_shown() -> None:
    sections: Any = templates().env.get_template("sections.html").module
    assert str(sections.missing_models(MODELS[:2])).strip() == ""
