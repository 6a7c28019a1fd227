"""What an operator may set, read once at the start: field `x` comes from LOOKBACK_X or an option of `lookback`."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from platformdirs import user_cache_path
from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

if TYPE_CHECKING:
    import torch  # takes seconds to import, and settings are also read to refuse them or to print help

REMOVED = {
    "LOOKBACK_MAX_LOADED": "LOOKBACK_MODELS_MB limits the memory of all models together",
    "LOOKBACK_KEPT_MB": "it is LOOKBACK_CACHE_MB now",
}


class Settings(BaseSettings):
    """Every setting, with its unit and its bound."""

    model_config = SettingsConfigDict(env_prefix="LOOKBACK_", frozen=True)

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65_535, description="port to listen on; 0 takes a free one")
    model: str = Field("smollm2-135m", description="the model to open with: a name, or a checkpoint folder")
    models: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="names of the models that a visitor may have fetched and loaded, separated by commas; "
        "if empty, those whose weights are on this machine. The default model is always among them",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="where models run; auto takes CUDA if it is there"
    )
    dtype: Literal["float32", "bfloat16"] = Field("float32", description="the numbers models compute with")
    cache: Path = Field(
        default_factory=lambda: user_cache_path("lookback"), description="folder for weights that were fetched"
    )
    max_tokens: int = Field(2_048, ge=1, description="the longest text in tokens, where a model could read more")
    max_body_bytes: int = Field(1_048_576, ge=1, description="the longest request")
    max_json_numbers: int = Field(4_000_000, ge=1, description="the most numbers in one JSON answer")
    max_npz_numbers: int = Field(64_000_000, ge=1, description="the most numbers in one NumPy archive")
    max_waiting: int = Field(64, ge=1, description="texts that may wait to be read; the next is told to come back")
    max_batch_tokens: int = Field(
        128, ge=1, description="tokens read in one pass; a longer text lets others in between"
    )
    models_mb: int = Field(
        8_000, ge=1, description="memory for models, in MB; the one longest unused leaves before another is loaded"
    )
    live_per_second: int = Field(60, ge=1, description="messages that one live socket may send a second")
    live_idle_s: int = Field(900, ge=1, description="seconds after which a live socket that asks for nothing is closed")
    cache_mb: int = Field(1_000, ge=0, description="memory for what was read of the latest texts, in MB")

    @field_validator("models", mode="before")
    @classmethod
    def _split(cls, names: Any) -> Any:
        if isinstance(names, str):
            return tuple(name.strip() for name in names.split(",") if name.strip())
        return names

    @model_validator(mode="after")
    def _refuse_removed(self) -> Self:
        for name, instead in REMOVED.items():
            if name in os.environ:
                raise ValueError(f"{name} is no setting any more: {instead}. Take it out of the environment")
        return self

    @property
    def torch_device(self) -> "torch.device":
        import torch

        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return torch.device(self.device)

    @property
    def torch_dtype(self) -> "torch.dtype":
        import torch

        return {"float32": torch.float32, "bfloat16": torch.bfloat16}[self.dtype]
