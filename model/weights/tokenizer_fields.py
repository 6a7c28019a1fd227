"""The fields of the files of a tokenizer: which are read, and with which values token ids are those that we compute."""

from collections.abc import Mapping, Sequence
from typing import Required, TypedDict

from model.tokenizer import GPT2_PATTERN, LLAMA3_PATTERN

ANY = None  # in the tables below: any value is allowed, because it does not change ids

# tokenizer.json: every known field, and its allowed values.
BYTE_LEVEL = {"type": ANY, "add_prefix_space": ANY, "trim_offsets": ANY, "use_regex": ANY}
FIELDS: Mapping[str, Mapping[str, Sequence[object] | None]] = {
    "": {
        "version": ANY,
        "truncation": ANY,  # used by `transformers` on request, for batches; we never truncate
        "padding": ANY,
        "added_tokens": ANY,  # this field and the next ones have tables or functions of their own
        "normalizer": ANY,
        "pre_tokenizer": ANY,
        "post_processor": ANY,
        "decoder": ANY,  # used from ids to text only
        "model": ANY,
    },
    "model": {
        "type": ("BPE",),
        "dropout": (None, 0.0),
        "unk_token": ANY,  # stands for bytes without a token; refused if there are such bytes
        "fuse_unk": ANY,
        "continuing_subword_prefix": (None, ""),
        "end_of_word_suffix": (None, ""),
        "byte_fallback": (False, None),
        "ignore_merges": (False, None),
        "vocab": ANY,
        "merges": ANY,
    },
    "added_tokens[*]": {
        "id": ANY,
        "content": ANY,
        "special": (True,),
        "single_word": (False,),
        "lstrip": (False,),
        "rstrip": (False,),
        "normalized": ANY,  # no effect without a normalizer
    },
    "normalizer": {"type": ("Sequence",), "normalizers": ([],)},
    "ByteLevel": BYTE_LEVEL,
    "Digits": {"type": ANY, "individual_digits": (True,)},
    "Split": {"type": ANY, "pattern": ANY, "behavior": ("Isolated",), "invert": (False, None)},
}

# The known patterns of a Split, and how we write them. Their matches cover every text, so no character is lost.
SPLITS = {
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+": GPT2_PATTERN,
    LLAMA3_PATTERN: LLAMA3_PATTERN,
}

# Fields that name special tokens, in tokenizer_config.json and special_tokens_map.json: one name, or several.
NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
LIST_NAMES = ("additional_special_tokens", "extra_special_tokens", "model_specific_special_tokens")
FLAGS = ("lstrip", "rstrip", "single_word")
# tokenizer_config.json: every known field, and its allowed values.
CONFIG_FIELDS: Mapping[str, Sequence[object] | None] = {
    **dict.fromkeys((*NAMES, *LIST_NAMES, "added_tokens_decoder", "add_prefix_space"), ANY),
    **dict.fromkeys(
        """
        _commit_hash backend chat_template clean_up_tokenization_spaces errors from_slow is_local legacy
        local_files_only max_len max_length model_input_names model_max_length name_or_path pad_to_multiple_of
        pad_token_type_id padding padding_side processor_class return_token_type_ids special_tokens_map_file
        split_special_tokens stride
        spaces_between_special_tokens tokenizer_class tokenizer_file transformers_version trim_offsets truncation
        truncation_side truncation_strategy use_auth_token use_default_system_prompt use_fast verbose vocab_size
        """.split(),  # noqa: SIM905
        ANY,
    ),
    "add_bos_token": (False, None),
    "add_eos_token": (False, None),
    "do_lower_case": (False, None),
    "normalization": (False, None),
    "auto_map": (None,),  # code that came with the checkpoint
}


class AddedToken(TypedDict, total=False):
    """An entry of `added_tokens` in tokenizer.json."""

    id: Required[int]
    content: Required[str]
    special: bool
    normalized: bool
    lstrip: bool
    rstrip: bool
    single_word: bool


class BpeModel(TypedDict, total=False):
    """`model` in tokenizer.json."""

    type: str
    vocab: Required[dict[str, int]]
    merges: Required[list[str] | list[tuple[str, str]]]
    unk_token: str | None


class PreTokenizer(TypedDict, total=False):
    """`pre_tokenizer` in tokenizer.json, or a step of it."""

    type: str
    pretokenizers: list["PreTokenizer"]  # of a Sequence
    use_regex: bool  # of ByteLevel
    add_prefix_space: bool  # of ByteLevel
    individual_digits: bool  # of Digits
    pattern: dict[str, str]  # of Split


class TokenizerJson(TypedDict, total=False):
    """The fields of tokenizer.json that decide about ids."""

    model: Required[BpeModel]
    added_tokens: list[AddedToken] | None
    normalizer: Mapping[str, object] | None
    pre_tokenizer: PreTokenizer | None
    post_processor: Mapping[str, object] | None


class TokenizerConfig(TypedDict, total=False):
    """The fields of tokenizer_config.json that decide about ids, except those that name special tokens."""

    add_prefix_space: bool | None
    added_tokens_decoder: dict[str, AddedToken] | None
