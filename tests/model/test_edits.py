"""Edits as values: canonical, hashable, written and read back; what contradicts itself is refused in words."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.config import Config
from model.edit_text import read_edits
from model.edits import NEVER, NO_EDITS, Cut, Drop, Edit, Edits, NoMask, Temperature, Values

CONFIG = Config(
    family="llama",
    n_layers=3,
    n_heads=4,
    n_kv_heads=2,
    d_model=32,
    d_head=8,
    d_mlp=48,
    n_vocab=400,
    n_context=64,
    norm="rmsnorm",
    norm_eps=1e-5,
    positions="rotary",
    mlp="swiglu",
    tied=True,
    attention_bias=False,
    mlp_bias=False,
)


def directions(name: str) -> Values:
    """One vector per name, and none by the name of `unknown`."""
    if name == "unknown":
        raise ValueError("no direction is called 'unknown'")
    return Values(name, torch.full((32,), float(len(name))))


def parse(text: str) -> Edits:
    return read_edits(text, CONFIG, directions)


LAYERS, HEADS = st.integers(0, 2), st.sampled_from("0123*")
FACTORS = st.floats(-100, 100).map(lambda x: repr(x).removesuffix(".0"))
WRITTEN_EDITS = st.one_of(
    st.builds(lambda layer, head, x: f"scale:{layer}.{head}:{x}", LAYERS, HEADS, FACTORS),
    st.builds(lambda layer, n, q: f"cut:{layer}.1:{q + n}>{n}", LAYERS, st.integers(0, 9), st.integers(1, 9)),
    st.builds(lambda layer, name, x: f"steer:{layer}:{name}:{x}", LAYERS, st.sampled_from(["a", "token-7"]), FACTORS),
    st.builds(
        lambda layer, head, x: f"temperature:{layer}.{head}:{x!r}", LAYERS | st.just("*"), HEADS, st.floats(1e-3, 99)
    ),
    st.builds(lambda layer, head: f"nomask:{layer}.{head}", LAYERS | st.just("*"), HEADS),
    st.builds(
        lambda target, rate, seed: f"drop:{target}:{rate!r}:{seed}",
        st.sampled_from(["embedding", "weights", "attention", "mlp"]),
        st.floats(0, 0.99),
        st.integers(0, 99),
    ),
)


def parsed_or_none(written: Sequence[str]) -> Edits | None:
    try:
        return parse(",".join(written))
    except ValueError as error:
        assert any(word in str(error) for word in ("twice", "order would matter", "drop the same", "no key left"))
        return None


@given(st.lists(WRITTEN_EDITS, max_size=6))
def test_the_text_form_is_read_back_as_the_same_edits(written: list[str]) -> None:
    if (edits := parsed_or_none(written)) is not None:
        assert parse(str(edits)) == edits
        assert str(parse(str(edits))) == str(edits)
        assert "+" not in str(edits)  # a space in an address


@given(
    st.lists(WRITTEN_EDITS, max_size=6).flatmap(lambda written: st.tuples(st.just(written), st.permutations(written)))
)
def test_the_order_in_which_edits_are_written_does_not_count(both: tuple[list[str], list[str]]) -> None:
    first, second = map(parsed_or_none, both)
    assert first == second
    assert hash(first) == hash(second)
    assert str(first) == str(second)


def test_the_examples_of_the_text_form_mean_what_they_say() -> None:
    edits = parse("scale:2.3:0, cut:1.1:2>1, steer:1:golden:4.0")
    assert edits == Edits(
        (
            Edit("context", 2, heads=(3,), scale=0.0),
            Cut(1, 1, query=2, key=1),
            Edit("block", 1, add=Values("anything", torch.full((32,), 6.0), strength=4.0)),
        )
    )
    assert str(edits) == "steer:1:golden:4,scale:2.3:0,cut:1.1:2>1"


def test_an_empty_text_is_no_edit() -> None:
    assert parse("") == NO_EDITS == Edits()
    assert (bool(NO_EDITS), str(NO_EDITS), NO_EDITS.first_position, NO_EDITS.is_causal) == (False, "", NEVER, True)


@pytest.mark.parametrize(
    "text", ["scale:0.*:1", "temperature:*.*:1", "drop:mlp:0:5", "steer:1:golden:0", "scale:0.1:1"]
)
def test_what_changes_nothing_is_no_edit(text: str) -> None:
    assert parse(text) == NO_EDITS


def test_an_edit_of_several_heads_is_one_edit_of_each() -> None:
    add = torch.arange(16.0).view(2, 1, 8)
    together = Edits((Edit("context", 1, heads=(3, 0), add=Values("both", add)),))
    apart = Edits(
        (
            Edit("context", 1, heads=(0,), add=Values("second", add[1:])),
            Edit("context", 1, heads=(3,), add=Values("first", add[:1])),
        )
    )
    assert together == apart
    assert hash(together) == hash(apart)


def test_the_numbers_of_a_tensor_are_in_the_key_and_its_name_is_not() -> None:
    def steered(name: str, *numbers: float, dtype: torch.dtype = torch.float32) -> Edits:
        return Edits((Edit("block", 0, add=Values(name, torch.tensor(numbers, dtype=dtype))),))

    assert steered("golden", 1, 2) == steered("gate", 1, 2)
    assert hash(steered("golden", 1, 2)) == hash(steered("gate", 1, 2))
    assert len({steered("golden", 1, 2), steered("golden", 1, 3), steered("golden", 1, 2, dtype=torch.float64)}) == 3


def test_edits_know_the_first_position_and_layer_that_they_change() -> None:
    late = Edits((Cut(2, 0, query=5, key=1), Edit("keys", 1, first=7, scale=0.0)))
    assert (late.first_position, late.first_layer) == (5, 1)
    assert Edits((Edit("embedding", None, first=3, scale=0.0),)).first_layer == 0
    assert Edits((NoMask(2, (1,)),)).first_position == 0
    assert [late.touches_attention(layer) for layer in range(3)] == [False, False, True]


REFUSED: dict[str, str] = {
    "x": "an edit is one of scale:LAYER.HEAD:FACTOR, cut",
    "scale:1": "write scale:LAYER.HEAD:FACTOR",
    "scale:1:0": "'1' is no LAYER.HEAD, such as 3.5",
    "scale:1.1:nan": "'nan' is no number",
    "scale:*.1:0": "only temperature and nomask can be of all layers",
    "scale:3.0:0": "names layer 3; this model has layers 0 to 2",
    "scale:1.4:0": "names head 4; this model has heads 0 to 3",
    "scale:1.1:0,scale:1.1:0": "scale:1.1:0 is there twice",
    "cut:0.0:2-1": "a cut names one head, one query and one key",
    "cut:0.0:1>2": "query 1 does not attend to the later key 2 anyway",
    "cut:0.0:1>0,cut:0.0:1>1": "query 1 of head 0.0 has no key left",
    "steer:1:unknown:1": "edit 'steer:1:unknown:1': no direction is called 'unknown'",
    "temperature:*.*:0": "a temperature is 0; it must be more than 0",
    "drop:mlp:1:0": "a dropout rate is 1; it must be at least 0 and less than 1",
    "drop:values:0.1:0": "'values' cannot be dropped; embedding, weights, attention, mlp can",
    "drop:mlp:0.1:0,drop:mlp:0.2:0": "drop the same numbers",
}


@pytest.mark.parametrize("text", REFUSED)
def test_a_text_that_is_no_edit_is_refused_in_words(text: str) -> None:
    with pytest.raises(ValueError) as refused:
        parse(text)
    assert REFUSED[text] in str(refused.value)


IMPOSSIBLE: dict[str, tuple[dict[str, Any], str]] = {
    "no layer": ({"site": "mlp", "layer": None}, "every other site has one"),
    "a layer of the embedding": ({"site": "embedding", "layer": 0}, "the embedding has no layer"),
    "heads of the mlp": ({"site": "mlp", "layer": 0, "heads": (1,)}, "mlp has no heads"),
    "a head twice": ({"site": "context", "layer": 0, "heads": (1, 1)}, "names a head twice"),
    "no position": ({"site": "mlp", "layer": 0, "first": 3, "last": 3}, "names no head or no position"),
    "rows to the end": (
        {"site": "mlp", "layer": 0, "add": Values("rows", torch.ones(3, 32))},
        "rows has 3 rows; first and last must name as many positions",
    ),
    "two numbers for three heads": (
        {"site": "keys", "layer": 0, "heads": (0, 1, 2), "add": Values("two", torch.ones(2, 1, 8))},
        "does not fit the heads",
    ),
    "vectors of scores": (
        {"site": "scores", "layer": 0, "heads": (0,), "add": Values("vector", torch.ones(1, 1, 8))},
        "scores take one number per head",
    ),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_an_edit_whose_fields_do_not_go_together_is_refused(name: str) -> None:
    fields, words = IMPOSSIBLE[name]
    with pytest.raises(ValueError, match=words):
        Edit(**fields)


def test_two_factors_of_the_same_head_multiply_but_a_factor_and_an_addition_are_refused() -> None:
    half, third = Edit("context", 0, (1,), scale=0.5), Edit("context", 0, None, scale=0.25)
    assert len(Edits((half, third)).changes) == 2
    addition = Edit("context", 0, (1,), first=2, add=Values("golden", torch.ones(8)))
    with pytest.raises(ValueError, match="their order would matter"):
        Edits((third, addition))
    assert Edits((Edit("context", 0, (1,), last=2, scale=0.5), addition))  # other positions


def test_a_head_without_mask_may_lose_later_keys_but_not_all() -> None:
    edits = Edits((NoMask(0, (0,)), Cut(0, 0, 0, 0), Cut(0, 0, 0, 1)))
    edits.check(3)
    with pytest.raises(ValueError, match=r"query 0 of head 0\.0 has no key left"):
        edits.check(2)


@pytest.mark.parametrize(
    ("change", "position"),
    [(Cut(0, 0, 5, 2), 5), (Edit("mlp", 0, first=4, scale=0.0), 4), (Edit("mlp", 0, last=7, scale=0.0), 6)],
)
def test_positions_outside_the_text_are_refused_by_name(change: Cut | Edit, position: int) -> None:
    edits = Edits((change,))
    edits.check(position + 1)
    with pytest.raises(ValueError, match=f"names position {position}; this text has {position} tokens"):
        edits.check(position)


def test_tensors_of_another_size_than_the_models_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(31,\); its last axis must be 32"):
        Edits((Edit("block", 0, add=Values("short", torch.ones(31))),)).check_model(CONFIG)
    with pytest.raises(ValueError, match="this model has key heads 0 to 1"):
        Edits((Edit("keys", 0, heads=(2,), scale=0.0),)).check_model(CONFIG)


def test_numbers_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        Values("golden", torch.tensor([1.0, torch.inf]))
    with pytest.raises(ValueError, match="must be finite"):
        Edit("mlp", 0, scale=torch.nan)


def test_a_drop_names_layers_in_any_order() -> None:
    assert Edits((Drop("mlp", (2, 0, 2), 0.5, 1),)) == Edits((Drop("mlp", (0, 2), 0.5, 1),))
    assert [bool(Edits((Drop("mlp", (0, 2), 0.5, 1),)).drops("mlp", layer)) for layer in range(3)] == [
        True,
        False,
        True,
    ]


def test_a_temperature_of_all_layers_names_every_head() -> None:
    assert Temperature(None, None, 2.0).names(1, 3)
    assert not Temperature(None, (2,), 2.0).names(1, 3)
