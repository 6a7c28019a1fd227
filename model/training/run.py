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
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F

from model.dropout import Dropout
from model.gpt import GPT
from model.training.corpus import N_COMMON, Corpus, batch, is_first_drill, n_first_drills
from model.training.recipe import Recipe, TrainingError, differences, is_kept
from model.training.record import Point, Record, write_record
from model.weights.save import write_atomic, write_config, write_parameters

RESUME = "resume.safetensors"
DEVIATION = 0.65  # of the deviation that keeps variances; heads were seen to form with it
N_POINTS = 50  # of the curve, about; those of the steps that are kept come on top
N_GLANCE = 64  # stretches of the held-out texts that are read at a point of the curve; at the last one, all


Part = Literal["positions", "vectors", "match", "matrices"]  # of the parameters: each learns at a rate of its own
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
    record = _resume(folder / RESUME, model, optimizer, recipe) or Record(recipe.as_dict())
    if not record.curve:
        shutil.rmtree(folder / "steps", ignore_errors=True)  # of a run that ended before its first state was saved
        write_config(folder, recipe.config)
        record = replace(record, curve=(_point(record, model, corpus, recipe),))
        _keep(folder, record, model, recipe)
    saved = time.monotonic()
    while record.step < recipe.n_steps:
        started = time.monotonic()
        if 0 < record.step == n_first_drills(recipe):
            begin_anew(model, recipe)
        loss = learn(model, optimizer, batch(corpus, recipe, record.step), recipe, record.step)
        if not math.isfinite(loss):
            raise TrainingError(
                f"The loss of step {record.step} is {loss}. The last good state is kept; a smaller --rate helps."
            )
        record = replace(record, step=record.step + 1, losses=(*record.losses, loss))
        report(record.step, loss, recipe.n_texts * recipe.n_context / (time.monotonic() - started))
        is_shown = is_kept(record.step) or record.step == recipe.n_steps
        if is_shown or record.step % max(1, recipe.n_steps // N_POINTS) == 0:
            record = replace(record, curve=(*record.curve, _point(record, model, corpus, recipe)), losses=())
        if is_shown:
            _keep(folder, record, model, recipe)
        if record.step < recipe.n_steps and time.monotonic() - saved > save_seconds:
            _save(folder / RESUME, record, model, optimizer)
            saved = time.monotonic()
    (folder / RESUME).unlink(missing_ok=True)


def fresh(recipe: Recipe) -> GPT:
    """The network with random parameters.

    Normal, of a deviation that fits how many features are added up (LeCun et al. 1998, 4.6); what writes to the
    residual stream starts smaller, the more layers write to it (Radford et al. 2019, 2.3). GPT-2's own 0.02 suits wide
    networks: at a width of 160 attention is then so even that heads hardly learn. Positions alone are not drawn: they
    begin as waves.
    """
    generator = torch.Generator().manual_seed(recipe.seed)
    model = GPT(recipe.config)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        elif parameter.dim() == 2:
            writes = name.endswith(("attention.output.weight", "mlp.down.weight"))
            share = (2 * recipe.n_layers) ** -0.5 if writes else 1.0
            nn.init.normal_(parameter, std=DEVIATION * share * parameter.shape[1] ** -0.5, generator=generator)
    model.state_dict()["positions.table.weight"].copy_(waves(recipe.n_context, recipe.d_model))
    return model


@torch.no_grad()
def begin_anew(model: GPT, recipe: Recipe) -> None:
    """Draw the tokens that no first drill has drawn once more, around the mean of the others.

    All that those drills have taught of them is that they never come: they have moved far away, and all to one side.
    """
    embeddings_VM = model.get_parameter("embed.weight")
    generator = torch.Generator().manual_seed(recipe.seed)
    new = torch.randn(embeddings_VM[N_COMMON:].shape, generator=generator)
    new *= DEVIATION * recipe.d_model**-0.5
    embeddings_VM[N_COMMON:] = embeddings_VM[:N_COMMON].mean(0) + new.to(model.device)


def waves(n_context: int, d_model: int) -> Tensor:
    """Sines and cosines of positions, (T, M): wavelengths from 3 tokens to a context, of the deviation of tokens.

    Fixed, they would do for positions (Vaswani et al. 2017, 3.5), and a trained GPT-2's come to look like them; begun
    so, what is learned of one position is true of the next.

    >>> waves(6, 2)[:, 0].round(decimals=1)  # one wave of 3 tokens
    tensor([ 0.0000,  0.6000, -0.6000,  0.0000,  0.6000, -0.6000])
    """
    half = (d_model + 1) // 2
    length_F = 3 * (max(n_context, 3) / 3) ** (torch.arange(half) / max(1, half - 1))
    angle_TF = 2 * math.pi * torch.arange(n_context)[:, None] / length_F
    return DEVIATION * math.sqrt(2 / d_model) * torch.cat((angle_TF.sin(), angle_TF.cos()), dim=1)[:, :d_model]


def make_optimizer(model: GPT, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW (Loshchilov, Hutter 2019). Only matrices decay, not gains, biases and positions."""
    parts: dict[Part, list[nn.Parameter]] = {part: [] for part in get_args(Part)}
    for name, parameter in model.named_parameters():
        if name.startswith("positions."):
            parts["positions"].append(parameter)
        elif parameter.dim() < 2:
            parts["vectors"].append(parameter)
        elif name.endswith((".query.weight", ".key.weight")):
            parts["match"].append(parameter)
        else:
            parts["matrices"].append(parameter)
    decays = ("match", "matrices")
    groups = [
        {"params": parameters, "part": part, "weight_decay": recipe.weight_decay if part in decays else 0.0}
        for part, parameters in parts.items()
    ]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.95), fused=True)


def rate_of(part: Part, recipe: Recipe, step: int) -> float:
    """The learning rate of a part of the network.

    Positions learn ten times slower: in a step only a few tokens stand at each, and at the rate of the others noise
    would drown the waves. What matches queries with keys learns three times faster, except in the first drills: heads
    that have formed become sharp so; none formed sooner by it.

    >>> [rate_of(part, Recipe(n_warmup=0, learning_rate=1.0), 0) for part in ("positions", "match", "matrices")]
    [0.1, 3.0, 1.0]
    """
    if part == "positions":
        return 0.1 * recipe.rate(step)
    if part == "match" and not is_first_drill(recipe, step):
        return 3.0 * recipe.rate(step)
    return recipe.rate(step)


def learn(model: GPT, optimizer: torch.optim.Optimizer, ids: np.ndarray[Any, Any], recipe: Recipe, step: int) -> float:
    """One step; its loss in nats a token."""
    torch.manual_seed(recipe.seed * 1_000_003 + step)  # dropout draws what it would have drawn without a stop
    for group in optimizer.param_groups:
        group["lr"] = rate_of(group["part"], recipe, step)
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
    chunks = list(_stretches(corpus.held, recipe.n_context))[:n_most]
    total = n_tokens = 0.0
    for first in range(0, len(chunks), recipe.n_texts):
        ids_BT = torch.from_numpy(np.stack(chunks[first : first + recipe.n_texts])).to(model.device)
        n_read = ids_BT[:, 1:].numel()
        total += cross_entropy(model, ids_BT, recipe).item() * n_read
        n_tokens += n_read
    model.train(was_training)
    bytes_per_token = corpus.n_held_bytes / len(corpus.held)
    return total / n_tokens, total / n_tokens / bytes_per_token / math.log(2)


def _stretches(ids: np.ndarray[Any, Any], n_context: int) -> Iterator[np.ndarray[Any, Any]]:
    for start in range(0, len(ids) - n_context, n_context):
        yield ids[start : start + n_context + 1].astype(np.int64)


def _point(record: Record, model: GPT, corpus: Corpus, recipe: Recipe) -> Point:
    held, bits = held_out_loss(model, corpus, recipe, n_most=None if record.step == recipe.n_steps else N_GLANCE)
    loss = sum(record.losses) / len(record.losses) if record.losses else held
    return Point(record.step, record.step * recipe.n_texts * recipe.n_context, loss, held, bits)


def _keep(folder: Path, record: Record, model: GPT, recipe: Recipe) -> None:
    """What is shown of a run: the parameters of this step, the last ones, and the record, in this order."""
    if is_kept(record.step):
        write_parameters(folder / "steps" / str(record.step), model.state_dict(), recipe.config, torch.float16)
    write_parameters(folder, model.state_dict(), recipe.config, torch.float16)
    write_record(folder, record)


def _save(path: Path, record: Record, model: GPT, optimizer: torch.optim.Optimizer) -> None:
    """Everything that the next step depends on, in one file, which is replaced whole."""
    tensors = {}
    for name, parameter in model.named_parameters():
        tensors[f"parameter.{name}"] = parameter.detach()
        tensors[f"first.{name}"] = optimizer.state[parameter]["exp_avg"]
        tensors[f"second.{name}"] = optimizer.state[parameter]["exp_avg_sq"]
    write_atomic(path, save(tensors, metadata={"record": json.dumps(record.as_dict())}))


def _resume(path: Path, model: GPT, optimizer: torch.optim.Optimizer, recipe: Recipe) -> Record | None:
    """Go on from a saved state, where there is one."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            record = Record.from_dict(json.loads(file.metadata()["record"]))
            if differ := differences(record.recipe, recipe):
                raise TrainingError(
                    f"{path.parent} holds a run that another recipe began ({differ} differ). "
                    "Go on with the same options, or train into another folder."
                )
            for name, parameter in model.named_parameters():
                parameter.data.copy_(file.get_tensor(f"parameter.{name}"))
                optimizer.state[parameter] = {
                    "step": torch.tensor(float(record.step)),
                    "exp_avg": file.get_tensor(f"first.{name}").to(parameter),
                    "exp_avg_sq": file.get_tensor(f"second.{name}").to(parameter),
                }
    except (SafetensorError, KeyError, TypeError, RuntimeError) as error:
        raise TrainingError(f"{path} cannot be read ({error}). Delete it to begin anew.") from error
    return record
