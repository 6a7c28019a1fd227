"""The files of a tokenizer give the ids that their own library gives, or are refused by the name of a field.

The oracle is the `tokenizers` library for a tokenizer.json, and `transformers` for the other files.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import ByteLevelBPETokenizer, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as OracleTokenizer
from transformers import GPT2Tokenizer

from model.tokenizer import GPT2_PATTERN, LLAMA3_PATTERN, Tokenizer, TokenizerError
from model.weights.byte_level import byte_level_tokenizer
from model.weights.folder import load
from model.weights.names import WeightsError
from model.weights.tokenizer_fields import FIELDS
from model.weights.tokenizer_files import load_tokenizer
from tests.checkpoints import CORPUS
from tests.conftest import CPU, FLOAT
from tests.texts import varied

Json = dict[str, Any]

BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
BYTES_ONLY = BYTE_LEVEL | {"use_regex": False}
SPLIT = {"type": "Split", "pattern": {"Regex": LLAMA3_PATTERN}, "behavior": "Isolated", "invert": False}
TEMPLATE = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}},
}


def sequence(*steps: Json) -> Json:
    return {"type": "Sequence", "pretokenizers": list(steps)}


def train(corpus: list[str] = CORPUS) -> Json:
    """A tokenizer.json that `tokenizers` wrote: byte-level BPE with <s> and <s>x, as GPT-2's is."""
    oracle = OracleTokenizer(models.BPE())
    oracle.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    oracle.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    names = ["<s>", "<s>x"]
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, special_tokens=names, show_progress=False)
    oracle.train_from_iterator(corpus, trainer)
    written: Json = json.loads(oracle.to_str())
    return written


TRAINED = train()


def changed(path: str, value: object) -> Json:
    """The same tokenizer.json with one field changed: changed("model.dropout", 0.5)."""
    whole: Any = json.loads(json.dumps(TRAINED))
    *parents, name = [int(part) if part.isdecimal() else part for part in path.split(".")]
    node = whole
    for part in parents:
        node = node[part]
    node[name] = value
    return dict(whole)


def written(folder: Path, content: Json, **other_files: Json) -> Path:
    """A folder with this tokenizer.json, and other JSON files."""
    (folder / "tokenizer.json").write_text(json.dumps(content))
    for name, other_content in other_files.items():
        (folder / f"{name}.json").write_text(json.dumps(other_content))
    return folder


def differing(tokenizer: Tokenizer, oracle: OracleTokenizer, texts: list[str]) -> list[str]:
    """The texts whose ids differ from the oracle's, with names of special tokens as text or as tokens."""
    wrong = []
    for as_tokens in (False, True):
        oracle.encode_special_tokens = not as_tokens
        wrong += [
            text
            for text in texts
            if list(tokenizer.encode(text, special_tokens=as_tokens).ids) != oracle.encode(text).ids
        ]
    return wrong


TEXTS = [*varied(), "<s>", "a<s>b", "<s>x", "a <s>xy <s>", "<s><s>x<s", "<|begin_of_text|>hi"]

ACCEPTED: dict[str, Json] = {
    "as trained": TRAINED,
    "a space in front": changed("pre_tokenizer.add_prefix_space", True),
    "a Sequence of one": changed("pre_tokenizer", sequence(BYTE_LEVEL)),
    "digits": changed("pre_tokenizer", sequence({"type": "Digits", "individual_digits": True}, BYTE_LEVEL)),
    "Llama 3's pattern": changed("pre_tokenizer", sequence(SPLIT, BYTES_ONLY)),
    "GPT-2's pattern as a Split": changed(
        "pre_tokenizer",
        sequence(
            SPLIT
            | {"pattern": {"Regex": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"}},
            BYTES_ONLY,
        ),
    ),
    "an empty normalizer": changed("normalizer", {"type": "Sequence", "normalizers": []}),
    "offsets trimmed": changed("post_processor", BYTE_LEVEL),
    "a template without tokens": changed(
        "post_processor", TEMPLATE | {"single": [{"Sequence": {"id": "A", "type_id": 0}}]}
    ),
    "empty affixes": changed("model", TRAINED["model"] | {"continuing_subword_prefix": "", "end_of_word_suffix": ""}),
    "an unknown token for no byte": changed("model.unk_token", "<s>"),
    "normalized names": changed("added_tokens", [t | {"normalized": True} for t in TRAINED["added_tokens"]]),
    "an added token that merges make too": changed(
        "added_tokens",
        [
            *TRAINED["added_tokens"],
            TRAINED["added_tokens"][0] | {"content": "mat", "id": TRAINED["model"]["vocab"]["mat"]},
        ],
    ),
    "a name in another script": changed(
        "added_tokens",
        [
            *TRAINED["added_tokens"],
            TRAINED["added_tokens"][0] | {"content": "<｜猫｜>", "id": len(TRAINED["model"]["vocab"])},
        ],
    ),
}


@pytest.fixture(scope="module", params=ACCEPTED.values(), ids=list(ACCEPTED))
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Tokenizer, OracleTokenizer]:
    """A supported tokenizer.json, read by us and by its own library."""
    folder = written(tmp_path_factory.mktemp("tokenizer"), request.param)
    return load_tokenizer(folder), OracleTokenizer.from_file(str(folder / "tokenizer.json"))


def test_every_supported_file_gives_the_ids_of_its_own_library(both: tuple[Tokenizer, OracleTokenizer]) -> None:
    assert differing(*both, TEXTS) == []


@given(
    text=st.lists(
        st.sampled_from(["<s>", "x", " ", "mat", "the cat", "1", "\n", "é", "猫", "'s", "<｜猫｜>", "\r\n"])
    ).map("".join)
)
@settings(max_examples=40)
def test_it_gives_the_same_ids_on_texts_full_of_special_tokens(
    both: tuple[Tokenizer, OracleTokenizer], text: str
) -> None:
    assert differing(*both, [text]) == []


PRE = "pre_tokenizer"
REFUSED: list[tuple[str, object, str]] = [
    ("truncation_side", 1, r"tokenizer\.json: truncation_side \(1\) is a field that Lookback does not know"),
    ("model.ignore_merges", True, r"tokenizer\.json: model\.ignore_merges is true; Lookback reads false"),
    ("model.byte_fallback", True, r"model\.byte_fallback is true"),
    ("model.dropout", 0.1, r"model\.dropout is 0\.1; Lookback reads null or 0\.0"),
    ("model.continuing_subword_prefix", "##", r'model\.continuing_subword_prefix is "##"'),
    ("model.end_of_word_suffix", "</w>", r'model\.end_of_word_suffix is "</w>"'),
    ("model.max_input_chars_per_word", 100, r"model\.max_input_chars_per_word \(100\) is a field that"),
    ("model.type", "WordPiece", r"model\.type is 'WordPiece'; Lookback reads byte-level BPE"),
    ("normalizer", {"type": "NFC"}, r'normalizer\.type is "NFC"'),
    ("normalizer", {"type": "Lowercase"}, r'normalizer\.type is "Lowercase"'),
    ("normalizer", {"type": "Sequence", "normalizers": [{"type": "NFKC"}]}, r"normalizer\.normalizers is \[{.*NFKC"),
    ("added_tokens.1.special", False, r"tokenizer\.json: added_tokens\[1\]\.special is false; Lookback reads true"),
    ("added_tokens.1.lstrip", True, r"added_tokens\[1\]\.lstrip is true"),
    ("added_tokens.1.rstrip", True, r"added_tokens\[1\]\.rstrip is true"),
    ("added_tokens.0.single_word", True, r"added_tokens\[0\]\.single_word is true"),
    ("added_tokens.0.normalized", True, r"added_tokens\[0\]\.normalized is True; it has to be the same for all"),
    ("added_tokens.0.id", 7, r"added_tokens\[0\]\.id is 7 for '<s>', which is 0 by the order of the vocabulary"),
    ("added_tokens.0.prepend", 7, r"added_tokens\[0\]\.prepend \(7\) is a field that"),
    ("pre_tokenizer", None, r"pre_tokenizer is null; Lookback reads byte-level BPE"),
    ("pre_tokenizer", {"type": "Metaspace"}, r'pre_tokenizer\.type is "Metaspace"'),
    ("pre_tokenizer.use_regex", False, r"pre_tokenizer is ByteLevel with use_regex false"),
    (PRE, sequence(), "pre_tokenizer is empty"),
    (PRE, sequence(SPLIT | {"behavior": "Removed"}, BYTES_ONLY), r'pretokenizers\[0\]\.behavior is "Removed"'),
    (PRE, sequence(SPLIT | {"behavior": "MergedWithNext"}, BYTES_ONLY), r"pretokenizers\[0\]\.behavior is"),
    (PRE, sequence(SPLIT | {"invert": True}, BYTES_ONLY), r"pretokenizers\[0\]\.invert is true"),
    (PRE, sequence(SPLIT | {"pattern": {"Regex": r"\p{L}+"}}, BYTES_ONLY), r"pretokenizers\[0\]\.pattern is {"),
    (PRE, sequence(SPLIT | {"pattern": {"String": " "}}, BYTES_ONLY), r"pretokenizers\[0\]\.pattern is {"),
    (PRE, sequence(SPLIT, BYTE_LEVEL), "Split then ByteLevel with use_regex true"),
    (PRE, sequence({"type": "Digits", "individual_digits": True}, BYTES_ONLY), "Digits then ByteLevel with"),
    (PRE, sequence({"type": "Digits", "individual_digits": False}, BYTE_LEVEL), "individual_digits is false"),
    (PRE, sequence(SPLIT, BYTES_ONLY | {"add_prefix_space": True}), r"\[1\]\.add_prefix_space is true after"),
    (PRE, sequence(BYTE_LEVEL, BYTES_ONLY), "ByteLevel then ByteLevel"),
    ("post_processor", TEMPLATE, r"post_processor\.single puts <s> around every text"),
    (
        "post_processor",
        {"type": "Sequence", "processors": [BYTE_LEVEL, TEMPLATE]},
        r"post_processor\.processors\[1\]\.single puts <s> around",
    ),
    ("post_processor", {"type": "RobertaProcessing", "sep": ["</s>", 2]}, r"post_processor is {.*RobertaProcessing"),
    ("model.vocab.▁the", 390, "not a byte-level BPE"),
    ("model.vocab.mat", 0, "gives one id to several tokens"),
]


@pytest.mark.parametrize(
    ("path", "value", "words"), REFUSED, ids=[f"{path}={value}"[:40] for path, value, _ in REFUSED]
)
def test_a_field_that_would_change_ids_is_refused_by_its_path(
    tmp_path: Path, path: str, value: object, words: str
) -> None:
    with pytest.raises(TokenizerError, match=words):
        load_tokenizer(written(tmp_path, changed(path, value)))


def test_every_field_with_allowed_values_has_a_refused_value_here() -> None:
    names = {path.split(".")[-1] for path, _, _ in REFUSED} | {"normalizers", "individual_digits", "behavior", "invert"}
    with_values = {field for table in FIELDS.values() for field, values in table.items() if values is not None}
    assert with_values <= names


def test_a_byte_without_a_token_and_an_unknown_token_for_it_are_refused(tmp_path: Path) -> None:
    vocab = {token: id for token, id in TRAINED["model"]["vocab"].items() if token != "ÿ"}
    without = changed("model", TRAINED["model"] | {"vocab": vocab})
    assert load_tokenizer(written(tmp_path, without)).lacks_bytes
    without["model"]["unk_token"] = "<s>"
    with pytest.raises(TokenizerError, match=r"model\.unk_token is '<s>', which stands for bytes without a token"):
        load_tokenizer(written(tmp_path, without))


def test_a_file_like_llama_3s_is_refused_by_field_and_read_without_those_fields(tmp_path: Path) -> None:
    whole = changed(PRE, sequence(SPLIT, BYTES_ONLY))
    whole["model"]["ignore_merges"] = True
    whole["post_processor"] = {"type": "Sequence", "processors": [BYTES_ONLY, TEMPLATE]}
    with pytest.raises(TokenizerError, match=r"model\.ignore_merges"):
        load_tokenizer(written(tmp_path, whole))
    whole["model"]["ignore_merges"] = False
    with pytest.raises(TokenizerError, match=r"post_processor\.processors\[1\]\.single puts <s>"):
        load_tokenizer(written(tmp_path, whole))
    whole["post_processor"] = None
    tokenizer = load_tokenizer(written(tmp_path, whole))
    assert differing(tokenizer, OracleTokenizer.from_str(json.dumps(whole)), TEXTS) == []


def test_gpt2s_own_tokenizer_json_is_read(tmp_path: Path, tiny_gpt2: Path) -> None:
    """As the hub has it: one special token, normalized; empty affixes; a ByteLevel post-processor; merges as lines."""
    vocab = json.loads((tiny_gpt2 / "vocab.json").read_text())
    lines = (tiny_gpt2 / "merges.txt").read_text().splitlines()
    merges = [line for line in lines if line and not line.startswith("#version")]
    token = {"id": 0, "special": True, "content": "<|endoftext|>", "single_word": False, "lstrip": False}
    as_published = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [token | {"rstrip": False, "normalized": True}],
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True},
        "post_processor": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True},
        "model": {
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "vocab": vocab,
            "merges": merges,
        },
    }
    tokenizer = load_tokenizer(written(tmp_path, as_published, tokenizer_config={"model_max_length": 1024}))
    without_merges = load_tokenizer(tiny_gpt2)
    assert [text for text in TEXTS if tokenizer.encode(text).ids != without_merges.encode(text).ids] == []


# ---- vocab.json with merges.txt, and the other files


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """vocab.json and merges.txt, with <|endoftext|> and <pad> in the vocabulary."""
    tokenizer = ByteLevelBPETokenizer()
    names = ["<|endoftext|>", "<pad>"]
    tokenizer.train_from_iterator(CORPUS, vocab_size=400, special_tokens=names, show_progress=False)
    tokenizer.save_model(str(tmp_path))
    return tmp_path


def test_openais_old_names_are_the_same_files(pair: Path) -> None:
    before = load_tokenizer(pair).encode("the fat cat")
    (pair / "vocab.json").rename(pair / "encoder.json")
    (pair / "merges.txt").rename(pair / "vocab.bpe")
    assert load_tokenizer(pair).encode("the fat cat") == before


@pytest.mark.parametrize(
    "other_files",
    [
        {},
        {"tokenizer_config": {"model_max_length": 64, "tokenizer_class": "GPT2Tokenizer"}},
        {"tokenizer_config": {"add_prefix_space": True}},
        {"tokenizer_config": {"pad_token": "<pad>", "add_bos_token": False}},
        {"special_tokens_map": {"pad_token": {"content": "<pad>", "lstrip": False}}, "added_tokens": {"<pad>": 1}},
        {"tokenizer_config": {"added_tokens_decoder": {"1": {"content": "<pad>", "special": True, "lstrip": False}}}},
    ],
    ids=lambda other_files: " ".join(other_files) or "no other file",
)
def test_the_other_files_have_the_effect_that_they_have_in_transformers(
    pair: Path, other_files: dict[str, Json]
) -> None:
    for name, content in other_files.items():
        (pair / f"{name}.json").write_text(json.dumps(content))
    tokenizer, oracle = load_tokenizer(pair), GPT2Tokenizer.from_pretrained(pair)
    texts = [
        *TEXTS[::5],
        "a<|endoftext|> b",
        "<|endoftext|>",
        *(["x<pad>y", "<pad>"] if "<pad>" in tokenizer.special else []),
    ]
    assert [t for t in texts if list(tokenizer.encode(t, special_tokens=True).ids) != oracle(t).input_ids] == []


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("tokenizer_config", {"add_bos_token": True}, r"tokenizer_config\.json: add_bos_token is true"),
        ("tokenizer_config", {"do_lower_case": True}, r"tokenizer_config\.json: do_lower_case is true"),
        ("tokenizer_config", {"trim_accents": True}, r"trim_accents \(true\) is a field that Lookback does not know"),
        ("tokenizer_config", {"bos_token": "<bos>"}, r"bos_token is '<bos>', which is not in the vocabulary"),
        (
            "tokenizer_config",
            {"added_tokens_decoder": {"400": {"content": "<x>", "special": True}}},
            r"added_tokens_decoder\.400 gives '<x>' the id 400; the vocabulary does not have it",
        ),
        (
            "tokenizer_config",
            {"added_tokens_decoder": {"7": {"content": "<pad>", "special": True}}},
            r"gives '<pad>' the id 7; the vocabulary gives it the id 1",
        ),
        (
            "tokenizer_config",
            {"added_tokens_decoder": {"1": {"content": "<pad>", "special": False}}},
            r"added_tokens_decoder\.1\.special is false",
        ),
        (
            "tokenizer_config",
            {"added_tokens_decoder": {"1": {"content": "<pad>", "special": True, "rstrip": True}}},
            r"added_tokens_decoder\.1\.rstrip is true",
        ),
        ("added_tokens", {"<pad>": 1}, r"added_tokens\.json: '<pad>' is no special token"),
        ("added_tokens", {"<|endoftext|>": 9}, r"added_tokens\.json gives '<\|endoftext\|>' the id 9; the vocab"),
        ("special_tokens_map", {"eos_token": {"content": "<pad>", "lstrip": True}}, r"eos_token\.lstrip is true"),
        ("special_tokens_map", {"additional_special_tokens": ["<x>"]}, r"additional_special_tokens is '<x>', which is"),
    ],
)  # fmt: skip
def test_a_field_of_another_file_that_would_change_ids_is_refused_by_its_name(
    pair: Path, name: str, content: Json, words: str
) -> None:
    (pair / f"{name}.json").write_text(json.dumps(content))
    with pytest.raises(TokenizerError, match=words):
        load_tokenizer(pair)


def test_files_that_disagree_about_the_prefix_space_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        TokenizerError, match=r"add_prefix_space is True, and the pre_tokenizer of tokenizer\.json says F"
    ):
        load_tokenizer(written(tmp_path, TRAINED, tokenizer_config={"add_prefix_space": True}))


def test_a_sentencepiece_model_is_refused_by_its_kind(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(b"\n\x0e")
    with pytest.raises(
        WeightsError, match=r"Its tokenizer\.model is a sentencepiece model, which Lookback does not read"
    ):
        load_tokenizer(tmp_path)


# ---- merges


def vocabulary_with(merges: list[tuple[int, int]]) -> tuple[dict[str, int], list[str]]:
    """A vocabulary of all bytes and the products of these merges; a merge has the indices of two tokens."""
    vocab = {character: id for id, character in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokens, lines = ["a", "b", "c"], []
    for left, right in merges:
        first, second = tokens[left % len(tokens)], tokens[right % len(tokens)]
        vocab.setdefault(first + second, len(vocab))
        tokens.append(first + second)
        lines.append(f"{first} {second}")
    return vocab, lines


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=7), st.lists(st.text("abc ", max_size=12)))
@settings(max_examples=150)
def test_any_merges_give_the_ids_of_their_library_or_are_refused(
    merges: list[tuple[int, int]], texts: list[str]
) -> None:
    vocab, lines = vocabulary_with(merges)
    try:
        tokenizer = byte_level_tokenizer(vocab, lines, special={}, pattern=GPT2_PATTERN)
    except TokenizerError as refused:
        assert "merges" in str(refused)
        return
    oracle = OracleTokenizer(
        models.BPE(vocab=vocab, merges=[(left, right) for left, right in (line.split(" ") for line in lines)])
    )
    oracle.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    assert [text for text in texts if list(tokenizer.encode(text).ids) != oracle.encode(text).ids] == []


def test_a_token_that_its_merges_never_produce_is_refused() -> None:
    """ab merges first, so a and bc never merge to abc; tiktoken would find the whole word in the vocabulary."""
    vocab = vocabulary_with([])[0] | {"ab": 256, "bc": 257, "abc": 258}
    with pytest.raises(TokenizerError, match="merges never lead to the token 'abc'"):
        byte_level_tokenizer(vocab, ["a b", "b c", "a bc"], special={}, pattern=GPT2_PATTERN)


# ---- ids and rows


def test_ids_beyond_the_rows_of_the_embedding_are_refused_with_both_numbers(tiny_gpt2: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_gpt2, tmp_path / "gpt2"))
    vocab = json.loads((folder / "vocab.json").read_text())
    (folder / "vocab.json").write_text(json.dumps(vocab | {"Ġextra": 412}))
    with pytest.raises(WeightsError, match=r"ids up to 412 \(·extra\), but transformer\.wte\.weight has 400 rows"):
        load(folder, device=CPU, dtype=FLOAT)


# ---- bytes


@given(text=st.text(max_size=30))
def test_the_bytes_of_tokens_and_of_dropped_characters_are_the_text(text: str) -> None:
    vocab = {bytes([byte]): byte for byte in range(256) if byte not in (0xC3, ord("z"))}
    tokenizer = Tokenizer(vocab=vocab | {b"ab": 300}, merges=[(b"a", b"b")], special={"<s>": 301}, pattern=GPT2_PATTERN)
    for special_tokens in (False, True):
        tokens = tokenizer.encode(text, special_tokens=special_tokens)
        dropped = {character.start for character in tokens.dropped}
        token_bytes = b"".join(token.bytes for token in tokens.tokens)
        assert token_bytes == bytes(byte for byte in text.encode() if byte not in (0xC3, ord("z")))
        assert {i for i, character in enumerate(text) if {0xC3, ord("z")} & set(character.encode())} == dropped


def test_a_pattern_that_leaves_text_out_is_an_error() -> None:
    vocab = {bytes([byte]): byte for byte in range(256)}
    tokenizer = Tokenizer(vocab=vocab, merges=[], special={}, pattern=r"\p{L}+")
    assert len(tokenizer.encode("cat")) == 3
    with pytest.raises(
        TokenizerError, match="the tokens of this text are not the text: the tokenizer's pattern leaves out some of"
    ):
        tokenizer.encode("the cat")


def test_an_id_without_a_token_has_a_label() -> None:
    tokenizer = Tokenizer(vocab={b"a": 0, b" ": 1}, merges=[], special={}, pattern=GPT2_PATTERN)
    assert [tokenizer.label(id) for id in (0, 1, 50301)] == ["a", "·", "(no token 50301)"]
