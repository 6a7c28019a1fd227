"""Make a finished run the shipped model: `python -m bench.lookback_gpt.publish RUN_FOLDER BASELINES.json`.

Copies the run, with some of its saved steps, to model/weights/lookback-gpt, and writes the model card there: what the
model was trained on, how well it predicts, and samples of its text. Needs matplotlib, which is in the environment of
the benchmark.
"""

import argparse
import dataclasses
import math
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

from bench.lookback_gpt.baselines import Baselines, read_baselines
from model.generate import GREEDY, Prompt, Sampling, generate
from model.gpt import GPT
from model.heads import PROBE_PATTERNS, probe_scores, repetition_gain
from model.tokenizer import Tokenizer
from model.training.corpus import END_OF_TEXT, Corpus, n_easy_steps, open_corpus
from model.training.recipe import Recipe
from model.training.record import Record, read_record
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
N_NEW_TOKENS = 50  # at most, after each opening
SAMPLING = Sampling(temperature=0.8, top_k=64, top_p=0.95)

CARD = Path(__file__).with_name("card.md")  # a template: {names} are replaced by values
TEST_DATA = Path("tests/bench/lookback_gpt")


def render_card(run: Path, record: Record, baselines: Baselines) -> str:
    """The model card, in Markdown."""
    model, tokenizer = load(run, device=torch.device("cpu"), dtype=torch.float32)
    recipe = record.recipe
    values = (
        dataclasses.asdict(recipe)
        | _training_values(recipe, record, open_corpus(run / "corpus", recipe))
        | _file_values(run)
        | _result_values(model, record, baselines)
        | {
            "n_parameters": model.n_parameters,
            "n_new_tokens": N_NEW_TOKENS,
            "samples": render_samples(model, tokenizer),
        }
    )
    return CARD.read_text(encoding="utf-8").format(**values)


def _training_values(recipe: Recipe, record: Record, corpus: Corpus) -> dict[str, object]:
    n_text_steps = recipe.n_steps - recipe.n_curriculum_steps
    n_text_tokens = round(n_text_steps * (1 - recipe.repeats) * recipe.batch_size * recipe.n_context)
    return {
        "n_curriculum": recipe.n_curriculum_steps,
        "n_easy": n_easy_steps(recipe),
        "n_hard": recipe.n_curriculum_steps - n_easy_steps(recipe),
        "with_dropout": 1 - recipe.dropout_after,
        "n_tokens": record.curve[-1].n_tokens,
        "n_text_tokens": n_text_tokens,
        "n_epochs": n_text_tokens / corpus.n_tokens,
        "n_learn": corpus.n_tokens,
        "n_held_out": len(corpus.held_out),
    }


def _file_values(run: Path) -> dict[str, object]:
    steps = [run / "steps" / str(step) / "model.safetensors" for step in STEPS]
    return {
        "steps": ", ".join(map(str, STEPS)),
        "size_mb": (run / "model.safetensors").stat().st_size / 1e6,
        "steps_mb": sum(path.stat().st_size for path in steps) / 1e6,
        "n_batches": len(list((run.parent / "stories").glob("*.txt"))),
    }


def _result_values(model: GPT, record: Record, baselines: Baselines) -> dict[str, object]:
    scores_PLH = probe_scores(model)
    return {
        "held_out_loss": record.curve[-1].held_out_loss,
        "bits_per_byte": record.curve[-1].bits_per_byte,
        "program": baselines["program"],
        "kneser_ney": baselines["bits_per_byte"],
        "xz": baselines["xz_bits_per_byte"],
        "previous": _best_head(scores_PLH[PROBE_PATTERNS.index("previous")]),
        "induction": _best_head(scores_PLH[PROBE_PATTERNS.index("induction")]),
        "gain": repetition_gain(model),
    }


def _best_head(score_LH: torch.Tensor) -> tuple[float, int, int]:
    """The highest score, and its layer and head."""
    layer, head = divmod(int(score_LH.argmax()), score_LH.shape[1])
    return float(score_LH[layer, head]), layer, head


def render_samples(model: GPT, tokenizer: Tokenizer) -> str:
    """The continuations of OPENINGS, greedy and sampled, as a Markdown list."""
    return "\n".join(
        f"- **{opening}**\n  - greedy:{_on_one_line(greedy)}\n  - sampled:{_on_one_line(sampled)}"
        for opening, greedy, sampled in zip(
            OPENINGS, continuations(model, tokenizer, GREEDY), continuations(model, tokenizer, SAMPLING), strict=True
        )
    )


def continuations(model: GPT, tokenizer: Tokenizer, sampling: Sampling) -> list[str]:
    """The text that the model generates after each of OPENINGS, with one generator for all of them, seeded with 0."""
    generator = torch.Generator().manual_seed(0)
    stop_ids = [tokenizer.special[END_OF_TEXT]]
    texts = []
    for opening in OPENINGS:
        prompt = Prompt(ids=tokenizer.encode(opening).ids, sampling=sampling, generator=generator)
        texts.append(
            tokenizer.decode([id for _, id in generate(model, [prompt], n_tokens=N_NEW_TOKENS, stop_ids=stop_ids)])
        )
    return texts


def _on_one_line(text: str) -> str:
    return " ".join(["", *text.split()]).replace("*", r"\*").replace("_", r"\_")


def draw_loss(path: Path, record: Record) -> None:
    """A picture of the loss curve that is readable on light and dark pages."""
    import matplotlib.pyplot as plt  # needed only here

    points = [point for point in record.curve if point.step]
    tokens = [point.n_tokens / 1e6 for point in points]
    figure, axes = plt.subplots(figsize=(7, 3.2))
    axes.plot(tokens, [point.loss for point in points], label="training text", color="#b85400")
    axes.plot(tokens, [point.held_out_loss for point in points], label="held-out text", color="#4d37a0")
    axes.set(xscale="log", xlabel="million tokens read", ylabel="nats per token")
    axes.legend()
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, facecolor="white", metadata={"Date": None})


def main(arguments: Sequence[str] | None = None) -> None:
    """Copy the files of the run, and write the picture and the card."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("run", type=Path, help="the folder of a finished run")
    parser.add_argument("baselines", type=Path, help="the file that bench.lookback_gpt.baselines wrote")
    parser.add_argument("--test-data", type=Path, default=TEST_DATA, help="folder for held_out.txt and baselines.json")
    options = parser.parse_args(arguments)
    record = read_record(options.run)
    if record is None or not math.isfinite(record.curve[-1].held_out_loss):
        raise SystemExit(f"{options.run} is not a finished run.")
    target = SHIPPED.folder
    shutil.rmtree(target, ignore_errors=True)
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "training.json"):
        _copy(options.run / name, target / name)
    for step in STEPS:
        name = f"steps/{step}/model.safetensors"
        _copy(options.run / name, target / name)
    _copy(options.run / "corpus" / "held.txt", options.test_data / "held_out.txt")
    _copy(options.baselines, options.test_data / "baselines.json")
    draw_loss(target / "loss.svg", record)
    card = render_card(options.run, record, read_baselines(options.baselines))
    (target / "README.md").write_text(card, encoding="utf-8")


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


if __name__ == "__main__":
    main()
