"""Train a GPT-2 from scratch on texts, step by step, so that a run that was stopped goes on as if it had not been.

The folder of a run is a checkpoint in Hugging Face's layout from its first step on; beside it lie

    steps/128/model.safetensors   the parameters after so many steps, in float16: 0, 1, 2, 4, 8, …
    training.json                 the recipe, and the curve of the losses
    resume.safetensors            parameters and moments as they are now, in float32; gone when the run is done
    corpus/                       the tokens
"""

# shapes: B stretches, T tokens of a stretch, V tokens of the vocabulary

import json
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F

from model.dropout import Dropout
from model.gpt import GPT
from model.training.corpus import Corpus, batch
from model.training.recipe import Recipe, TrainingError, differences, is_kept
from model.weights.save import write_config, write_json, write_parameters, write_whole

RECORD, RESUME = "training.json", "resume.safetensors"


@dataclass(frozen=True)
class Point:
    """One point of the curve."""

    step: int
    n_tokens: int  # read so far
    loss: float  # of the steps since the last point, in nats a token
    held_out_loss: float  # nats a token
    bits_per_byte: float  # of the held-out text


@dataclass(frozen=True)
class Record:
    """What a run wrote down of itself."""

    recipe: Mapping[str, Any]
    step: int  # so many steps are taken
    curve: tuple[Point, ...]


def read_record(folder: Path) -> Record | None:
    """The record of the run that left this folder; None where there is none, or one that we cannot read."""
    try:
        raw = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        return Record(dict(raw["recipe"]), int(raw["step"]), tuple(Point(**point) for point in raw["curve"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


Report = Callable[[int, float, float], None]  # steps done, loss of the last one, tokens a second


def train(
    folder: Path, recipe: Recipe, corpus: Corpus, device: torch.device, report: Report, *, save_seconds: float = 30.0
) -> None:
    """Take all steps that are still to be taken.

    Raises:
        TrainingError: when the folder holds a run by another recipe, or a loss that is no number.
        OSError: when something cannot be written; what was written before stays good.
    """
    torch.manual_seed(recipe.seed)
    model = fresh(recipe).to(device).train()
    optimizer = make_optimizer(model, recipe)
    step, curve = _resume(folder / RESUME, model, optimizer, recipe)
    if step == 0:
        shutil.rmtree(folder / "steps", ignore_errors=True)  # of a run that ended before its first state was saved
        write_config(folder, recipe.config)
        curve = [_point(0, math.nan, model, corpus, recipe)]
        _keep(folder, step, model, recipe, curve)
    saved, losses = time.monotonic(), list[float]()
    while step < recipe.n_steps:
        started = time.monotonic()
        losses.append(learn(model, optimizer, batch(corpus, recipe, step), recipe, step))
        if not math.isfinite(losses[-1]):
            raise TrainingError(
                f"The loss of step {step} is {losses[-1]}. The last good state is kept; a smaller --rate helps."
            )
        step += 1
        report(step, losses[-1], recipe.n_texts * recipe.n_context / (time.monotonic() - started))
        if step in _points(recipe):
            curve.append(_point(step, sum(losses) / len(losses), model, corpus, recipe))
            losses = []
        if is_kept(step) or step == recipe.n_steps:
            _keep(folder, step, model, recipe, curve)
        if step == recipe.n_steps or time.monotonic() - saved > save_seconds:
            _save(folder / RESUME, step, model, optimizer, recipe, curve)
            saved = time.monotonic()
    (folder / RESUME).unlink()


def fresh(recipe: Recipe) -> GPT:
    """The network with random parameters, drawn as GPT-2's were (Radford et al. 2019, 2.3).

    Normal with a deviation of 0.02; what writes to the residual stream starts smaller, the more layers write to it.
    Positions alone are not drawn: they begin as waves (Vaswani et al. 2017, 3.5), which a trained GPT-2's come to look
    like, so that what is true of one position need not be learned again for the next.
    """
    generator = torch.Generator().manual_seed(recipe.seed)
    model = GPT(recipe.config)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        elif parameter.dim() == 2:
            writes = name.endswith(("attention.output.weight", "mlp.down.weight"))
            deviation = 0.02 / math.sqrt(2 * recipe.n_layers) if writes else 0.02
            nn.init.normal_(parameter, std=deviation, generator=generator)
    model.state_dict()["positions.table.weight"].copy_(waves(recipe.n_context, recipe.d_model))
    return model


def waves(n_context: int, d_model: int) -> Tensor:
    """Sines and cosines of positions, (T, M): wavelengths from 6 to 6,000 tokens, of a deviation near that of tokens.

    >>> waves(3, 4)[0]
    tensor([0.0000, 0.0000, 0.0300, 0.0300])
    """
    half = (d_model + 1) // 2
    angle_TF = torch.arange(n_context)[:, None] * 1000.0 ** (-torch.arange(half) / half)
    return 0.03 * torch.cat((angle_TF.sin(), angle_TF.cos()), dim=1)[:, :d_model]


def make_optimizer(model: GPT, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW (Loshchilov, Hutter 2019); only matrices decay, not gains and biases."""
    matrices = [p for p in model.parameters() if p.dim() == 2]
    others = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.95), fused=True)


def learn(model: GPT, optimizer: torch.optim.Optimizer, ids: np.ndarray[Any, Any], recipe: Recipe, step: int) -> float:
    """One step; its loss in nats a token."""
    torch.manual_seed(recipe.seed * 1_000_003 + step)  # dropout draws what it would have drawn without a stop
    for group in optimizer.param_groups:
        group["lr"] = recipe.rate(step)
    for part in model.modules():
        if isinstance(part, Dropout):
            part.rate = recipe.rate_of_dropout(step)
    ids_BT = torch.from_numpy(ids).to(model.device)
    loss = cross_entropy(model, ids_BT, recipe)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
    optimizer.step()
    return loss.item()


def cross_entropy(model: GPT, ids_BT: Tensor, recipe: Recipe) -> Tensor:
    """Mean surprise at each token but the first, in nats."""
    with torch.autocast(model.device.type, torch.bfloat16, enabled=recipe.bfloat16):
        logits_BTV = model(ids_BT[:, :-1])
    return F.cross_entropy(logits_BTV.flatten(0, 1).float(), ids_BT[:, 1:].flatten())


@torch.inference_mode()
def held_out_loss(model: GPT, corpus: Corpus, recipe: Recipe, *, n_most: int | None = None) -> tuple[float, float]:
    """Surprise at the held-out texts, in nats a token and in bits a byte.

    Stretches of one context follow one another, each read on its own; `n_most` stops after so many.
    """
    was_training = model.training
    model.eval()
    stretches = list(_stretches(corpus.held, recipe.n_context))[:n_most]
    total = n_tokens = 0.0
    for first in range(0, len(stretches), recipe.n_texts):
        ids_BT = torch.from_numpy(np.stack(stretches[first : first + recipe.n_texts])).to(model.device)
        n_read = ids_BT[:, 1:].numel()
        total += cross_entropy(model, ids_BT, recipe).item() * n_read
        n_tokens += n_read
    model.train(was_training)
    bytes_per_token = corpus.n_held_bytes / len(corpus.held)
    return total / n_tokens, total / n_tokens / bytes_per_token / math.log(2)


def _stretches(ids: np.ndarray[Any, Any], n_context: int) -> Iterator[np.ndarray[Any, Any]]:
    for start in range(0, len(ids) - n_context, n_context):
        yield ids[start : start + n_context + 1].astype(np.int64)


def _points(recipe: Recipe) -> set[int]:
    """The steps at which the curve has a point: those that are kept, fifty in between, and the last."""
    every = max(1, recipe.n_steps // 50)
    return {step for step in range(recipe.n_steps + 1) if is_kept(step) or step % every == 0} | {recipe.n_steps}


def _point(step: int, loss: float, model: GPT, corpus: Corpus, recipe: Recipe) -> Point:
    n_most = None if step == recipe.n_steps else 64
    held, bits = held_out_loss(model, corpus, recipe, n_most=n_most)
    return Point(step, step * recipe.n_texts * recipe.n_context, held if math.isnan(loss) else loss, held, bits)


def _keep(folder: Path, step: int, model: GPT, recipe: Recipe, curve: list[Point]) -> None:
    """What is shown of a run: the parameters of this step, the last ones, and the record, in this order."""
    if is_kept(step):
        write_parameters(folder / "steps" / str(step), model.state_dict(), recipe.config, torch.float16)
    write_parameters(folder, model.state_dict(), recipe.config, torch.float16)
    record = {"recipe": recipe.as_dict(), "step": step, "curve": [asdict(point) for point in curve]}
    write_json(folder / RECORD, record)


def _save(
    path: Path, step: int, model: GPT, optimizer: torch.optim.Optimizer, recipe: Recipe, curve: list[Point]
) -> None:
    """Everything that the next step depends on, in one file, which is replaced whole."""
    tensors = {}
    for name, parameter in model.named_parameters():
        tensors[f"parameter.{name}"] = parameter.detach()
        tensors[f"first.{name}"] = optimizer.state[parameter]["exp_avg"]
        tensors[f"second.{name}"] = optimizer.state[parameter]["exp_avg_sq"]
    about = {"step": step, "recipe": recipe.as_dict(), "curve": [asdict(point) for point in curve]}
    write_whole(path, save(tensors, metadata={"about": json.dumps(about)}))


def _resume(path: Path, model: GPT, optimizer: torch.optim.Optimizer, recipe: Recipe) -> tuple[int, list[Point]]:
    """Go on from a saved state: the number of steps taken, and the curve so far."""
    if not path.is_file():
        return 0, []
    try:
        with safe_open(path, "pt") as file:
            about = json.loads(file.metadata()["about"])
            if differ := differences(about["recipe"], recipe):
                raise TrainingError(
                    f"{path.parent} holds a run that another recipe began ({differ} differ). "
                    "Go on with the same options, or train into another folder."
                )
            for name, parameter in model.named_parameters():
                parameter.data.copy_(file.get_tensor(f"parameter.{name}"))
                optimizer.state[parameter] = {
                    "step": torch.tensor(float(about["step"])),
                    "exp_avg": file.get_tensor(f"first.{name}").to(parameter),
                    "exp_avg_sq": file.get_tensor(f"second.{name}").to(parameter),
                }
    except (SafetensorError, KeyError, RuntimeError) as error:
        raise TrainingError(f"{path} cannot be read ({error}). Delete it to begin anew.") from error
    return about["step"], [Point(**point) for point in about["curve"]]
