"""English prose from Debian, for a small model to learn from: `python -m model.training.debian --out FOLDER`.

Novels, tales and a dictionary that anyone may pass on, changed or not. `SOURCES` says which packages
hold them, under which licence, and how each is read. A package is downloaded and unpacked in a temporary folder;
nothing is installed, and root is not needed.

FOLDER/<name>.txt holds documents (a chapter, an entry) with a line `<|endoftext|>` between two of
them. A paragraph is one line, a blank line stands between two. Quotes are straight and a dash is an em dash: a small
vocabulary has no room for several spellings of a mark.
"""

import argparse
import re
import struct
import subprocess
import sys
import unicodedata
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate, takewhile
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from model.training.corpus import joined
from model.weights.save import write_whole

Document = list[str]  # its paragraphs
Reader = Callable[[Path], Iterator[Document]]


class NoPackage(Exception):
    """apt-get or dpkg-deb could not bring a package."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Texts of one kind: where they are, what they are, how to read them.

    A package has its licence in /usr/share/doc/<package>/copyright; `licence` is that of the files we read.
    """

    name: str  # of the file we write, without .txt
    packages: tuple[str, ...]
    files: str  # a pattern below the unpacked package
    licence: str
    about: str
    read: Reader  # the raw documents of one file
    most_bytes: int  # a longer source gives every nth document


# --- paragraphs ---

MARKS = str.maketrans(
    {"“": '"', "”": '"', "„": '"', "″": '"', "‘": "'", "’": "'", "‛": "'", "′": "'", "…": "...", "–": "—", "―": "—"}
    | {"\t": " ", "\xa0": " ", "\u2011": "-", "\u2010": "-"}
)
# A paragraph with one of these words is left out: a page may show what a model says.
UNWANTED = re.compile(r"\b(rap(e|ed|es|ing|ist)|whor(e|es|ing)|harlots?|nigg\w+|negro\w*|incest\w*)\b", re.I)


def tidy(text: str) -> str:
    """A paragraph on one line, without marks of emphasis and with one spelling of quotes and dashes.

    >>> tidy("“It is  _quite_\\n true”, she--or he--said.")
    '"It is quite true", she—or he—said.'
    """
    text = unicodedata.normalize("NFC", text).translate(MARKS)
    text = "".join(char for char in text if char.isspace() or unicodedata.category(char)[0] != "C")  # no controls
    text = text.replace("``", '"').replace("''", '"').replace("`", "'")
    text = re.sub(r"_([^_]+)_", r"\1", text)
    text = re.sub(r" *-{2,}\s*|\s+-\s+|\s*—\s*", "—", text)
    text = re.sub(r"(?<=\w)\s+([,;.!?)])(?=\s|$)", r"\1", text)
    return " ".join(text.split())


def paragraphs(text: str) -> Document:
    """The blocks between blank lines.

    >>> paragraphs("One\\nline.\\n\\n\\nTwo.")
    ['One\\nline.', 'Two.']
    """
    return [block.strip("\n") for block in re.split(r"\n\s*\n", text) if block.strip()]


def clean(document: Document) -> Document:
    """The tidied paragraphs that are fit to learn from."""
    tidied = (tidy(text) for text in document)
    return [text for text in tidied if re.search(r"[A-Za-z]{2}", text) and not UNWANTED.search(text)]


# --- novels: data of R ---


def r_strings(packed: bytes) -> Iterator[list[str]]:
    """The vectors of strings in a database of R's (`Rdata.rdb`), each a list.

    An entry is its length in 4 bytes and a zlib stream: 'X', three numbers, the encoding's name, then the vector: its
    kind, its length, and for each string a kind, a length (-1 where it is missing) and the bytes.
    """
    while packed:
        stream = zlib.decompressobj()
        data = stream.decompress(packed[4:])
        packed = stream.unused_data
        if data[:6] != b"X\n\0\0\0\3":
            continue
        (n_name,) = struct.unpack_from(">i", data, 14)
        at = 18 + n_name
        kind, n_strings = struct.unpack_from(">ii", data, at)
        if kind & 255 != 16:  # not strings
            continue
        at += 8
        strings = []
        for _ in range(n_strings):
            (n_bytes,) = struct.unpack_from(">i", data, at + 4)
            at += 8
            strings.append(data[at : at + max(n_bytes, 0)].decode())
            at += max(n_bytes, 0)
        yield strings


CHAPTER = re.compile(r"^ *(?:(?:CHAPTER|Chapter) [IVXLC\d]+\b.*|(?:VOLUME|Volume) [IVX\d]+|(?i:EPILOGUE))\.?$", re.M)
LAST_PAGE = re.compile(r"^ *(?:THE END|FINIS|Finis|A NOTE ON THE TEXT|End of (?:the )?Project Gutenberg.*)\.?$", re.M)


def novels(path: Path) -> Iterator[Document]:
    """The chapters; titles, footnotes and what stands before the first chapter are left out."""
    for strings in r_strings(path.read_bytes()):
        book = LAST_PAGE.split("\n".join(strings).replace("\r", ""))[0]
        for chapter in CHAPTER.split(book)[1:]:
            blocks = [block for block in paragraphs(chapter) if not re.match(r"\s*[*\[]", block)]
            yield [re.sub(r"\*|\[\d+\]", "", block) for block in blocks]


# --- the Bible: a module of SWORD ---

TALES = re.compile(  # as `<chapter osisID="Gen.1" sID="Gen.1"/>` names them
    r'"(Gen|Exod|Num|Josh|Judg|Ruth|[12]Sam|[12]Kgs|Ezra|Neh|Esth|Tob|Jdt|Dan|DanGr|Jonah|[12]Macc|Prov|Eccl|Matt|Mark|'
    r"Luke|John|Acts|Jas)\."
)


def bible(path: Path) -> Iterator[Document]:
    """The chapters of the books that tell a story or speak plainly, without notes and verse numbers.

    `ot.bzs` says for each book where its zlib stream begins in `ot.bzz`, and how long it is.
    """
    streams = path.with_suffix(".bzz").read_bytes()
    for start, n_bytes, _ in struct.iter_unpack("<III", path.read_bytes()):
        book = zlib.decompress(streams[start : start + n_bytes]).decode()
        for chapter in re.split(r"<chapter\b[^>]*\bsID=", book)[1:]:
            if TALES.match(chapter):
                chapter = chapter[chapter.index(">") + 1 :]
                chapter = re.sub(r"<(note|title|rdg)\b.*?</\1>", " ", chapter, flags=re.S)
                chapter = re.sub(r'<(div|lb)\b[^>]*type="x-p"[^>]*>|<lg\b[^>]*>', "\n\n", chapter)
                chapter = re.sub(r"<l\b[^>]*>|</q>", " ", chapter)
                chapter = re.sub(r"<[^>]*>", "", chapter)
                yield paragraphs(re.sub(r"\s+([,.;:!?”’])", r"\1", chapter.replace("“ ", "“")))


# --- a dictionary ---


def wordnet(path: Path) -> Iterator[Document]:
    """Words that have examples: `A word: what it means. For example: "..."`."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith(" ") or " | " not in line:
            continue
        word = line.split()[4].replace("_", " ")
        meaning, *examples = re.split(r'; (?=")', line.split(" | ")[1].strip())
        examples = [example for example in examples if example.count('"') == 2 and example.endswith('"')]
        if examples and len(meaning) > 30 and len(examples[0]) > 25 and re.fullmatch(r"[a-z -]+", word):
            yield [f"{word[0].upper()}{word[1:]}: {meaning}. For example: {' '.join(examples)}"]


# --- the table ---

SOURCES = (
    Source(
        name="austen",
        packages=("r-cran-janeaustenr",),
        files="usr/lib/R/site-library/janeaustenr/data/Rdata.rdb",
        licence="public domain (the novels), MIT (the package)",
        about="Jane Austen's six novels",
        read=novels,
        most_bytes=1_000_000,
    ),
    Source(
        name="moby-dick",
        packages=("r-cran-tokenizers",),
        files="usr/lib/R/site-library/tokenizers/data/Rdata.rdb",
        licence="public domain (the novel), MIT (the package)",
        about="Herman Melville's Moby Dick",
        read=novels,
        most_bytes=400_000,
    ),
    Source(
        name="bible",
        packages=("sword-text-web",),
        files="usr/share/sword/modules/texts/ztext/*/*.bzs",
        licence="public domain",
        about="the tales of a Bible in today's English; changed, so it may not go by that translation's name",
        read=bible,
        most_bytes=1_200_000,
    ),
    Source(
        name="wordnet",
        packages=("wordnet-base",),
        files="usr/share/wordnet/data.*",
        licence="WordNet 3.0 (free to use, change and pass on with its notice)",
        about="what words mean, with examples",
        read=wordnet,
        most_bytes=300_000,
    ),
)


# --- the work ---


def unpack(package: str, folder: Path) -> None:
    """Download a package and lay out its files in a folder.

    Raises:
        NoPackage: when there is no such package, or no apt-get, or no way to the archive.
    """
    with TemporaryDirectory() as downloads:
        try:
            subprocess.run(["apt-get", "download", "-qq", package], cwd=downloads, check=True, capture_output=True)
            (archive,) = Path(downloads).glob("*.deb")
            subprocess.run(["dpkg-deb", "-x", archive, folder], check=True, capture_output=True)
        except subprocess.CalledProcessError as error:
            said = error.stderr.decode(errors="replace").strip().splitlines()
            raise NoPackage(f"{package}: {said[-1] if said else error}") from None
        except (OSError, ValueError) as error:
            raise NoPackage(f"{package}: {error}") from None


def documents(source: Source, folder: Path) -> list[str]:
    """The clean documents of an unpacked package, each once."""
    found: dict[str, None] = {}
    paragraphs_seen: set[str] = set()
    for path in sorted(folder.glob(source.files)):
        for document in source.read(path):
            # a long paragraph that comes again is an article printed twice, or a page's frame
            new = [text for text in clean(document) if len(text) < 80 or text not in paragraphs_seen]
            paragraphs_seen.update(new)
            if sum(map(len, new)) > 60:
                found["\n\n".join(new)] = None
    return list(found)


def spread(texts: list[str], most_bytes: int) -> list[str]:
    """Every nth text, so that they fit.

    >>> spread(["aa", "bb", "cc", "dd"], 5)
    ['aa', 'cc']
    """
    n_bytes = sum(len(text.encode()) for text in texts)
    kept = texts[:: max(1, -(-n_bytes // most_bytes))]
    sizes = accumulate(len(text.encode()) for text in kept)
    return kept[: sum(1 for _ in takewhile(lambda size: size <= most_bytes, sizes))]


def main() -> None:
    """Write a file for each source, and exit with 1 where a package was missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=Path("data/debian"), help="folder of the texts")
    parser.add_argument("--only", nargs="*", metavar="NAME", help="these sources alone")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    console = Console(soft_wrap=True, highlight=False)
    missing = 0
    for source in SOURCES:
        if given.only and source.name not in given.only:
            continue
        texts: list[str] = []
        for package in source.packages:
            with TemporaryDirectory() as folder:
                try:
                    unpack(package, Path(folder))
                except NoPackage as error:
                    console.print(f"[bold red]Skipped:[/] {error}")
                    missing += 1
                    continue
                if not (read := documents(source, Path(folder))):
                    console.print(f"[bold red]Skipped:[/] {package}: no {source.files} with text in it")
                    missing += 1
                texts += read
        if texts:
            content = (joined(kept := spread(texts, source.most_bytes)) + "\n").encode()
            write_whole(given.out / f"{source.name}.txt", content)
            console.print(f"{source.name}: {len(kept):,} documents, {len(content):,} bytes ({source.licence})")
    sys.exit(1 if missing else 0)


if __name__ == "__main__":
    main()
