"""The tokenizer of a checkpoint folder -> Tokenizer. A field that changes ids is honoured, or refused by its name.

tokenizer.json, or vocab.json with merges.txt (encoder.json with vocab.bpe in OpenAI's own releases); beside either,
tokenizer_config.json, special_tokens_map.json and added_tokens.json. What a tokenizer.json means is what the
`tokenizers` library makes of it.
"""

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as LibraryTokenizer
from tokenizers.models import BPE

from model.tokenizer import DIGITS_PATTERN, GPT2_PATTERN, LLAMA3_PATTERN, Tokenizer, TokenizerError
from model.weights.files import as_json, read_json, read_text
from model.weights.names import WeightsError

ANY = None  # in the tables below: whatever the file says, ids are the same

# tokenizer.json: every field, and the values with which ids are those that we make. Other fields are refused.
BYTE_LEVEL = {"type": ANY, "add_prefix_space": ANY, "trim_offsets": ANY, "use_regex": ANY}
FIELDS: Mapping[str, Mapping[str, Sequence[object] | None]] = {
    "": {
        "version": ANY,
        "truncation": ANY,  # for batches, when `transformers` is asked to; here texts are read whole
        "padding": ANY,
        "added_tokens": ANY,  # these and the next are looked into below
        "normalizer": ANY,
        "pre_tokenizer": ANY,
        "post_processor": ANY,
        "decoder": ANY,  # from ids to text
        "model": ANY,
    },
    "model": {
        "type": ("BPE",),
        "dropout": (None, 0.0),
        "unk_token": ANY,  # stands for bytes without a token: refused below if there are any
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
        "normalized": ANY,  # there is no normalizer
    },
    "normalizer": {"type": ("Sequence",), "normalizers": ([],)},
    "ByteLevel": BYTE_LEVEL,
    "Digits": {"type": ANY, "individual_digits": (True,)},
    "Split": {"type": ANY, "pattern": ANY, "behavior": ("Isolated",), "invert": (False, None)},
}

# Patterns of a Split that cover every text, so that no text is lost between two matches, as we write them.
SPLITS = {
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+": GPT2_PATTERN,
    LLAMA3_PATTERN: LLAMA3_PATTERN,
}

NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
MORE_NAMES = ("additional_special_tokens", "extra_special_tokens", "model_specific_special_tokens")
FLAGS = ("lstrip", "rstrip", "single_word")
# tokenizer_config.json: as above
CONFIG_FIELDS: Mapping[str, Sequence[object] | None] = {
    **dict.fromkeys((*NAMES, *MORE_NAMES, "added_tokens_decoder", "add_prefix_space"), ANY),
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
    "auto_map": (None,),  # code of the checkpoint's own
}


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer from tokenizer.json, or from vocab.json and merges.txt with GPT-2's pattern.

    Raises:
        WeightsError: when there is neither, or a file of it cannot be read.
        TokenizerError: when it is not a byte-level BPE, or has a field that we cannot honour.
    """
    config = read_json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").is_file() else {}
    _refuse_other_values(config, CONFIG_FIELDS, "tokenizer_config.json: ")
    if (folder / "tokenizer.json").is_file():
        return _from_tokenizer_json(read_json(folder / "tokenizer.json"), folder, config)
    for vocab, merges in (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe")):
        if (folder / vocab).is_file() and (folder / merges).is_file():
            return _from_vocab_and_merges(folder / vocab, folder / merges, config)
    other = next((name for name in ("tokenizer.model", "spiece.model") if (folder / name).is_file()), None)
    cure = f" Its {other} is a sentencepiece model, which Lookback does not read." if other else ""
    raise WeightsError(f"{folder} has no tokenizer: it needs tokenizer.json, or vocab.json and merges.txt.{cure}")


def byte_level_tokenizer(
    vocab: Mapping[str, int],
    merges: Sequence[Any],
    *,
    special: Mapping[str, int],
    pattern: str,
    prefix_space: bool = False,
) -> Tokenizer:
    """A Tokenizer from the printable spelling in which byte-level BPE files write their bytes.

    Raises:
        TokenizerError: when it is no byte-level BPE, or its merges do not make the tokens that they name.

    >>> tokenizer = byte_level_tokenizer({"a": 0, "Ġ": 1, "Ġa": 2}, ["Ġ a"], special={}, pattern=GPT2_PATTERN)
    >>> tokenizer.encode("a a").ids
    (0, 2)
    """
    try:
        pairs = [(left, right) for left, right in (m.split(" ") if isinstance(m, str) else m for m in merges)]
        tokenizer = Tokenizer(
            # a special token's name may be spelled with other characters; merges may make it all the same
            vocab={_bytes(piece): id for piece, id in vocab.items() if piece not in special or _is_ascii_bytes(piece)},
            merges=[(_bytes(left), _bytes(right)) for left, right in pairs],
            special=special,
            pattern=pattern,
            prefix_space=prefix_space,
        )
        _refuse_unmade_tokens(vocab, pairs)
    except TokenizerError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise TokenizerError(f"its vocabulary is not a byte-level BPE ({error})") from error
    return tokenizer


def _refuse_unmade_tokens(vocab: Mapping[str, int], pairs: Sequence[tuple[str, str]]) -> None:
    """Stop at a token whose own bytes its merges do not lead to.

    tiktoken makes a token of a piece that is one, whatever its merges, and of two neighbours whose bytes together are
    one. The `tokenizers` library applies merges, and these alone. Where the merges lead from the bytes of every token
    to that token, and the merges that make one token stand together, the two always agree.
    """
    if len(set(vocab.values())) < len(vocab):
        raise TokenizerError("its vocabulary gives one id to several tokens")
    made = ["".join(pair) for pair in pairs]
    if len(runs := [piece for piece, _ in groupby(made)]) > len(unique := set(runs)):
        seen: set[str] = set()
        repeated = next(piece for piece in runs if piece in seen or seen.add(piece))  # type: ignore[func-returns-value]
        raise TokenizerError(f"its merges make the token {repeated!r} at two places of their order")
    library = LibraryTokenizer(BPE(vocab=dict(vocab), merges=pairs))
    for piece, encoded in zip(unique, library.encode_batch_fast(list(unique)), strict=True):
        if encoded.ids != [vocab[piece]]:
            raise TokenizerError(f"its merges never lead to the token {piece!r}, which one of them makes")


def _from_tokenizer_json(raw: Mapping[str, Any], folder: Path, config: Mapping[str, Any]) -> Tokenizer:
    file = "tokenizer.json: "
    _refuse_other_values(raw, FIELDS[""], file)
    bpe = raw["model"]
    if bpe.get("type", "BPE") != "BPE":
        raise TokenizerError(f"{file}model.type is {bpe['type']!r}; Lookback reads byte-level BPE")
    _refuse_other_values(bpe, FIELDS["model"], f"{file}model.")
    if raw.get("pre_tokenizer") is None:
        raise TokenizerError(f"{file}pre_tokenizer is null; Lookback reads byte-level BPE")
    if raw.get("normalizer") is not None:
        _refuse_other_values(raw["normalizer"], FIELDS["normalizer"], f"{file}normalizer.")
    _refuse_inserted_tokens(raw.get("post_processor"), f"{file}post_processor")
    pattern, prefix_space = _pieces(raw["pre_tokenizer"], f"{file}pre_tokenizer")
    special = _added_tokens(raw.get("added_tokens") or [], bpe["vocab"], file)
    if config.get("add_prefix_space") not in (None, prefix_space):
        raise TokenizerError(
            f"tokenizer_config.json: add_prefix_space is {config['add_prefix_space']}, and the pre_tokenizer of "
            f"tokenizer.json says {prefix_space}"
        )
    special |= _names_beside(folder, config, bpe["vocab"], special)
    tokenizer = byte_level_tokenizer(
        bpe["vocab"], bpe["merges"], special=special, pattern=pattern, prefix_space=prefix_space
    )
    if bpe.get("unk_token") is not None and tokenizer.lacks_bytes:
        raise TokenizerError(
            f"{file}model.unk_token is {bpe['unk_token']!r}, which stands for bytes without a token; Lookback leaves "
            "such bytes out"
        )
    return tokenizer


def _from_vocab_and_merges(vocab_file: Path, merges_file: Path, config: Mapping[str, Any]) -> Tokenizer:
    vocab = read_json(vocab_file)
    lines = read_text(merges_file).splitlines()
    merges = [line for line in lines if line and not line.startswith("#version")]
    special = {name: vocab[name] for name in ("<|endoftext|>",) if name in vocab}
    special |= _names_beside(vocab_file.parent, config, vocab, special)
    prefix_space = bool(config.get("add_prefix_space"))
    return byte_level_tokenizer(vocab, merges, special=special, pattern=GPT2_PATTERN, prefix_space=prefix_space)


def _refuse_other_values(raw: Mapping[str, Any], known: Mapping[str, Sequence[object] | None], where: str) -> None:
    """Stop at a field that is not known, or whose value is none of those known.

    Raises:
        TokenizerError: with the field's path in the file.
    """
    for name, value in raw.items():
        if name not in known:
            raise TokenizerError(f"{where}{name} ({as_json(value)}) is a field that Lookback does not know")
        values = known[name]
        if values is not None and value not in values:
            read = " or ".join(as_json(harmless) for harmless in values)
            raise TokenizerError(f"{where}{name} is {as_json(value)}; Lookback reads {read}")


def _pieces(raw: Mapping[str, Any], where: str) -> tuple[str, bool]:
    """The pattern of a pre-tokenizer, of the kinds that GPT-2 and Llamas have, and whether it adds a space in front."""
    steps: list[Mapping[str, Any]] = [raw]
    paths = [where]
    if raw.get("type") == "Sequence":
        _refuse_other_values(raw, {"type": ANY, "pretokenizers": ANY}, f"{where}.")
        steps = raw["pretokenizers"]
        paths = [f"{where}.pretokenizers[{i}]" for i in range(len(steps))]
    for path, step in zip(paths, steps, strict=True):
        if step.get("type") not in ("ByteLevel", "Digits", "Split"):
            raise TokenizerError(f"{path}.type is {as_json(step.get('type'))}; Lookback knows ByteLevel, Digits, Split")
        _refuse_other_values(step, FIELDS[step["type"]], f"{path}.")
    kinds = [step["type"] for step in steps]
    last = steps[-1] if steps else {}
    use_regex, prefix_space = bool(last.get("use_regex", True)), bool(last.get("add_prefix_space", True))
    if kinds == ["ByteLevel"] and use_regex:
        return GPT2_PATTERN, prefix_space
    if len(kinds) == 2 and prefix_space:  # the space would be put before every piece of the first step
        raise TokenizerError(f"{paths[-1]}.add_prefix_space is true behind another step; Lookback reads false there")
    if kinds == ["Digits", "ByteLevel"] and use_regex and steps[0].get("individual_digits"):
        return DIGITS_PATTERN, False
    if kinds == ["Split", "ByteLevel"] and not use_regex:
        pattern = steps[0]["pattern"].get("Regex")
        if pattern in SPLITS:
            return SPLITS[pattern], False
        raise TokenizerError(
            f"{paths[0]}.pattern is {as_json(steps[0]['pattern'])}; Lookback knows GPT-2's and Llama 3's"
        )
    raise TokenizerError(
        f"{where} is {' then '.join(kinds) or 'empty'} with use_regex {str(use_regex).lower()}; Lookback knows "
        "ByteLevel with its regex, Digits then ByteLevel with its regex, and Split then ByteLevel without"
    )


def _refuse_inserted_tokens(raw: Mapping[str, Any] | None, where: str) -> None:
    """Stop where every text gets a token of its own at its beginning or end."""
    match raw:
        case None | {"type": "ByteLevel"}:  # ByteLevel: it changes offsets only
            return
        case {"type": "Sequence", "processors": [*parts]}:
            for i, part in enumerate(parts):
                _refuse_inserted_tokens(part, f"{where}.processors[{i}]")
        case {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A"}}]}:
            return
        case {"type": "TemplateProcessing", "single": [*pieces]}:
            names = [piece["SpecialToken"]["id"] for piece in pieces if "SpecialToken" in piece]
            raise TokenizerError(
                f"{where}.single puts {', '.join(names)} around every text; Lookback reads a text as it is typed"
            )
        case _:
            raise TokenizerError(f"{where} is {as_json(raw)}; Lookback knows ByteLevel and TemplateProcessing")


def _added_tokens(tokens: Sequence[Mapping[str, Any]], vocab: Mapping[str, int], file: str) -> dict[str, int]:
    """The special tokens of a tokenizer.json, by name; each has the id that the `tokenizers` library gives it."""
    special: dict[str, int] = {}
    normalized = {token.get("normalized") for token in tokens}
    next_id = max(vocab.values(), default=-1) + 1
    for i, token in enumerate(tokens):
        where = f"{file}added_tokens[{i}]."
        _refuse_other_values(token, FIELDS["added_tokens[*]"], where)
        if len(normalized) > 1:  # those without are looked for first
            raise TokenizerError(f"{where}normalized is {token.get('normalized')}; it has to be the same for all")
        name = token["content"]
        if name not in vocab:  # its id in the file is not asked for: they are counted on
            vocab_id, next_id = next_id, next_id + 1
        else:
            vocab_id = vocab[name]
        if not name or token["id"] != vocab_id:
            raise TokenizerError(
                f"{where}id is {token['id']} for {name!r}, which is {vocab_id} by the order of the vocabulary"
            )
        special[name] = vocab_id
    return special


def _names_beside(
    folder: Path, config: Mapping[str, Any], vocab: Mapping[str, int], known: Mapping[str, int]
) -> dict[str, int]:
    """Special tokens that tokenizer_config.json, special_tokens_map.json and added_tokens.json name, by name.

    Raises:
        TokenizerError: when one of them is not in the vocabulary, has another id there, or is no special token.
    """
    map_file, added_file = folder / "special_tokens_map.json", folder / "added_tokens.json"
    special: dict[str, int] = {}
    for file, content in (
        ("tokenizer_config.json", config),
        ("special_tokens_map.json", read_json(map_file) if map_file.is_file() else {}),
    ):
        for field, token in _named_tokens(content):
            name = _plain(token, f"{file}: {field}")
            id = known.get(name, vocab.get(name))
            if id is None:
                raise TokenizerError(f"{file}: {field} is {name!r}, which is not in the vocabulary")
            special[name] = id
    for number, token in (config.get("added_tokens_decoder") or {}).items():
        where = f"tokenizer_config.json: added_tokens_decoder.{number}"
        name = _plain(token, where)
        if not token.get("special") and name not in known:
            raise TokenizerError(f"{where}.special is false ({name!r}); Lookback reads special tokens only")
        _refuse_another_id(name, int(number), known.get(name, vocab.get(name)), where)
        special[name] = int(number)
    for name, id in (read_json(added_file) if added_file.is_file() else {}).items():
        if name not in known and name not in special:
            raise TokenizerError(f"added_tokens.json: {name!r} is no special token of this folder's other files")
        _refuse_another_id(name, id, known.get(name, vocab.get(name)), "added_tokens.json")
    return special


def _named_tokens(content: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Every token that a file names as special, with the name of the field."""
    named = [(field, content[field]) for field in NAMES if content.get(field) is not None]
    for field in MORE_NAMES:
        tokens = content.get(field) or ()
        named += [(field, token) for token in (tokens.values() if isinstance(tokens, dict) else tokens)]
    return named


def _plain(token: Any, where: str) -> str:
    """A token's name, if it is looked for without further ado."""
    if isinstance(token, str):
        return token
    if flag := next((flag for flag in FLAGS if token.get(flag)), None):
        raise TokenizerError(f"{where}.{flag} is true; Lookback reads false")
    return str(token["content"])


def _refuse_another_id(name: str, given: int, id: int | None, where: str) -> None:
    if given != id:
        has = "does not have it" if id is None else f"gives it the id {id}"
        raise TokenizerError(f"{where} gives {name!r} the id {given}; the vocabulary {has}")


def _byte_of_character() -> dict[str, int]:
    """Byte-level BPE writes every byte as one printable character: itself, or one from U+0100 on, in order."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(0x100 + i): b for i, b in enumerate(others)}


_BYTE = _byte_of_character()


def _bytes(piece: str) -> bytes:
    return bytes(_BYTE[character] for character in piece)


def _is_ascii_bytes(name: str) -> bool:
    """The name is spelled as its own bytes are."""
    return all(_BYTE.get(character, -1) == ord(character) < 0x80 for character in name)
