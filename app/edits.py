"""The edits of a request: read with the model that they are for, and in words for the page."""

import re
from collections.abc import Mapping, Sequence

import torch

from app.errors import InvalidEdits
from app.models import LoadedModel
from model.edit_text import read_edits
from model.edits import Change, Cut, Drop, Edit, Edits, NoMask, Values

TOKEN_DIRECTION = re.compile(r"token-(0|[1-9][0-9]{0,8})")


def parse_edits(text: str, directions: Mapping[str, Sequence[float]], model: LoadedModel, n_tokens: int) -> Edits:
    """The edits that a request writes out, for a text of `n_tokens`.

    Raises:
        InvalidEdits: with the piece that is wrong, as it is written, and what is right.
    """
    try:
        edits = read_edits(text, model.network.config, lambda name: _direction(name, directions, model))
        edits.check(n_tokens)
    except ValueError as error:
        raise InvalidEdits(f"{error}.") from error
    return edits


def _direction(name: str, directions: Mapping[str, Sequence[float]], model: LoadedModel) -> Values:
    """The direction of this name: one of the request, or that of a token."""
    config, token = model.network.config, TOKEN_DIRECTION.fullmatch(name)
    if token and name in directions:
        raise ValueError(f"{name} is the direction of a token; give yours another name")
    if name in directions:
        if len(directions[name]) != config.d_model:
            numbers = f"{len(directions[name]):,} numbers; {model.name} needs {config.d_model:,} (`d_model`)"
            raise ValueError(f"the direction {name} has {numbers}")
        return Values(name, torch.tensor(directions[name], dtype=torch.float32))
    if token:
        if (id := int(token[1])) >= config.n_vocab:
            raise ValueError(f"there is no token {id}; the ids of {model.name} are 0 to {config.n_vocab - 1}")
        row_M = model.network.unembed.weight[id].detach().float().cpu()
        return Values(name, row_M / row_M.norm())
    raise ValueError(
        f"there is no direction {name[:100]!r}. Give its {config.d_model:,} numbers in the field `directions`, or "
        "write token-ID with the id of a token"
    )


def describe(change: Change) -> str:
    """What an edit changes, in words.

    >>> describe(Cut(11, 7, query=2, key=1))
    'Head 7 of layer 11: token 2 does not attend to token 1.'
    >>> describe(Edit("context", 3, (5,), scale=0.0))
    'Head 5 of layer 3 is switched off: what it passes on is multiplied by 0.'
    """
    match change:
        case Edit():
            return _describe_edit(change)
        case Cut():
            heads = _name_heads((change.head,), change.layer)
            return f"{heads}: token {change.query} does not attend to token {change.key}."
        case NoMask():
            return f"{_name_heads(change.heads, change.layer)} also attends to later tokens."
        case Drop():
            what = {"weights": "attention weights", "mlp": "feed-forward outputs", "attention": "attention outputs"}
            target = what.get(change.target, change.target)
            return f"Dropout of {change.rate:.0%} of the {target} (seed {change.seed})."
    effect = "sharper" if change.value < 1 else "flatter"
    scores = f"scaled scores divided by {change.value:g}, so that its weights are {effect}"
    return f"{_name_heads(change.heads, change.layer)} has its {scores}."


def _describe_edit(edit: Edit) -> str:
    if edit.site == "context" and edit.add is None:
        if edit.scale == 0:
            return f"{_name_heads(edit.heads, edit.layer)} is switched off: what it passes on is multiplied by 0."
        return f"What {_name_heads(edit.heads, edit.layer).lower()} passes on is multiplied by {edit.scale:g}."
    if edit.site == "block" and edit.add and edit.scale == 1:
        return f"After layer {edit.layer}, {edit.add.strength:g} times the direction {edit.add.name} is added."
    return f"{edit}."


def _name_heads(heads: tuple[int, ...] | None, layer: int | None) -> str:
    """Heads in words, as the beginning of a sentence."""
    place = "every layer" if layer is None else f"layer {layer}"
    if heads is None:
        return f"Every head of {place}"
    return f"Head{'s' * (len(heads) > 1)} {', '.join(map(str, heads))} of {place}"
