"""Loads the tokenizer of a checkpoint folder. A field that changes ids is used, or refused by its name in the file.

tokenizer.json, or vocab.json with merges.txt (encoder.json with vocab.bpe in OpenAI's own releases); in addition,
tokenizer_config.json, special_tokens_map.json and added_tokens.json. The `tokenizers` library defines what a
tokenizer.json means.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from model.tokenizer import DIGITS_PATTERN, GPT2_PATTERN, Tokenizer, TokenizerError
from model.weights.byte_level import byte_level_tokenizer
from model.weights.files import as_json, read_json, read_text
from model.weights.names import WeightsError
from model.weights.tokenizer_fields import (
    ANY,
    CONFIG_FIELDS,
    FIELDS,
    FLAGS,
    LIST_NAMES,
    NAMES,
    SPLITS,
    AddedToken,
    PreTokenizer,
    TokenizerConfig,
    TokenizerJson,
)


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer from tokenizer.json, or from vocab.json and merges.txt with GPT-2's pattern.

    Raises:
        WeightsError: if there is neither, or a file cannot be read.
        TokenizerError: if it is not a byte-level BPE, or has an unsupported field.
    """
    config = cast(TokenizerConfig, _read_optional(folder / "tokenizer_config.json"))
    _refuse_other_values(config, CONFIG_FIELDS, "tokenizer_config.json: ")
    if (folder / "tokenizer.json").is_file():
        return _from_tokenizer_json(cast(TokenizerJson, read_json(folder / "tokenizer.json")), folder, config)
    for vocab, merges in (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe")):
        if (folder / vocab).is_file() and (folder / merges).is_file():
            return _from_vocab_and_merges(folder / vocab, folder / merges, config)
    sentencepiece = next((name for name in ("tokenizer.model", "spiece.model") if (folder / name).is_file()), None)
    hint = f" Its {sentencepiece} is a sentencepiece model, which Lookback does not read." if sentencepiece else ""
    raise WeightsError(f"{folder} has no tokenizer: it needs tokenizer.json, or vocab.json and merges.txt.{hint}")


def _read_optional(path: Path) -> dict[str, object]:
    return read_json(path) if path.is_file() else {}


def _from_tokenizer_json(raw: TokenizerJson, folder: Path, config: TokenizerConfig) -> Tokenizer:
    file = "tokenizer.json: "
    pattern, prefix_space = _check_fields(raw, file)
    bpe = raw["model"]
    special = _added_tokens(raw.get("added_tokens") or [], bpe["vocab"], file)
    if config.get("add_prefix_space") not in (None, prefix_space):
        raise TokenizerError(
            f"tokenizer_config.json: add_prefix_space is {config['add_prefix_space']}, and the pre_tokenizer of "
            f"tokenizer.json says {prefix_space}"
        )
    special |= _other_special_tokens(folder, config, bpe["vocab"], special)
    tokenizer = byte_level_tokenizer(
        bpe["vocab"], bpe["merges"], special=special, pattern=pattern, prefix_space=prefix_space
    )
    if bpe.get("unk_token") is not None and tokenizer.lacks_bytes:
        raise TokenizerError(
            f"{file}model.unk_token is {bpe['unk_token']!r}, which stands for bytes without a token; Lookback drops "
            "such bytes"
        )
    return tokenizer


def _check_fields(raw: TokenizerJson, file: str) -> tuple[str, bool]:
    """Stop at an unsupported field. Returns the pattern of the pre-tokenizer, and whether it adds a space in front."""
    _refuse_other_values(raw, FIELDS[""], file)
    bpe = raw["model"]
    if bpe.get("type", "BPE") != "BPE":
        raise TokenizerError(f"{file}model.type is {bpe['type']!r}; Lookback reads byte-level BPE")
    _refuse_other_values(bpe, FIELDS["model"], f"{file}model.")
    pre_tokenizer, normalizer = raw.get("pre_tokenizer"), raw.get("normalizer")
    if pre_tokenizer is None:
        raise TokenizerError(f"{file}pre_tokenizer is null; Lookback reads byte-level BPE")
    if normalizer is not None:
        _refuse_other_values(normalizer, FIELDS["normalizer"], f"{file}normalizer.")
    _refuse_inserted_tokens(raw.get("post_processor"), f"{file}post_processor")
    return _pre_tokenizer_pattern(pre_tokenizer, f"{file}pre_tokenizer")


def _from_vocab_and_merges(vocab_file: Path, merges_file: Path, config: TokenizerConfig) -> Tokenizer:
    vocab = cast(dict[str, int], read_json(vocab_file))
    lines = read_text(merges_file).splitlines()
    merges = [line for line in lines if line and not line.startswith("#version")]
    special = {name: vocab[name] for name in ("<|endoftext|>",) if name in vocab}
    special |= _other_special_tokens(vocab_file.parent, config, vocab, special)
    prefix_space = bool(config.get("add_prefix_space"))
    return byte_level_tokenizer(vocab, merges, special=special, pattern=GPT2_PATTERN, prefix_space=prefix_space)


def _refuse_other_values(raw: Mapping[str, object], known: Mapping[str, Sequence[object] | None], where: str) -> None:
    """Stop at an unknown field, or at a value that is not in the table.

    Raises:
        TokenizerError: with the field's path in the file.
    """
    for name, value in raw.items():
        if name not in known:
            raise TokenizerError(f"{where}{name} ({as_json(value)}) is a field that Lookback does not know")
        values = known[name]
        if values is not None and value not in values:
            supported = " or ".join(as_json(allowed) for allowed in values)
            raise TokenizerError(f"{where}{name} is {as_json(value)}; Lookback reads {supported}")


def _pre_tokenizer_pattern(raw: PreTokenizer, where: str) -> tuple[str, bool]:
    """The pattern of a pre-tokenizer that GPT-2 and Llamas use, and whether it adds a space in front."""
    steps, paths = _pre_tokenizer_steps(raw, where)
    kinds = [step["type"] for step in steps]
    last = steps[-1] if steps else PreTokenizer()
    use_regex, prefix_space = bool(last.get("use_regex", True)), bool(last.get("add_prefix_space", True))
    if kinds == ["ByteLevel"] and use_regex:
        return GPT2_PATTERN, prefix_space
    if len(kinds) == 2 and prefix_space:  # it would add a space before every match of the first step
        raise TokenizerError(f"{paths[-1]}.add_prefix_space is true after another step; Lookback reads false there")
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


def _pre_tokenizer_steps(raw: PreTokenizer, where: str) -> tuple[list[PreTokenizer], list[str]]:
    """The steps of a pre-tokenizer, all of known types and fields, and the path of each in the file."""
    steps, paths = [raw], [where]
    if raw.get("type") == "Sequence":
        _refuse_other_values(raw, {"type": ANY, "pretokenizers": ANY}, f"{where}.")
        steps = raw["pretokenizers"]
        paths = [f"{where}.pretokenizers[{i}]" for i in range(len(steps))]
    for path, step in zip(paths, steps, strict=True):
        if step.get("type") not in ("ByteLevel", "Digits", "Split"):
            raise TokenizerError(f"{path}.type is {as_json(step.get('type'))}; Lookback knows ByteLevel, Digits, Split")
        _refuse_other_values(step, FIELDS[step["type"]], f"{path}.")
    return steps, paths


def _refuse_inserted_tokens(raw: object, where: str) -> None:
    """Stop at a post-processor that adds a token at the beginning or end of every text."""
    match raw:
        case None | {"type": "ByteLevel"}:  # ByteLevel changes offsets only
            return
        case {"type": "Sequence", "processors": [*processors]}:
            for i, processor in enumerate(processors):
                _refuse_inserted_tokens(processor, f"{where}.processors[{i}]")
        case {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A"}}]}:
            return
        case {"type": "TemplateProcessing", "single": [*items]}:
            template = cast(list[Mapping[str, Mapping[str, str]]], items)
            names = [item["SpecialToken"]["id"] for item in template if "SpecialToken" in item]
            raise TokenizerError(
                f"{where}.single puts {', '.join(names)} around every text; Lookback reads a text as it is typed"
            )
        case _:
            raise TokenizerError(f"{where} is {as_json(raw)}; Lookback knows ByteLevel and TemplateProcessing")


def _added_tokens(tokens: Sequence[AddedToken], vocab: Mapping[str, int], file: str) -> dict[str, int]:
    """The special tokens of a tokenizer.json, by name; each has the id that the `tokenizers` library gives it."""
    special: dict[str, int] = {}
    normalized = {token.get("normalized") for token in tokens}
    next_id = max(vocab.values(), default=-1) + 1
    for i, token in enumerate(tokens):
        where = f"{file}added_tokens[{i}]."
        _refuse_other_values(token, FIELDS["added_tokens[*]"], where)
        if len(normalized) > 1:  # the library matches those that are not normalized first
            raise TokenizerError(f"{where}normalized is {token.get('normalized')}; it has to be the same for all")
        name = token["content"]
        if name not in vocab:  # the library ignores the id in the file, and counts on
            vocab_id, next_id = next_id, next_id + 1
        else:
            vocab_id = vocab[name]
        if not name or token["id"] != vocab_id:
            raise TokenizerError(
                f"{where}id is {token['id']} for {name!r}, which is {vocab_id} by the order of the vocabulary"
            )
        special[name] = vocab_id
    return special


def _other_special_tokens(
    folder: Path, config: TokenizerConfig, vocab: Mapping[str, int], known: Mapping[str, int]
) -> dict[str, int]:
    """Special tokens, by name, in tokenizer_config.json, special_tokens_map.json and added_tokens.json.

    Raises:
        TokenizerError: if a token is not in the vocabulary, has another id there, or is not special.
    """
    special: dict[str, int] = {}
    special_tokens_map = _read_optional(folder / "special_tokens_map.json")
    for file, content in (("tokenizer_config.json", config), ("special_tokens_map.json", special_tokens_map)):
        for field, token in _named_tokens(content):
            name = _token_name(token, f"{file}: {field}")
            id = known.get(name, vocab.get(name))
            if id is None:
                raise TokenizerError(f"{file}: {field} is {name!r}, which is not in the vocabulary")
            special[name] = id
    for number, added in (config.get("added_tokens_decoder") or {}).items():
        where = f"tokenizer_config.json: added_tokens_decoder.{number}"
        name = _token_name(added, where)
        if not added.get("special") and name not in known:
            raise TokenizerError(f"{where}.special is false ({name!r}); Lookback reads special tokens only")
        _refuse_other_id(name, int(number), known.get(name, vocab.get(name)), where)
        special[name] = int(number)
    for name, id in cast(dict[str, int], _read_optional(folder / "added_tokens.json")).items():
        if name not in known and name not in special:
            raise TokenizerError(f"added_tokens.json: {name!r} is no special token of this folder's other files")
        _refuse_other_id(name, id, known.get(name, vocab.get(name)), "added_tokens.json")
    return special


def _named_tokens(content: Mapping[str, object]) -> list[tuple[str, object]]:
    """Every token that a file names as special, with the name of the field."""
    named = [(field, content[field]) for field in NAMES if content.get(field) is not None]
    for field in LIST_NAMES:
        tokens = cast(dict[str, object] | Sequence[object], content.get(field) or ())
        named += [(field, token) for token in (tokens.values() if isinstance(tokens, dict) else tokens)]
    return named


def _token_name(token: object, where: str) -> str:
    """The name of a token, which is a string or an AddedToken without flags."""
    if isinstance(token, str):
        return token
    added = cast(dict[str, object], token)
    if flag := next((flag for flag in FLAGS if added.get(flag)), None):
        raise TokenizerError(f"{where}.{flag} is true; Lookback reads false")
    return str(added["content"])


def _refuse_other_id(name: str, given: int, id: int | None, where: str) -> None:
    if given != id:
        vocabulary = "does not have it" if id is None else f"gives it the id {id}"
        raise TokenizerError(f"{where} gives {name!r} the id {given}; the vocabulary {vocabulary}")
