"""Words that the code, the pages and the tests must not use, because the field has standard words for them."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HERE = Path(__file__).resolve()

# Names that say nothing: use the noun (head, layer, row, result).
EMPTY_NAMES = {"one", "other", "some", "found", "said", "thing", "more", "them", "something", "others"}

# Parts of a name, in snake_case or camelCase, and the field's word.
NAME_PARTS = {
    "ask": "request",
    "asks": "requests",
    "asked": "request",
    "answer": "compute, result or reply",
    "answers": "results or replies",
    "ahead": "offset",
    "behind": "masked",
    "drill": "curriculum",
    "drills": "curriculum",
    "foresee": "last_logits",
    "foreseeing": "needs_last_logits",
    "foreseen": "predicted",
    "hear": "capture or receive",
    "heard": "captured or received",
    "knock": "connect",
    "kept": "cached or saved",
    "ours": "to_checkpoint",
    "pieces": "token_labels",
    "prefix_kept": "cached",
    "road": "kernel or transport",
    "roads": "kernels or transports",
    "share": "probability or weight",
    "shares": "probabilities or weights",
    "strangers": "unknown_tensors",
    "stretch": "chunk",
    "stretches": "chunks",
    "theirs": "from_checkpoint",
    "told": "shown or reported",
    "turned": "rotated, transposed or switched",
    "twin": "next_same_token",
    "twins": "same tokens",
    "visitor": "client",
    "visitors": "clients",
    "yardstick": "baselines",
}

UNITS = r"(?:ms|s|nats|bits|bytes?|kB|MB|rows?|columns?|tokens?|numbers?|modules?|pixels?|words?|steps?|cells?)"
THINGS = r"(?:text|token|byte|row|column|output|head|layer|page|second|step|cell|pixel|side|query|key|time|value)"

# Expressions in names, comments, strings and pages, and the field's word.
EXPRESSIONS = {
    r"\blook(?:s|ed|ing)? back\b": "attend",
    r"\bforesee(?:s|n|ing)?\b": "predict",
    r"\broads?\b": "kernel, transport or way",
    r"\bknock": "connect",
    r"\bhangs? up\b": "disconnect",
    r"\bturned over\b": "transposed",
    r"\bsquare on\b": "orthogonal",
    r"\bbent\b": "non-linear",
    r"(?-i:\bdear(?:er|est)?\b)": "expensive",
    r"\btold right\b": "guessed correctly",
    r"\bbut for\b": "except, to within",
    r"\byardstick": "baseline",
    r"\bstrangers?\b": "unknown tensor",
    r"\btwins?\b": "occurrence of the same token",
    r"\bvisitors?\b": "client",
    r"\bwhom\b": "rewrite the sentence",
    r"\bof which some\b": "rewrite the sentence",
    rf"\b{UNITS} an? {THINGS}\b": "per",
    rf"a (?:line|colour|frame) an? {THINGS}": "one … per …",
}


def paths(*suffixes: str) -> list[Path]:
    """The tracked files of these kinds."""
    patterns = [f"*.{suffix}" for suffix in suffixes]
    listed = subprocess.run(["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in listed.stdout.split() if (ROOT / name) != HERE and (ROOT / name).exists()]


def names_of_python(source: str) -> Iterator[tuple[int, str]]:
    """Every name that a module defines: variables, parameters, attributes, functions, classes, and its own name."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name):
                yield node.lineno, name
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                if not name.startswith("test_"):  # a sentence
                    yield node.lineno, name
            case ast.Attribute(attr=name, ctx=ast.Store()):
                yield node.lineno, name
            case ast.ExceptHandler(name=str(name)):
                yield node.lineno, name


CODE = r"""//[^\n]*|/\*.*?\*/|'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*"|`(?:\\.|[^`\\])*`|(?P<name>[\p{L}_$#][\w$]*)"""


def names_of_javascript(source: str) -> Iterator[tuple[int, str]]:
    """Every name in the code of a script, without comments and strings."""
    for match in re.finditer(CODE.replace(r"\p{L}", "A-Za-z"), source, re.S):
        if match["name"] and not re.match(r"\.some\(", source[match.start() - 1 : match.end() + 1]):
            yield source.count("\n", 0, match.start()) + 1, match["name"].strip("#$")


def names_of_markup(source: str) -> Iterator[tuple[int, str]]:
    """Every id and class of a page or a style sheet."""
    for match in re.finditer(r"""(?:\bid|\bclass)="([^"{]*)"|[.#]([a-z][\w-]*)(?=[^;{}]*\{)""", source):
        for name in (match[1] or match[2]).split():
            yield source.count("\n", 0, match.start()) + 1, name.replace("-", "_")


READERS = {
    "py": names_of_python,
    "js": names_of_javascript,
    "html": names_of_markup,
    "css": names_of_markup,
}


def parts(name: str) -> list[str]:
    """The words of a name.

    >>> parts("heardAll"), parts("_n_kept")
    (['heard', 'all'], ['n', 'kept'])
    """
    return [part.lower() for part in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)]


def faults(source: str, suffix: str) -> list[str]:
    """What a file should call otherwise, line by line."""
    lines = []
    for line, name in READERS[suffix](source):
        if name in EMPTY_NAMES:
            lines.append(f"{line}: the name {name!r} says nothing")
        lines += [f"{line}: {name!r}: {NAME_PARTS[part]}" for part in parts(name) if part in NAME_PARTS]
    for expression, instead in EXPRESSIONS.items():
        for match in re.finditer(expression, source, re.I):
            lines.append(f"{source.count(chr(10), 0, match.start()) + 1}: {match[0]!r}: {instead}")
    return lines


# Names that every module of a kind has, with one meaning.
CONVENTIONS = {"EXPERIMENT", "T", "log", "router"}


def top_level_names(source: str) -> Iterator[str]:
    """The names of functions, classes and constants that a module defines."""
    for node in ast.parse(source).body:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.Assign(targets=targets):
                yield from (target.id for target in targets if isinstance(target, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield name


def test_a_name_at_the_top_level_of_a_module_has_one_definition() -> None:
    modules: dict[str, list[str]] = {}
    for path in paths("py"):
        if path.relative_to(ROOT).parts[0] in ("app", "model"):
            for name in set(top_level_names(path.read_text())) - CONVENTIONS:
                modules.setdefault(name, []).append(str(path.relative_to(ROOT)))
    assert {name: places for name, places in modules.items() if len(places) > 1} == {}


@pytest.mark.parametrize("suffix", READERS)
def test_no_file_uses_a_word_of_our_own_where_the_field_has_one(suffix: str) -> None:
    found = [f"{path.relative_to(ROOT)}:{line}" for path in paths(suffix) for line in faults(path.read_text(), suffix)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("suffix", "source"),
    [
        ("py", "found = 1"),
        ("py", "def f(n_kept): pass"),
        ("py", "class VisitorLeft: pass"),
        ("py", "# a token looks back"),
        ("js", "const heardAll = 1;"),
        ("js", "// loss in nats a token"),
        ("html", '<p class="told">'),
        ("html", "<p>a dear layer</p>"),
        ("css", ".behind { color: red }"),
    ],
)
def test_a_banned_word_is_found(suffix: str, source: str) -> None:
    assert faults(source, suffix)


@pytest.mark.parametrize(
    ("suffix", "source"),
    [
        ("py", "kernel = 'one more road-side'.strip()  # reads one token"),
        ("js", "const isAny = list.some(Boolean) && 'other' // one of some others"),
        ("html", '<p class="hint">one more thing</p>'),
        ("css", ".hint { color: #aabbcc }"),
    ],
)
def test_an_ordinary_word_is_not(suffix: str, source: str) -> None:
    assert not [fault for fault in faults(source, suffix) if "road" not in fault]
