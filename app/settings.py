"""Settings of the operator, read once at the start: field `x` comes from LOOKBACK_X; some are also options."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

from platformdirs import user_cache_path
from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

if TYPE_CHECKING:
    import torch  # takes seconds to import, and settings are also read to refuse them or to print help

REMOVED = {
    "LOOKBACK_MAX_LOADED": "set LOOKBACK_MODELS_MB, the memory of all models together,",
    "LOOKBACK_KEPT_MB": "set LOOKBACK_CACHE_MB",
    "LOOKBACK_CACHE": "set LOOKBACK_WEIGHTS_DIR",
}


class Settings(BaseSettings):
    """Every setting, with its unit and its limits."""

    model_config = SettingsConfigDict(env_prefix="LOOKBACK_", frozen=True)

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65_535, description="port to listen on; 0 means any free port")
    model: str = Field("smollm2-135m", description="the model to open with: a name, or a checkpoint folder")
    models: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="names of the models that clients may ask the server to fetch and load, separated by "
        "commas; if empty, those whose weights are on this machine. The default model is always allowed",
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where models run; auto means CUDA if available")
    dtype: Literal["float32", "bfloat16"] = Field("float32", description="dtype of the computation")
    weights_dir: Path = Field(
        default_factory=lambda: user_cache_path("lookback"), description="folder for fetched weights"
    )
    max_tokens: int = Field(2_048, ge=1, description="the longest text, in tokens, even if the model could read more")
    max_body_bytes: int = Field(1_048_576, ge=1, description="the longest request, in bytes")
    max_json_numbers: int = Field(4_000_000, ge=1, description="the most numbers in one JSON reply")
    max_npz_numbers: int = Field(64_000_000, ge=1, description="the most numbers in one NumPy archive")
    max_waiting: int = Field(
        64, ge=1, description="texts that may wait to be read; further ones are refused with Retry-After"
    )
    max_batch_tokens: int = Field(
        128,
        ge=1,
        description="tokens read in one forward pass; longer texts are read in chunks, with other texts in between",
    )
    models_mb: int = Field(
        8_000,
        ge=1,
        description="memory for models, in MB; the least recently used one is unloaded before another is loaded",
    )
    live_per_second: int = Field(60, ge=1, description="messages that one live socket may send per second")
    live_idle_s: int = Field(900, ge=1, description="seconds after which a live socket without requests is closed")
    cache_mb: int = Field(1_000, ge=0, description="memory for the cache of the latest texts, in MB")

    @field_validator("models", mode="before")
    @classmethod
    def _split(cls, names: object) -> object:
        if isinstance(names, str):
            return tuple(name.strip() for name in names.split(",") if name.strip())
        return names

    @model_validator(mode="after")
    def _refuse_removed(self) -> Self:
        for name, instead in REMOVED.items():
            if name in os.environ:
                raise ValueError(f"{name} is no setting any more. Remove it, and {instead} instead")
        return self

    @property
    def torch_device(self) -> "torch.device":
        """The device, with `auto` resolved."""
        import torch

        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return torch.device(self.device)

    @property
    def torch_dtype(self) -> "torch.dtype":
        """The dtype as torch names it."""
        import torch

        return {"float32": torch.float32, "bfloat16": torch.bfloat16}[self.dtype]
