"""Make a finished run the model that comes with Lookback: `python -m model.training.ship RUN YARDSTICK.json`.

Copies what is shown of the run to model/weights/lookback-gpt, with some of its steps, and writes the model card there:
what it was trained on, how well it does, and what it says. Needs matplotlib, which the benchmark's environment has.
"""

import argparse
import json
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from model.gpt import GPT
from model.heads import PROBE_PATTERNS, probe_scores, repetition_gain
from model.tokenizer import Tokenizer
from model.training.corpus import END, n_first_drills, open_corpus
from model.training.recipe import Recipe
from model.training.record import Record, read_record
from model.training.stories import sample
from model.weights.catalogue import SHIPPED
from model.weights.folder import load

STEPS = (0, 128, 256, 512, 1024, 2048, 4096)
OPENINGS = (
    "The fat cat sat on the",
    "Once upon a time, there was a small dog who",
    "One day, Anna went to the market.",
    '"Where is my key?" said Tom.',
    "It was raining, and the",
    "The old fisherman looked at the sea and",
    "A friend is",
    "In the kitchen there is a table.",
    "The king said to his servants,",
    "Why do birds sing?",
)
N_WRITTEN = 50  # tokens

CARD = Path(__file__).with_name("card.md")  # with {names} to be filled in


def card(run: Path, record: Record, yardstick: Mapping[str, Any]) -> str:
    """The model card's Markdown."""
    model, tokenizer = load(run, device=torch.device("cpu"), dtype=torch.float32)
    recipe, end = Recipe(**record.recipe), record.curve[-1]
    corpus = open_corpus(run / "corpus", recipe)
    n_text = round((recipe.n_steps - recipe.n_drills) * (1 - recipe.repeats) * recipe.n_texts * recipe.n_context)
    scores_PLH = probe_scores(model)
    return CARD.read_text(encoding="utf-8").format(
        **record.recipe,
        n_drills=recipe.n_drills,
        n_first=n_first_drills(recipe),
        n_other=recipe.n_drills - n_first_drills(recipe),
        with_dropout=1 - recipe.late,
        n_parameters=model.n_parameters,
        steps=", ".join(map(str, STEPS)),
        size_mb=(run / "model.safetensors").stat().st_size / 1e6,
        steps_mb=sum((run / "steps" / str(step) / "model.safetensors").stat().st_size for step in STEPS) / 1e6,
        n_read=end.n_tokens,
        n_text=n_text,
        n_epochs=n_text / corpus.n_tokens,
        n_learn=corpus.n_tokens,
        n_held=len(corpus.held),
        held_out_loss=end.held_out_loss,
        bits_per_byte=end.bits_per_byte,
        program=yardstick["program"],
        kneser_ney=yardstick["bits_per_byte"],
        xz=yardstick["xz_bits_per_byte"],
        previous=_best(scores_PLH[PROBE_PATTERNS.index("previous")]),
        induction=_best(scores_PLH[PROBE_PATTERNS.index("induction")]),
        gain=repetition_gain(model),
        n_written=N_WRITTEN,
        n_batches=len(list((run.parent / "stories").glob("*.txt"))),
        said="\n".join(
            f"- **{opening}**\n  - greedy:{_on_one_line(greedy)}\n  - sampled:{_on_one_line(sampled)}"
            for opening, greedy, sampled in zip(OPENINGS, *continuations(model, tokenizer), strict=True)
        ),
    )


def continuations(model: GPT, tokenizer: Tokenizer) -> tuple[list[str], list[str]]:
    """How the model goes on from each of OPENINGS: greedily, and sampled."""
    found = []
    for temperature in (1e-4, 0.8):
        generator = torch.Generator().manual_seed(0)
        found.append(
            [
                tokenizer.decode(
                    sample(
                        model,
                        torch.tensor([tokenizer.encode(opening).ids]),
                        torch.tensor([temperature]),
                        ends=torch.tensor([tokenizer.special[END]]),
                        n_most=N_WRITTEN,
                        generator=generator,
                    )[0]
                )
                for opening in OPENINGS
            ]
        )
    return found[0], found[1]


def draw_loss(path: Path, record: Record) -> None:
    """The curve of the losses, as a picture that is readable on light and dark paper."""
    import matplotlib.pyplot as plt  # only who ships a model needs it

    points = [point for point in record.curve if point.step]
    tokens = [point.n_tokens / 1e6 for point in points]
    figure, axes = plt.subplots(figsize=(7, 3.2))
    axes.plot(tokens, [point.loss for point in points], label="what it learns from", color="#b85400")
    axes.plot(tokens, [point.held_out_loss for point in points], label="held-out text", color="#4d37a0")
    axes.set(xscale="log", xlabel="million tokens read", ylabel="nats a token")
    axes.legend()
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, facecolor="white", metadata={"Date": None})


def _best(score_LH: torch.Tensor) -> tuple[float, int, int]:
    """The highest score, and its layer and head."""
    layer, head = divmod(int(score_LH.argmax()), score_LH.shape[1])
    return float(score_LH[layer, head]), layer, head


def _on_one_line(text: str) -> str:
    return " ".join(["", *text.split()]).replace("*", r"\*").replace("_", r"\_")


def main(arguments: Sequence[str] | None = None) -> None:
    """Copy and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("run", type=Path, help="the folder of a finished run")
    parser.add_argument("yardstick", type=Path, help="what model/training/yardstick.py wrote")
    parser.add_argument("--held", type=Path, default=Path("tests/model/training"), help="where the held-out text goes")
    given = parser.parse_args(arguments)
    record = read_record(given.run)
    if record is None or not math.isfinite(record.curve[-1].held_out_loss):
        raise SystemExit(f"{given.run} holds no finished run.")
    to = SHIPPED.folder
    shutil.rmtree(to, ignore_errors=True)
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "training.json"):
        _copy(given.run / name, to / name)
    for step in STEPS:
        _copy(given.run / "steps" / str(step) / "model.safetensors", to / "steps" / str(step) / "model.safetensors")
    _copy(given.run / "corpus" / "held.txt", given.held / "held.txt")
    _copy(given.yardstick, given.held / "yardstick.json")
    draw_loss(to / "loss.svg", record)
    yardstick = json.loads(given.yardstick.read_text(encoding="utf-8"))
    (to / "README.md").write_text(card(given.run, record, yardstick), encoding="utf-8")


def _copy(path: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, to)


if __name__ == "__main__":
    main()
