"""Reads the files of a checkpoint folder. A file that cannot be used is refused with what it is and what to do."""

import json
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from model.weights.names import WeightsError

GIT_LFS_POINTER = b"version https://git-lfs"  # how a pointer file begins
PICKLES = (".bin", ".pt", ".pth")


def refuse_incomplete(path: Path) -> None:
    """Stop at a file that is missing, empty, or only a Git LFS pointer.

    Raises:
        WeightsError: with what the file is and what to do.
    """
    if not path.is_file():
        raise WeightsError(f"{path.parent} has no {path.name}.")
    n_bytes = path.stat().st_size
    if n_bytes == 0:
        raise WeightsError(f"{path} is empty: its download was interrupted. Download the file again.")
    with path.open("rb") as file:
        if file.read(len(GIT_LFS_POINTER)) == GIT_LFS_POINTER:
            raise WeightsError(
                f"{path} is a Git LFS pointer of {n_bytes} bytes, not the file itself. "
                "Run `git lfs pull` in its folder, or download the file."
            )


def read_text(path: Path) -> str:
    """The text of a file.

    Raises:
        WeightsError: if the file is missing, or is not UTF-8.
    """
    refuse_incomplete(path)
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise WeightsError(f"{path} is not text in UTF-8 (byte {error.start}). Download or save it again.") from error


def read_json(path: Path) -> dict[str, object]:
    """The JSON object in a file.

    Raises:
        WeightsError: if the file is missing, or holds no JSON object.
    """
    text = read_text(path)
    try:
        content = json.loads(text)
    except RecursionError as error:
        raise WeightsError(f"{path} is nested too deeply to be read as JSON.") from error
    except ValueError as error:
        raise WeightsError(f"{path} is not JSON: {error}.") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path} holds no JSON object.")
    return content


def as_json(value: object) -> str:
    """A value as a JSON file has it, for messages; cut after 120 characters."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 120 else f"{text[:120]}…"


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors of model.safetensors, or of the shards that model.safetensors.index.json names.

    Raises:
        WeightsError: if a file is missing or is not safetensors, or if two shards hold the same tensor.
    """
    tensors: dict[str, Tensor] = {}
    for path in _tensor_files(folder):
        _refuse_other_formats(folder, path)
        try:
            shard = load_file(path)
        except SafetensorError as error:
            raise WeightsError(
                f"{path} cannot be read as safetensors: it is truncated, damaged or of another format ({error}). "
                "Download or save the file again."
            ) from error
        if repeated := tensors.keys() & shard.keys():
            raise WeightsError(f"Two files of {folder} hold the tensor {min(repeated)}.")
        tensors |= shard
    return tensors


def _tensor_files(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    # if both are there, `transformers` takes the single file
    if (folder / "model.safetensors").is_file() or not index.is_file():
        return [folder / "model.safetensors"]
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise WeightsError(f"{index} has no weight_map, the table of which file holds each tensor.")
    return [folder / str(name) for name in sorted(set(weight_map.values()))]


def _refuse_other_formats(folder: Path, path: Path) -> None:
    """Stop if the weights are not in this file, and say which file seems to hold them."""
    if path.parent != folder or not path.is_file():
        if (folder / "adapter_model.safetensors").is_file() or (folder / "adapter_config.json").is_file():
            raise WeightsError(ADAPTER.format(folder=folder))
        pickles = sorted(file.name for file in folder.iterdir() if file.suffix in PICKLES) if folder.is_dir() else []
        hint = f" ({pickles[0]} is a pickle and can run code; save the model as safetensors.)" if pickles else ""
        raise WeightsError(f"{folder} has no {path.name}.{hint}")
    refuse_incomplete(path)


ADAPTER = (
    "{folder} holds an adapter (adapter_config.json) without its base model. Merge the two with peft's "
    "`merge_and_unload`, save the result with `save_pretrained`, and open that folder."
)
