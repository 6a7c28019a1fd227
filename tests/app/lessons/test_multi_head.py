"""S22: all heads in one array give what hooks, torch's own layer and one head at a time give."""

# shapes: H heads, T tokens, D features of a head, M features of a token, X features of all heads, V tokens of the
#         vocabulary; B texts

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from app.experiments.panels import AnyPanel, Bars, Heatmap
from app.lessons.head_arrays import array_steps, separate_heads
from app.lessons.multi_head import MultiHeadWork
from app.models import LoadedModel
from tests.app.experiments import checks_of, make_work, panels_of
from tests.app.lessons.oracle import LONG, SENTENCE, assert_near, captured, heads_by_hand, logits_with, named, values

LAYER = 1
AXES = ("TM", "TX", "THD", "HTD", "HTS", "HTS", "HTD", "THD", "TX", "TM")  # of the array after each step
ARRAY_NAMES = ("", "queries of all heads", "view", "transpose", "", "", "context", "transpose back", "joined", "")
PROJECTIONS = ("one matrix, split", "one module per head")


def shown(loaded: LoadedModel, text: str = SENTENCE, **controls: object) -> dict[str, AnyPanel]:
    return panels_of(make_work(loaded, "multi-head", text, **{"layer": LAYER, **controls}))


def attention_of(loaded: LoadedModel) -> nn.Module:
    return loaded.network.blocks[LAYER].get_submodule("attention")


def weights_by_hand(linear: nn.Module) -> tuple[Tensor, Tensor]:
    """Weights and bias of a linear layer in double precision; a bias of 0 if there is none."""
    weight, bias = linear.weight, linear.bias
    assert isinstance(weight, Tensor)
    return weight.double(), bias.double() if isinstance(bias, Tensor) else torch.zeros(len(weight)).double()


def arrays_by_hand(loaded: LoadedModel, text: str, heads_off: Sequence[int] = ()) -> list[Tensor]:
    """The array after each step, (…): from hooks, and loops over heads in double precision."""
    module, heads, config = attention_of(loaded), heads_by_hand(loaded, text, LAYER), loaded.network.config
    x_TM, q_TX = captured(loaded, text, module.get_submodule("query"))
    q_THD = torch.stack(torch.split(q_TX, config.d_head, dim=1), dim=1)
    context_HTD = torch.stack([w_TT @ v_TD for w_TT, v_TD in zip(heads.weight_HTT, heads.v_HTD, strict=True)])
    parts = [torch.zeros_like(c) if head in heads_off else c for head, c in enumerate(context_HTD)]
    joined_TX = torch.cat(parts, dim=1)
    weight_MX, bias_M = weights_by_hand(module.get_submodule("output"))
    per_token = [torch.stack([rows[t] for rows in context_HTD]) for t in range(len(x_TM))]
    return [
        x_TM,
        q_TX,
        q_THD,
        torch.stack([q_THD[:, head] for head in range(config.n_heads)]),
        heads.score_HTT,
        heads.weight_HTT,
        context_HTD,
        torch.stack(per_token),
        joined_TX,
        joined_TX @ weight_MX.T + bias_M,
    ]


@pytest.mark.parametrize("projection", PROJECTIONS)
def test_the_weights_of_all_heads_are_those_that_hooks_see(loaded: LoadedModel, projection: str) -> None:
    panels, weight_HTT = (
        shown(loaded, query=3, head=2, projection=projection),
        heads_by_hand(loaded, SENTENCE, LAYER)[4],
    )
    assert_near(values(panels["query_weights"]), weight_HTT[:16, 3], relative=1e-3)
    assert_near(values(panels["head_weights"]), weight_HTT[2], relative=1e-3)
    facts = named(panels["projection_facts"])
    config = loaded.network.config
    n_rows, rest = config.n_heads * config.d_head, f"× {config.d_model}"
    expected = (
        f"1 of {n_rows} {rest}" if projection == PROJECTIONS[0] else f"{config.n_heads} of {config.d_head} {rest}"
    )
    assert facts["matrices for the queries"] == expected
    assert (facts["query heads"], facts["key and value heads"]) == (config.n_heads, config.n_kv_heads)
    difference = facts["largest difference of a weight between both methods"]
    assert isinstance(difference, float)
    assert difference < 1e-5


def test_the_layer_computes_what_torch_computes(lookback_gpt: LoadedModel) -> None:
    config, module = lookback_gpt.network.config, attention_of(lookback_gpt)
    x_TM, output_TM = captured(lookback_gpt, LONG, module)
    oracle = nn.MultiheadAttention(config.d_model, config.n_heads, batch_first=True).double()
    maps = [weights_by_hand(module.get_submodule(name)) for name in ("query", "key", "value", "output")]
    weights, biases = zip(*maps, strict=True)
    with torch.no_grad():
        oracle.in_proj_weight.copy_(torch.cat(weights[:3]))
        oracle.in_proj_bias.copy_(torch.cat(biases[:3]))
        oracle.out_proj.weight.copy_(weights[3])
        oracle.out_proj.bias.copy_(biases[3])
    later_TT = torch.ones(len(x_TM), len(x_TM)).triu(1).bool()
    torch_TM, torch_HTT = oracle(x_TM, x_TM, x_TM, attn_mask=later_TT, average_attn_weights=False)
    work = make_work(lookback_gpt, "multi-head", LONG, layer=LAYER)
    steps = array_steps(work, LAYER, work.attention_input(LAYER))
    assert_near(steps[5].values, torch_HTT.detach(), relative=1e-3)
    assert_near(steps[9].values, torch_TM.detach(), relative=1e-3, absolute=1e-4)
    assert_near(steps[9].values, output_TM, relative=1e-3, absolute=1e-4)
    assert_near(separate_heads(work, LAYER, work.attention_input(LAYER)).weight_HTS, torch_HTT.detach(), relative=1e-3)


def corner(array: Tensor, axes: str, d_head: int) -> Tensor:
    """The first numbers along each axis; of heads side by side, the first features of each."""
    if axes == "TX":
        array = torch.cat([part[:, :4] for part in torch.split(array, d_head, dim=1)[:4]], dim=1)
    limits = {"T": 8, "S": 8, "H": 4, "D": 4, "M": 16, "X": 16}
    return array[tuple(slice(limits[axis]) for axis in axes)]


def test_each_array_shows_the_corner_of_an_array_made_head_by_head(loaded: LoadedModel) -> None:
    first_token = f"0 {loaded.tokenizer.label(loaded.tokens(LONG).ids[0])}"
    names = {"all": "all", "T": first_token, "S": first_token, "H": "head 0", "X": "head 0 feature 0"}
    for step, array in enumerate(arrays_by_hand(loaded, LONG, [1])):
        work = make_work(loaded, "multi-head", LONG, layer=LAYER, array_step=step, heads_off=[1])
        assert isinstance(work, MultiHeadWork)
        cube, axes = work.array(), AXES[step]
        assert cube.title.endswith(f" {' × '.join(map(str, array.shape))}")
        expected = corner(array, axes, loaded.network.config.d_head)
        assert_near(cube.values, expected if len(axes) == 3 else expected[None], relative=1e-3, absolute=1e-4)
        labels = [cube.sheets[0], cube.rows[0][0], cube.columns[0]]
        assert labels == [names.get(axis, "feature 0") for axis in (axes if len(axes) == 3 else ("all", *axes))]


def test_a_view_and_a_transpose_move_no_number_and_joining_the_heads_does(loaded: LoadedModel) -> None:
    config, n = loaded.network.config, len(loaded.tokens(SENTENCE).ids)
    width, d_head = config.n_heads * config.d_head, config.d_head
    expected = {
        1: (f"{width}, 1", "yes", "new"),
        2: (f"{width}, {d_head}, 1", "yes", "the same as before"),
        3: (f"{d_head}, {width}, 1", "no", "the same as before"),
        6: (f"{n * d_head}, {d_head}, 1", "yes", "new"),
        7: (f"{d_head}, {n * d_head}, 1", "no", "the same as before"),
        8: (f"{width}, 1", "yes", "new"),
    }
    arrays = arrays_by_hand(loaded, SENTENCE)
    for step, storage in expected.items():
        work = make_work(loaded, "multi-head", SENTENCE, layer=LAYER, array_step=step)
        assert isinstance(work, MultiHeadWork)
        facts = named(work.array_facts())
        assert (facts["strides"], facts["contiguous"], facts["place in memory"]) == storage
        assert facts[f"{step} → {ARRAY_NAMES[step]}"] == " × ".join(map(str, arrays[step].shape))


def test_the_norms_of_all_slices_add_up_to_the_norm_of_the_matrix(loaded: LoadedModel) -> None:
    config, panel = loaded.network.config, shown(loaded)["input_norms"]
    weight_XM = weights_by_hand(attention_of(loaded).get_submodule("query"))[0].numpy()
    blocks = [np.array_split(rows_DM, config.n_heads, axis=1) for rows_DM in np.split(weight_XM, config.n_heads)]
    assert_near(values(panel), [[np.sqrt((block**2).sum()) for block in row] for row in blocks])
    assert (values(panel) ** 2).sum().sqrt().item() == pytest.approx(np.linalg.norm(weight_XM), rel=1e-5)
    assert isinstance(panel, Heatmap)
    assert panel.rows[1] == f"{config.d_head}–{2 * config.d_head - 1}"


def logits_without(loaded: LoadedModel, heads: list[int]) -> Tensor:
    """The logits after the text if a hook sets what these heads return to 0."""

    def switch_off(_: tuple[Tensor, ...], context_BHTD: Tensor) -> Tensor:
        return context_BHTD.index_fill(1, torch.tensor(heads, dtype=torch.long), 0.0)

    heads_module = attention_of(loaded).get_submodule("heads")
    return logits_with(loaded, loaded.tokens(SENTENCE).ids, {heads_module: switch_off})[-1]


@pytest.mark.parametrize("heads_off", [[2], [3, 0, 3]])
def test_without_some_heads_the_predictions_are_those_of_a_pass_in_which_a_hook_sets_them_to_0(
    loaded: LoadedModel, heads_off: list[int]
) -> None:
    panels, full_V, without_V = (
        shown(loaded, heads_off=heads_off),
        *(logits_without(loaded, off) for off in ([], heads_off)),
    )
    change_V = without_V.softmax(-1) - full_V.softmax(-1)
    bars, facts = panels["probability_changes"], named(panels["effect"])
    top = change_V.abs().topk(5).indices
    assert_near(values(bars), change_V[top], relative=1e-3, absolute=1e-6)
    assert isinstance(bars, Bars)
    assert bars.labels == [f"{rank} {loaded.tokenizer.label(id)}" for rank, id in enumerate(top.tolist())]
    assert facts["largest change of a logit"] == pytest.approx((without_V - full_V).abs().max().item(), rel=1e-3)
    for when, logits_V in (("with all heads", full_V), ("now", without_V)):
        best, p = int(logits_V.argmax()), logits_V.softmax(-1).max().item()
        assert facts[f"most probable next token {when}"] == f"{loaded.tokenizer.label(best)} ({p:.2%})"
    assert panels["effect"].title.endswith(": 2" if heads_off == [2] else ": 0, 3")


def test_the_output_changes_by_what_the_missing_heads_would_add(loaded: LoadedModel) -> None:
    full_TM, without_TM = (arrays_by_hand(loaded, SENTENCE, off)[-1] for off in ([], [0, 3]))
    bars = values(shown(loaded, heads_off=[0, 3])["output_changes"])
    assert_near(bars, (without_TM - full_TM).norm(dim=1) / full_TM.norm(dim=1), relative=1e-3)


def test_with_no_head_switched_off_nothing_changes(loaded: LoadedModel) -> None:
    panels, full_V = shown(loaded), logits_without(loaded, [])
    assert values(panels["output_changes"]).tolist() == [0.0] * len(loaded.tokens(SENTENCE).ids)
    assert values(panels["probability_changes"]).tolist() == [0.0] * 5
    bars = panels["probability_changes"]
    assert isinstance(bars, Bars)
    assert bars.labels[0] == f"0 {loaded.tokenizer.label(int(full_V.argmax()))}"
    assert named(panels["effect"])["largest change of a logit"] == 0


def test_a_wrong_split_gives_each_head_every_fourth_feature(tiny_llama_model: LoadedModel) -> None:
    """Head 1 of 4 gets features 1, 5, 9, … of the queries, not 8 to 15."""
    work = make_work(tiny_llama_model, "multi-head", SENTENCE, layer=LAYER, broken=True)
    assert isinstance(work, MultiHeadWork)
    q_TX = arrays_by_hand(tiny_llama_model, SENTENCE)[1]
    assert_near(work.steps[2].values[:, 1], q_TX[:, 1::4])
    failed = {check.name for check in checks_of(work) if check.passed is False}
    assert "split heads have the same queries as separate heads" in failed
    assert "with no head switched off, the logits stay the same" not in failed
