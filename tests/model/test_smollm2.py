"""The real SmolLM2: Lookback's copy gives the numbers of `transformers` and `tokenizers` on the published file."""

from pathlib import Path

import pytest
import torch
from gguf import GGUFReader
from tokenizers import Tokenizer as OracleTokenizer
from tokenizers import models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedModel

from model.gpt import GPT
from model.reading import observing, read
from model.tokenizer import Tokenizer
from tests.texts import varied

FAT_CAT = " the fat cat sat on the mat"
LONGER = (
    "Attention answers, for each word, how much to take every other word into account.\n\n1. The fat cat, 42 mats "
    "and a café: 猫が座った 👍\n\tdef f(x): return x"
)


@pytest.fixture(scope="module")
def oracle(smollm2_gguf: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(
        smollm2_gguf.parent, gguf_file=smollm2_gguf.name, dtype=torch.float32, attn_implementation="eager"
    ).eval()


@pytest.fixture(scope="module")
def token_oracle(smollm2_gguf: Path) -> OracleTokenizer:
    """Built here, because the tokenizer that `transformers` makes of a GGUF file does not split numbers into digits."""
    fields = GGUFReader(smollm2_gguf).fields
    vocab = {token: id for id, token in enumerate(fields["tokenizer.ggml.tokens"].contents())}
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"].contents()]
    tokenizer = OracleTokenizer(models.BPE(vocab=vocab, merges=merges))
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [digits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
    )
    return tokenizer


TEXTS = [FAT_CAT, LONGER, "x"]


@pytest.mark.parametrize("text", TEXTS)
def test_logits_equal_those_of_transformers(smollm2: tuple[GPT, Tokenizer], oracle: PreTrainedModel, text: str) -> None:
    """Compared with its fused attention, which Lookback uses too.

    Its eager attention differs from its fused attention by up to 2.5e-4 in one row of LONGER, where float32 differs
    from float64 by 6e-4 (fused) and 8.5e-4 (eager).
    """
    network, tokenizer = smollm2
    ids = tokenizer.encode(text).ids
    oracle.set_attn_implementation("sdpa")
    with torch.inference_mode():
        expected = oracle(torch.tensor([ids])).logits[0]
    torch.testing.assert_close(read(network, ids).logits(range(len(ids))), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("text", TEXTS)
def test_weights_of_every_layer_equal_those_of_transformers(
    smollm2: tuple[GPT, Tokenizer], oracle: PreTrainedModel, text: str
) -> None:
    network, tokenizer = smollm2
    ids = tokenizer.encode(text).ids
    trace = read(network, ids)
    oracle.set_attn_implementation("eager")  # only eager attention returns weights
    with torch.inference_mode():
        expected = oracle(torch.tensor([ids]), output_attentions=True)
    for layer, attention_BHTT in enumerate(expected.attentions):
        torch.testing.assert_close(trace.stage("weights", layer, range(9)), attention_BHTT[0], atol=1e-4, rtol=0)
    if text != LONGER:
        torch.testing.assert_close(trace.logits(range(len(ids))), expected.logits[0], atol=1e-4, rtol=0)


def test_logits_with_and_without_hooks_are_bit_equal(smollm2: tuple[GPT, Tokenizer]) -> None:
    network, tokenizer = smollm2
    ids_BT = torch.tensor([tokenizer.encode(LONGER).ids])
    with torch.inference_mode():
        without = network(ids_BT)
        with observing(network):
            assert torch.equal(network(ids_BT), without)


def test_rows_of_weights_sum_to_one_and_masked_weights_are_exactly_zero(smollm2: tuple[GPT, Tokenizer]) -> None:
    network, tokenizer = smollm2
    trace = read(network, tokenizer.encode(LONGER).ids)
    is_masked = torch.ones(trace.n_tokens, trace.n_tokens, dtype=torch.bool).triu(1)
    for layer in range(30):
        weights_HTT = trace.stage("weights", layer, range(9))
        torch.testing.assert_close(weights_HTT.sum(-1), torch.ones(9, trace.n_tokens), atol=1e-5, rtol=0)
        assert (weights_HTT[:, is_masked] == 0).all()


def test_appending_a_token_leaves_earlier_rows_unchanged(smollm2: tuple[GPT, Tokenizer]) -> None:
    network, tokenizer = smollm2
    ids = tokenizer.encode(FAT_CAT).ids
    prefix, whole = read(network, ids[:-1]), read(network, ids)
    for layer in range(30):
        expected = whole.stage("weights", layer, range(9))[:, :-1, :-1]
        torch.testing.assert_close(prefix.stage("weights", layer, range(9)), expected, atol=1e-5, rtol=0)


def test_the_model_continues_that_the_capital_of_france_is_paris(smollm2: tuple[GPT, Tokenizer]) -> None:
    network, tokenizer = smollm2
    ids = list(tokenizer.encode("The capital of France is").ids)
    n = len(ids)
    for _ in range(4):
        ids.append(int(read(network, ids).logits([-1])[0].argmax()))
    assert tokenizer.decode(ids[n:]).startswith(" Paris")


def test_cat_attends_to_fat_and_mat_does_not(smollm2: tuple[GPT, Tokenizer]) -> None:
    """In layer 11, head 7, which the page shows first. Measured with `transformers`."""
    network, tokenizer = smollm2
    weights_TT = read(network, tokenizer.encode(FAT_CAT).ids).stage("weights", 11, [7])[0]
    cat, fat, mat = 2, 1, 6
    assert weights_TT[cat, fat].item() == pytest.approx(0.82, abs=0.01)
    assert weights_TT[mat, fat].item() == pytest.approx(0.02, abs=0.01)


def test_token_ids_equal_those_of_tokenizers(smollm2: tuple[GPT, Tokenizer], token_oracle: OracleTokenizer) -> None:
    texts = varied()
    assert len(texts) >= 800
    wrong = [text for text in texts if list(smollm2[1].encode(text).ids) != token_oracle.encode(text).ids]
    assert wrong == []


def test_decoding_returns_every_text_that_the_vocabulary_covers(smollm2: tuple[GPT, Tokenizer]) -> None:
    tokenizer = smollm2[1]
    covered = [text for text in varied() if not tokenizer.encode(text).dropped]
    assert len(covered) >= 800
    assert [tokenizer.decode(tokenizer.encode(text).ids) for text in covered] == covered


def test_bytes_without_a_token_are_dropped(smollm2: tuple[GPT, Tokenizer]) -> None:
    dropped = {b for b in range(0x80) if smollm2[1].encode(f"a{chr(b)}b").dropped}
    assert dropped == {0x04, 0x06, 0x13, 0x14, 0x16, 0x1D}
    planes = {plane for plane in range(1, 17) if smollm2[1].encode(chr((plane << 16) + 0x300)).dropped}
    assert planes == set(range(4, 12))  # their first bytes are 0xf1 and 0xf2


def test_the_name_of_a_special_token_is_ordinary_text_by_default(smollm2: tuple[GPT, Tokenizer]) -> None:
    tokenizer = smollm2[1]
    ordinary = tokenizer.encode("<|im_start|>user")
    assert tokenizer.special["<|im_start|>"] not in ordinary.ids
    special = tokenizer.encode("<|im_start|>user", special_tokens=True)
    assert special.ids == (tokenizer.special["<|im_start|>"], *tokenizer.encode("user").ids)
    assert [(t.start, t.end) for t in special.tokens] == [(0, 12), (12, 16)]
    assert tokenizer.encode("<|im_start|>\x04user", special_tokens=True).ids == special.ids
