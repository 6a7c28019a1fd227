"""The figures of the README, drawn from the results as SVG."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median

import matplotlib
import numpy as np
from matplotlib import pyplot as plt

from bench.contestants import LIVE, REFERENCE
from bench.report import percentile
from bench.results import Load, Results, Sample

LINES = (  # contestant, case, colour, label
    ("BertViz, head_view", "first", "#b07aa1", "BertViz, any edit"),
    ("transformers, attentions as JSON", "first", "#f28e2b", "transformers, attentions as JSON, any edit"),
    ("TransformerLens, run_with_cache", "first", "#e15759", "TransformerLens, any edit"),
    (REFERENCE, "first", "#555555", "transformers, attentions, any edit"),
    (LIVE, "first", "#4e79a7", "Lookback, first reading"),
    (LIVE, "middle", "#76b7b2", "Lookback, edit in the middle"),
    (LIVE, "appended", "#59a14f", "Lookback, one word appended"),
)


def draw(results: Results, folder: Path) -> list[Path]:
    """Draw every figure that there are enough results for; returns the files."""
    matplotlib.rcParams |= {
        "svg.hashsalt": "lookback",
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    if len({sample.n_tokens for sample in results.samples}) > 1:
        files.append(_times(results.samples, folder / "times.svg"))
    if any(load.latency_ms for load in results.loads):
        files.append(_typists(results.loads, folder / "typists.svg"))
    return files


def _times(samples: Sequence[Sample], path: Path) -> Path:
    """Milliseconds over tokens, both in logarithms; the middle half of all rounds is shaded."""
    figure, axes = plt.subplots(figsize=(8, 4.6), layout="constrained")
    for contestant, case, colour, label in LINES:
        times_ms: dict[int, list[float]] = {}  # number of tokens -> samples
        for sample in samples:
            if (sample.contestant, sample.case) == (contestant, case):
                times_ms.setdefault(sample.n_tokens, []).append(sample.ms)
        if times_ms:
            lengths = sorted(times_ms)
            axes.plot(lengths, [median(times_ms[n]) for n in lengths], "o-", color=colour, label=label, markersize=4)
            low, high = zip(*(np.percentile(times_ms[n], (25, 75)) for n in lengths), strict=True)
            axes.fill_between(lengths, low, high, color=colour, alpha=0.2, linewidth=0)
    lengths = sorted({sample.n_tokens for sample in samples})
    axes.set(xscale="log", yscale="log", xlabel="tokens of the text", ylabel="ms from key to reply")
    axes.set_xticks(lengths, [f"{n:,}" for n in lengths])
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return _save(figure, path)


def _typists(loads: Sequence[Load], path: Path) -> Path:
    """The fraction of keys that had a reply, over the milliseconds since the key was due."""
    figure, axes = plt.subplots(figsize=(8, 3.6), layout="constrained")
    for load in loads:
        waits = np.sort(load.latency_ms)
        name = "one typist" if load.n_typists == 1 else f"{load.n_typists} typists"
        label = f"{name}: 95 % within {percentile(load.latency_ms, 95):,.0f} ms"
        axes.step(waits, np.arange(1, len(waits) + 1) / len(waits), where="post", label=label)
    axes.axhline(0.95, color="#999999", linewidth=0.8, linestyle=":")
    axes.set(xscale="log", xlabel="ms from key to reply", ylabel="fraction of all keys", ylim=(0, 1))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    return _save(figure, path)


def _save(figure: plt.Figure, path: Path) -> Path:
    figure.savefig(path, metadata={"Date": None}, facecolor="white")
    plt.close(figure)
    return path
