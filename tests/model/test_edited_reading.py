"""Reading under edits: equal to the same change made by hand in `transformers`, and to what the unedited model gives
where no edit reaches."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from model import attention
from model.cache import PrefixCache
from model.edited import random_numbers
from model.edits import NO_EDITS, Change, Cut, Drop, Edit, Edits, NoMask, Temperature, Values
from model.gpt import GPT
from model.reading import modules_of, read, read_batch
from model.sites import OBSERVED_SITES, STAGES, ObservedSite
from model.trace import Trace
from model.weights.folder import load
from tests.checkpoints import write_gpt2, write_llama
from tests.conftest import CPU, FLOAT
from tests.model.test_cache import assert_close, assert_same

IDS = (5, 9, 200, 9, 31, 5, 399, 17, 0, 260, 44)
DONOR = (7, 3, 100, 45, 31, 6, 17, 390, 8, 21, 2)
N = len(IDS)
SITES: frozenset[ObservedSite] = frozenset(OBSERVED_SITES)
HEADS = range(4)
VECTOR = Values("vector", torch.linspace(-1, 1, 32), strength=2.0)
HEAD_VECTOR = Values("head vector", torch.linspace(-1, 1, 8))


@pytest.fixture(scope="module", params=[write_gpt2, write_llama])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(request.param(tmp_path_factory.mktemp("edited") / "tiny"))


@pytest.fixture(scope="module")
def network(folder: Path) -> GPT:
    return load(folder, device=CPU, dtype=FLOAT)[0]


@pytest.fixture(scope="module", params=[FLOAT, torch.bfloat16])
def any_network(folder: Path, request: pytest.FixtureRequest) -> GPT:
    return load(folder, device=CPU, dtype=request.param)[0]


@pytest.fixture(scope="module")
def oracle(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()


class Parts:
    """The modules of a layer of `transformers`, by our names."""

    def __init__(self, oracle: Any, layer: int) -> None:
        if hasattr(oracle, "transformer"):
            self.block = oracle.transformer.h[layer]
            self.attention, self.output = self.block.attn, self.block.attn.c_proj
            self.values, self.first_value = self.attention.c_attn, 64  # after queries and keys
            self.embedding = oracle.transformer.drop
        else:
            self.block = oracle.model.layers[layer]
            self.attention, self.output = self.block.self_attn, self.block.self_attn.o_proj
            self.values, self.first_value = self.attention.v_proj, 0
            self.embedding = oracle.model.embed_tokens
        self.mlp = self.block.mlp


def change_output(module: nn.Module, change: Callable[[Tensor], None]) -> Any:
    """A hook that changes the output of a module in place; attention has its weights as a second output."""

    def hook(_: nn.Module, __: object, output: Any) -> Any:
        change(output[0] if isinstance(output, tuple) else output)
        return output

    return module.register_forward_hook(hook)


def change_context(parts: Parts, change: Callable[[Tensor], None]) -> Any:
    """A hook that changes the context vectors, (B, T, H·D), before the output projection."""
    return parts.output.register_forward_pre_hook(lambda _, inputs: change(inputs[0]))


def change_mask(parts: Parts, change: Callable[[Tensor], None]) -> Any:
    """A hook that changes what is added to the scores, (1, H, T, T)."""

    def hook(_: nn.Module, inputs: Any, named: dict[str, Any]) -> Any:
        mask_HTT = torch.zeros(4, N, N).masked_fill(~torch.ones(N, N, dtype=torch.bool).tril(), -torch.inf)
        change(mask_HTT)
        return inputs, {**named, "attention_mask": mask_HTT[None]}

    return parts.attention.register_forward_pre_hook(hook, with_kwargs=True)


def scale_(rows: slice, columns: slice, factor: float, add: Tensor | float = 0.0) -> Callable[[Tensor], None]:
    def change(x_BTX: Tensor) -> None:
        x_BTX[:, rows, columns] = x_BTX[:, rows, columns] * factor + add

    return change


def cut_(head: int, query: int, key: int) -> Callable[[Tensor], None]:
    def change(mask_HTT: Tensor) -> None:
        mask_HTT[head, query, key] = -torch.inf

    return change


def unmask_(head: int) -> Callable[[Tensor], None]:
    def change(mask_HTT: Tensor) -> None:
        mask_HTT[head] = 0

    return change


ALL = slice(None)
VALUES_OF_KEY_HEAD_1 = {"gpt2": slice(72, 80), "llama": slice(8, 16)}

# An edit, and the hook that does the same to `transformers`.
BY_HAND: dict[str, tuple[Change, Callable[[Any], Any]]] = {
    "a head": (
        Edit("context", 1, (2,), scale=0.0),
        lambda oracle: change_context(Parts(oracle, 1), scale_(ALL, slice(16, 24), 0)),
    ),
    "a layer without attention": (
        Edit("context", 1, scale=0.0),
        lambda oracle: change_context(Parts(oracle, 1), scale_(ALL, ALL, 0)),
    ),
    "a head at some positions": (
        Edit("context", 0, (1,), first=2, last=5, scale=-0.5, add=HEAD_VECTOR),
        lambda oracle: change_context(Parts(oracle, 0), scale_(slice(2, 5), slice(8, 16), -0.5, HEAD_VECTOR.tensor)),
    ),
    "steering": (
        Edit("block", 1, add=VECTOR),
        lambda oracle: change_output(Parts(oracle, 1).block, scale_(ALL, ALL, 1, 2 * VECTOR.tensor)),
    ),
    "mlp": (
        Edit("mlp", 2, first=4, scale=0.5),
        lambda oracle: change_output(Parts(oracle, 2).mlp, scale_(slice(4, None), ALL, 0.5)),
    ),
    "attention": (
        Edit("attention", 0, last=3, scale=2.0),
        lambda oracle: change_output(Parts(oracle, 0).attention, scale_(slice(0, 3), ALL, 2)),
    ),
    "embedding": (
        Edit("embedding", None, first=6, last=7, scale=0.0, add=VECTOR),
        lambda oracle: change_output(Parts(oracle, 0).embedding, scale_(slice(6, 7), ALL, 0, 2 * VECTOR.tensor)),
    ),
    "values": (
        Edit("values", 1, (1,), scale=3.0),
        lambda oracle: change_output(
            Parts(oracle, 1).values, scale_(ALL, slice((at := Parts(oracle, 1).first_value) + 8, at + 16), 3)
        ),
    ),
    "cut": (Cut(1, 2, query=7, key=3), lambda oracle: change_mask(Parts(oracle, 1), cut_(2, 7, 3))),
    "no mask": (NoMask(1, (2,)), lambda oracle: change_mask(Parts(oracle, 1), unmask_(2))),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_an_edit_equals_the_same_change_by_hand_in_transformers(network: GPT, oracle: Any, name: str) -> None:
    edit, hook = BY_HAND[name]
    with torch.inference_mode(), hook(oracle):
        outputs = oracle(torch.tensor([IDS]), output_attentions=True)
    trace = read(network, IDS, Edits((edit,)))
    torch.testing.assert_close(trace.logits(range(N)), outputs.logits[0], atol=2e-5, rtol=1e-5)
    for layer, weight_BHTT in enumerate(outputs.attentions):
        torch.testing.assert_close(trace.stage("weights", layer, HEADS), weight_BHTT[0], atol=1e-5, rtol=0)


def edits_of(*changes: Change) -> Edits:
    return Edits(changes)


MANY = [
    edits_of(Edit("context", 1, (2,), scale=0.0)),
    edits_of(Cut(1, 2, 7, 3), Cut(1, 3, 4, 4)),
    edits_of(Temperature(None, None, 0.5), Edit("scores", 0, (1,), first=3, scale=-1.0)),
    edits_of(Edit("queries", 1, (0,), scale=2.0), Edit("keys", 2, (1,), first=5, add=HEAD_VECTOR)),
    edits_of(*(Drop(target, None, 0.3, 7) for target in ("embedding", "weights", "attention", "mlp"))),
    edits_of(Edit("block", 0, add=VECTOR), Edit("mlp", 2, first=6, scale=0.0), Cut(2, 0, 8, 0)),
]


def assert_bit_equal(trace: Trace, expected: Trace) -> None:
    for tensor, expected_tensor in zip(trace.rows(0, N).tensors, expected.rows(0, N).tensors, strict=True):
        assert torch.equal(tensor, expected_tensor)


def test_editing_nothing_is_bit_equal_to_not_editing(any_network: GPT) -> None:
    nothing = Edits((Edit("mlp", 1, scale=1.0), Temperature(None, None, 1.0), Drop("mlp", None, 0.0, 3)))
    plain = read(any_network, IDS)
    assert_bit_equal(read(any_network, IDS, nothing), plain)
    assert_bit_equal(read(any_network, IDS, NO_EDITS, SITES), plain)


def test_an_edit_that_computes_the_same_numbers_is_bit_equal_to_not_editing(any_network: GPT) -> None:
    """A hook on every site, which replaces numbers by themselves."""
    plain = read(any_network, IDS, NO_EDITS, SITES)
    patches = [
        Edit(site, layer, None, 0, N, 0.0, Values("itself", plain.observed(site, layer)))
        for site in ("attention", "mlp", "block")
        for layer in range(3)
    ]
    embedding = Edit("embedding", None, None, 0, N, 0.0, Values("itself", plain.observed("embedding")))
    assert_bit_equal(read(any_network, IDS, Edits((*patches, embedding))), plain)


@pytest.mark.parametrize("edits", MANY, ids=str)
def test_typing_token_by_token_under_edits_equals_the_whole_reading(network: GPT, edits: Edits) -> None:
    trace = Trace(network, ())
    for id in IDS:
        (trace,) = read_batch(network, [(trace, [id])], edits)
    whole = read(network, IDS, edits)
    assert_same(trace, whole)
    assert trace.edits == edits


@pytest.mark.parametrize("edits", MANY, ids=str)
def test_texts_of_one_pass_under_edits_equal_texts_read_alone(network: GPT, edits: Edits) -> None:
    texts = [
        (read(network, IDS[:4], NO_EDITS).prefix(0), IDS),
        (Trace(network, ()), DONOR[:10]),
        (Trace(network, ()), DONOR),
    ]
    started = read_batch(network, [(Trace(network, ()), IDS[:10])], edits)[0]
    traces = read_batch(network, [*texts, (started, IDS[10:])], edits)
    for trace, ids in zip(traces, (IDS, DONOR[:10], DONOR, IDS), strict=True):
        assert_same(trace, read_batch(network, [(Trace(network, ()), ids)], edits)[0])


def test_everything_patched_from_another_text_is_the_reading_of_that_text(any_network: GPT) -> None:
    donor = read(any_network, DONOR, NO_EDITS, SITES)
    embedding = Edit("embedding", None, None, 0, N, 0.0, Values("donor", donor.observed("embedding")))
    assert_bit_equal(read(any_network, IDS, Edits((embedding,))), donor)
    blocks = [
        Edit("block", layer, None, 0, N, 0.0, Values("donor", donor.observed("block", layer))) for layer in range(3)
    ]
    assert torch.equal(read(any_network, IDS, Edits(tuple(blocks))).hidden_TM, donor.hidden_TM)


def test_patched_queries_and_keys_give_the_weights_of_the_other_text(network: GPT) -> None:
    donor = read(network, DONOR).rows(0, N)
    patches = (
        Edit("queries", 1, None, 0, N, 0.0, Values("donor", donor.queries_LHTD[1])),
        Edit("keys", 1, None, 0, N, 0.0, Values("donor", donor.keys_LGTD[1])),
    )
    trace = read(network, IDS, Edits(patches))
    assert torch.equal(trace.stage("weights", 1, HEADS), read(network, DONOR).stage("weights", 1, HEADS))


def test_all_keys_cut_but_one_gives_that_key_the_weight_1(network: GPT) -> None:
    query, kept_key = 6, 2
    cuts = tuple(Cut(1, 3, query, key) for key in range(query + 1) if key != kept_key)
    trace = read(network, IDS, Edits(cuts))
    assert trace.stage("weights", 1, [3])[0, query].tolist() == [float(key == kept_key) for key in range(N)]
    assert torch.equal(trace.context(1, [3])[0, query], trace.values(1, [3])[0, kept_key])


def test_a_layer_whose_heads_are_0_adds_only_the_bias_of_its_output(any_network: GPT) -> None:
    trace = read(any_network, IDS, Edits(tuple(Edit("context", 1, (head,), scale=0.0) for head in HEADS)), SITES)
    bias = any_network.blocks[1].attention.output.bias  # type: ignore[union-attr]
    expected_M = torch.zeros(32, dtype=any_network.dtype) if bias is None else bias
    assert torch.equal(trace.observed("attention", 1), expected_M.expand(N, -1))


def test_rows_and_heads_that_no_edit_names_keep_their_numbers_bit_for_bit(any_network: GPT) -> None:
    contexts: list[Tensor] = []
    heads = any_network.blocks[1].attention.heads  # type: ignore[union-attr]
    hook = heads.register_forward_hook(lambda _, __, output: contexts.append(output[0].clone()))
    plain = read(any_network, IDS)
    edited = read(any_network, IDS, Edits((Cut(1, 2, 7, 3), Edit("scores", 1, (0,), first=9, scale=2.0))))
    hook.remove()
    changed_HT = (contexts[0] != contexts[1]).any(-1)
    assert changed_HT.nonzero().tolist() == [[0, 9], [0, 10], [2, 7]]
    assert torch.equal(plain.hidden_TM[:7], edited.hidden_TM[:7])


def test_a_temperature_of_2_is_half_the_scores_is_half_the_queries(network: GPT) -> None:
    by_temperature = read(network, IDS, Edits((Temperature(1, (2,), 2.0),)))
    by_scores = read(network, IDS, Edits((Edit("scores", 1, (2,), scale=0.5),)))
    by_queries = read(network, IDS, Edits((Edit("queries", 1, (2,), scale=0.5),)))
    assert_close(by_scores.hidden_TM, by_temperature.hidden_TM)
    assert_close(by_queries.hidden_TM, by_temperature.hidden_TM)
    plain = read(network, IDS)
    assert torch.equal(by_temperature.stage("scores", 1, [2]), plain.stage("scores", 1, [2]))
    assert_close(by_temperature.stage("scaled", 1, [2]), plain.stage("scaled", 1, [2]) / 2)


def test_the_stages_of_a_trace_equal_those_by_hand_from_edited_queries_and_keys(network: GPT) -> None:
    edits = Edits(
        (
            Edit("queries", 1, (2,), first=3, scale=2.0),
            Edit("scores", 1, (2,), add=Values("one", torch.ones(1, 1, 1))),
            Temperature(1, None, 0.5),
            Cut(1, 2, 5, 1),
            Drop("weights", (1,), 0.25, 3),
            Edit("context", 1, (2,), scale=0.5),
        )
    )
    plain, trace = read(network, IDS), read(network, IDS, edits)
    q_TD, k_TD, v_TD = (x[0] for x in (plain.queries(1, [2]), plain.keys(1, [2]), plain.values(1, [2])))
    score_TT = torch.cat((q_TD[:3], 2 * q_TD[3:])) @ k_TD.T + 1
    scaled_TT = score_TT / 8**0.5 / 0.5
    masked_TT = scaled_TT.masked_fill(torch.ones(N, N, dtype=torch.bool).triu(1), -torch.inf)
    masked_TT[5, 1] = -torch.inf
    is_kept_TT = random_numbers((3, 1, 1, 2, torch.arange(N)[:, None], torch.arange(N))) >= 0.25
    weight_TT = masked_TT.softmax(-1) * is_kept_TT / 0.75
    expected = dict(zip(STAGES, (score_TT, scaled_TT, masked_TT, weight_TT), strict=True))
    for stage, values_TT in expected.items():
        torch.testing.assert_close(trace.stage(stage, 1, [0, 2])[1], values_TT, atol=1e-5, rtol=1e-5)
        part_RS = dict(trace.stages(1, [2], range(4, 7), range(N)))[stage][0]
        torch.testing.assert_close(part_RS, values_TT[4:7], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(trace.context(1, [2])[0], weight_TT @ v_TD / 2, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("edits", [*MANY, edits_of(NoMask(1, (0, 2)), Cut(1, 2, 1, 9))], ids=str)
def test_the_context_of_a_trace_is_what_the_pass_computed_with(network: GPT, edits: Edits) -> None:
    outputs: list[Tensor] = []
    with ExitStack() as hooks:
        for block in network.blocks:
            output = block.attention.output  # type: ignore[union-attr]
            hook = output.register_forward_pre_hook(lambda _, inputs: outputs.append(inputs[0][0]))
            hooks.enter_context(hook)
        trace = read(network, IDS, edits)
    for layer, context_TX in enumerate(outputs):
        assert_close(trace.context(layer, HEADS).transpose(0, 1).flatten(1), context_TX)


def test_observed_sites_are_the_outputs_of_their_modules(network: GPT) -> None:
    edits = Edits((Edit("mlp", 0, scale=0.5), Edit("embedding", None, add=VECTOR)))
    trace = read(network, IDS, edits, SITES)
    stream_TM = trace.observed("embedding")
    with torch.inference_mode():
        embedded_TM = network.positions.add_positions(network.embed(torch.tensor([IDS])), torch.arange(N))[0]
    assert_close(stream_TM, embedded_TM + 2 * VECTOR.tensor)
    for layer in range(3):
        assert torch.equal(trace.residual(layer), stream_TM)
        stream_TM = stream_TM + trace.observed("attention", layer)
        stream_TM = stream_TM + trace.observed("mlp", layer)
        assert_close(trace.observed("block", layer), stream_TM)
        stream_TM = trace.observed("block", layer)
    assert torch.equal(network.norm_final(stream_TM), trace.hidden_TM)
    assert len(modules_of(network, "mlp")) == 3


def test_a_site_that_was_not_observed_is_an_error_with_a_way_out(network: GPT) -> None:
    trace = read(network, IDS, NO_EDITS, frozenset({"mlp"}))
    assert trace.sites == {"mlp"}
    with pytest.raises(ValueError, match=r"block was not observed; read the text with sites=\{'block'\}"):
        trace.residual(1)
    with pytest.raises(ValueError, match="every other site has one"):
        trace.observed("mlp")


def test_dropout_keeps_the_mean_and_depends_only_on_seed_and_position() -> None:
    rows, columns = torch.arange(300)[:, None], torch.arange(400)
    numbers = random_numbers((7, 1, rows, columns))
    assert abs(float(numbers.mean()) - 0.5) < 0.01
    assert abs(float((numbers < 0.1).double().mean()) - 0.1) < 0.01
    assert torch.equal(numbers[50:60, 7:], random_numbers((7, 1, rows[50:60], columns[7:])))
    assert not torch.equal(numbers, random_numbers((8, 1, rows, columns)))
    assert abs(float(torch.corrcoef(torch.stack((numbers[:-1].flatten(), numbers[1:].flatten())))[0, 1])) < 0.01


def test_dropped_weights_are_0_or_larger_by_the_same_factor(network: GPT) -> None:
    plain, dropped = read(network, IDS), read(network, IDS, Edits((Drop("weights", (0,), 0.25, 3),)))
    plain_HTT, dropped_HTT = plain.stage("weights", 0, HEADS), dropped.stage("weights", 0, HEADS)
    is_kept_HTT = dropped_HTT != 0
    assert_close(dropped_HTT[is_kept_HTT], plain_HTT[is_kept_HTT] / 0.75)
    assert 0.6 < float(is_kept_HTT.sum() / (plain_HTT != 0).sum()) < 0.9


@pytest.mark.parametrize("site", ["context", "scores", "queries"])
def test_hooks_are_removed_even_after_an_error(network: GPT, site: Any) -> None:
    with pytest.raises(IndexError):
        read(network, [401], Edits((Edit(site, 1, (0,), scale=0.0), Edit("block", 0, add=VECTOR))))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_a_text_without_mask_must_be_read_whole(network: GPT) -> None:
    edits = Edits((NoMask(1, None),))
    whole = read(network, IDS, edits)
    assert (whole.stage("weights", 1, HEADS)[:, 0] > 0).all()
    assert whole.stage("weights", 0, [0])[0, 0].tolist() == [1.0] + [0.0] * (N - 1)
    with pytest.raises(ValueError, match="a text must be read whole in one pass"):
        read_batch(network, [(read(network, IDS[:3], edits), IDS[3:])], edits)


def test_a_trace_is_not_continued_under_other_edits(network: GPT) -> None:
    edits = Edits((Edit("mlp", 1, first=4, scale=0.0),))
    with pytest.raises(ValueError, match="a trace under no edits cannot continue under edit:mlp"):
        read_batch(network, [(read(network, IDS[:5]), IDS[5:])], edits)
    with pytest.raises(ValueError, match="cannot continue under"):
        read_batch(network, [(read(network, IDS[:5], edits), IDS[5:])])
    (trace,) = read_batch(network, [(read(network, IDS[:4]), IDS[4:])], edits)
    assert_same(trace, read(network, IDS, edits))


# The cache


@contextmanager
def counting(network: GPT) -> Iterator[dict[str, int]]:
    """How many rows are embedded, and how many go through each layer."""
    rows: dict[str, int] = {}

    def count(name: str) -> Callable[..., None]:
        return lambda _, inputs: rows.__setitem__(name, inputs[0].shape[1])

    with ExitStack() as hooks:
        hooks.enter_context(network.embed.register_forward_pre_hook(count("embed")))
        for layer, block in enumerate(network.blocks):
            hooks.enter_context(block.register_forward_pre_hook(count(f"layer {layer}")))
        yield rows


def read_with(
    cache: PrefixCache,
    network: GPT,
    ids: Sequence[int],
    edits: Edits = NO_EDITS,
    sites: frozenset[ObservedSite] = frozenset(),
) -> Trace:
    """Read a text as the engine does."""
    trace = cache.longest_prefix(network, tuple(ids), edits, sites)
    if trace.n_tokens < len(ids):
        (trace,) = read_batch(network, [(trace, ids[trace.n_tokens :])], edits, sites)
    cache.put(tuple(ids), trace)
    return trace


def test_a_late_edit_reads_only_its_tail(network: GPT) -> None:
    cache = PrefixCache(10_000_000)
    read_with(cache, network, IDS)
    edits = Edits((Edit("mlp", 1, first=8, scale=0.0),))
    with counting(network) as rows:
        trace = read_with(cache, network, IDS, edits)
    assert rows == {"embed": 3, "layer 0": 3, "layer 1": 3, "layer 2": 3}
    assert_same(trace, read(network, IDS, edits))


@pytest.mark.parametrize("sites", [frozenset(), SITES])
def test_an_edited_reading_starts_at_the_first_edited_layer_where_the_residual_stream_is_cached(
    network: GPT, sites: frozenset[ObservedSite]
) -> None:
    cache = PrefixCache(10_000_000)
    read_with(cache, network, IDS, NO_EDITS, sites | {"embedding", "block"})
    edits = Edits((Edit("mlp", 2, first=8, scale=0.0), Cut(1, 2, 9, 4)))
    with counting(network) as rows:
        trace = read_with(cache, network, IDS, edits, sites)
    assert rows == {"layer 1": 3, "layer 2": 3}
    fresh = read(network, IDS, edits, sites)
    assert_same(trace, fresh)
    assert trace.sites == sites
    for site in sites:
        for layer in [None] if site == "embedding" else range(3):
            assert_close(trace.observed(site, layer), fresh.observed(site, layer))
    with counting(network) as rows:
        read_with(cache, network, IDS, edits, sites)
    assert rows == {}


def test_a_text_that_goes_on_past_the_unedited_one_starts_at_the_bottom(network: GPT) -> None:
    cache = PrefixCache(10_000_000)
    read_with(cache, network, IDS, NO_EDITS, SITES)
    edits = Edits((Edit("mlp", 2, scale=0.0),))
    with counting(network) as rows:
        trace = read_with(cache, network, [*IDS, 3], edits)
    assert rows["layer 0"] == N + 1
    assert_same(trace, read(network, [*IDS, 3], edits))


def test_a_trace_that_lacks_a_site_is_read_again_and_only_then(network: GPT) -> None:
    cache = PrefixCache(10_000_000)
    plain = read_with(cache, network, IDS)
    with counting(network) as rows:
        richer = read_with(cache, network, IDS, NO_EDITS, frozenset({"mlp"}))
    assert rows["embed"] == N
    assert cache.longest_prefix(network, IDS) is richer
    cache.put(IDS, plain)  # knows less
    assert cache.longest_prefix(network, IDS) is richer
    assert cache.longest_prefix(network, IDS, NO_EDITS, frozenset({"mlp"})) is richer
    assert cache.longest_prefix(network, IDS, NO_EDITS, SITES).n_tokens == 0
    assert read_with(cache, network, [*IDS, 1]).sites == frozenset()


def test_the_cache_holds_edited_and_unedited_traces_of_a_text_side_by_side(network: GPT) -> None:
    cache = PrefixCache(10_000_000)
    edits, others = Edits((Edit("mlp", 1, scale=0.0),)), Edits((Edit("mlp", 1, scale=0.5),))
    traces = [read_with(cache, network, IDS, each) for each in (NO_EDITS, edits, others)]
    assert [cache.longest_prefix(network, IDS, each) for each in (NO_EDITS, edits, others)] == traces
    assert cache.longest_prefix(network, IDS[:5], edits).edits == edits
    chunks = {chunk for trace in cache._traces.values() for chunk in trace.chunks}
    assert cache.n_bytes == sum(chunk.n_bytes for chunk in chunks)
    cache.evict_model(network)
    assert (len(cache), cache.n_bytes) == (0, 0)


def test_a_text_without_mask_is_found_again_only_whole(network: GPT) -> None:
    cache = PrefixCache(10_000_000)
    edits = Edits((NoMask(1, (0,)),))
    whole = read_with(cache, network, IDS, edits)
    assert cache.longest_prefix(network, IDS, edits) is whole
    assert cache.longest_prefix(network, IDS[:5], edits).n_tokens == 0
    assert cache.longest_prefix(network, (*IDS, 1), edits).n_tokens == 0


def test_a_long_text_under_edits_is_the_same_in_pieces(network: GPT) -> None:
    ids, edits = [(7 * i + i * i) % 400 for i in range(60)], Edits((Temperature(1, (1, 3), 0.7), Cut(2, 0, 40, 3)))
    trace = Trace(network, ())
    for first in range(0, 60, 23):
        (trace,) = read_batch(network, [(trace, ids[first : first + 23])], edits)
    assert_same(trace, read(network, ids, edits))


def test_the_stages_of_attention_are_the_unedited_ones_where_nothing_is_edited(network: GPT) -> None:
    trace = read(network, IDS, Edits((Edit("mlp", 1, scale=0.0),)))
    score_HTT = attention.scores(trace.queries(2, HEADS), trace.keys(2, HEADS))
    expected_HTT = attention.attention_weights(score_HTT, network.config.d_head)
    assert torch.equal(trace.stage("weights", 2, HEADS), expected_HTT)
