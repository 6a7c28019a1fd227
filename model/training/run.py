"""Trains a GPT-2 from scratch, step by step. A run that was stopped continues as if it had not been.

The folder of a run is a checkpoint in Hugging Face's layout from its first step on. In addition it has

    steps/128/model.safetensors   the parameters after that many steps, in float16: 0, 1, 2, 4, 8, …
    training.json                 the recipe, and the curve of the losses
    resume.safetensors            the current parameters and moments, in float32; removed when the run is complete
    corpus/                       the tokens
"""

# shapes: B sequences, T tokens of a sequence, V tokens of the vocabulary

import json
import math
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F

from model.dropout import Dropout
from model.gpt import GPT
from model.training.corpus import Batch, Corpus, TokenIds, is_easy_step, make_batch, n_easy_steps
from model.training.initial import init_model, reset_unused_embeddings
from model.training.recipe import Recipe, TrainingError, differing_fields, is_saved_step
from model.training.record import LossPoint, Record, write_record
from model.weights.save import write_atomic, write_config, write_parameters

RESUME = "resume.safetensors"
N_CURVE_POINTS = 50  # of the curve, about; the points of saved steps come in addition
N_EVAL_CONTEXTS = 64  # contexts of held-out text per point of the curve; the last point uses all of them


ParameterGroup = Literal["positions", "vectors", "match", "matrices"]  # each has its own learning rate
Report = Callable[[int, float, float], None]  # called with the steps taken, the loss of the last, tokens per second


def train(
    folder: Path, recipe: Recipe, corpus: Corpus, device: torch.device, report: Report, *, save_seconds: float = 30.0
) -> None:
    """Take all steps that have not been taken yet.

    Raises:
        TrainingError: if the folder holds a run with another recipe, or a loss is not finite.
        OSError: if a file cannot be written; everything that was written before stays usable.
    """
    torch.manual_seed(recipe.seed)
    model = init_model(recipe).to(device).train()
    optimizer = make_optimizer(model, recipe)
    record = _load_state(folder / RESUME, model, optimizer, recipe) or Record(recipe)
    if not record.curve:
        record = _begin(folder, record, model, corpus)
    saved = time.monotonic()
    while record.step < recipe.n_steps:
        started = time.monotonic()
        if 0 < record.step == n_easy_steps(recipe):
            reset_unused_embeddings(model, recipe)
        loss = train_step(model, optimizer, make_batch(corpus, recipe, record.step), recipe, record.step)
        if not math.isfinite(loss):
            raise TrainingError(
                f"The loss of step {record.step} is {loss}. The last good state is saved; "
                "a smaller --learning-rate helps."
            )
        record = replace(record, step=record.step + 1, losses=(*record.losses, loss))
        report(record.step, loss, recipe.batch_size * recipe.n_context / (time.monotonic() - started))
        record = _log_step(folder, record, model, corpus)
        if record.step < recipe.n_steps and time.monotonic() - saved > save_seconds:
            _save_state(folder / RESUME, record, model, optimizer)
            saved = time.monotonic()
    (folder / RESUME).unlink(missing_ok=True)


def _begin(folder: Path, record: Record, model: GPT, corpus: Corpus) -> Record:
    """Write the config, the initial parameters and the first point of the curve."""
    shutil.rmtree(folder / "steps", ignore_errors=True)  # from a run that ended before its first state was saved
    write_config(folder, record.recipe.config)
    record = replace(record, curve=(_evaluate(record, model, corpus),))
    _save_checkpoint(folder, record, model)
    return record


def _log_step(folder: Path, record: Record, model: GPT, corpus: Corpus) -> Record:
    """Add a point to the curve and save a checkpoint, after the steps that get one."""
    recipe = record.recipe
    is_saved = is_saved_step(record.step) or record.step == recipe.n_steps
    if is_saved or record.step % max(1, recipe.n_steps // N_CURVE_POINTS) == 0:
        record = replace(record, curve=(*record.curve, _evaluate(record, model, corpus)), losses=())
    if is_saved:
        _save_checkpoint(folder, record, model)
    return record


def make_optimizer(model: GPT, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW (Loshchilov, Hutter 2019). Weight decay applies to matrices, not to gains, biases and positions."""
    groups: dict[ParameterGroup, list[nn.Parameter]] = {group: [] for group in get_args(ParameterGroup)}
    for name, parameter in model.named_parameters():
        if name.startswith("positions."):
            groups["positions"].append(parameter)
        elif parameter.dim() < 2:
            groups["vectors"].append(parameter)
        elif name.endswith((".query.weight", ".key.weight")):
            groups["match"].append(parameter)
        else:
            groups["matrices"].append(parameter)
    decayed = ("match", "matrices")
    settings = [
        {"params": parameters, "group": group, "weight_decay": recipe.weight_decay if group in decayed else 0.0}
        for group, parameters in groups.items()
    ]
    return torch.optim.AdamW(settings, lr=recipe.learning_rate, betas=(0.9, 0.95), fused=True)


def group_learning_rate(group: ParameterGroup, recipe: Recipe, step: int) -> float:
    """The learning rate of a group of parameters.

    Positions learn ten times slower, because in one step few tokens have the same position, and at the full rate noise
    would destroy the sinusoids. Query and key projections learn three times faster after the easy steps, which
    sharpens the heads that have formed; during the easy steps a faster rate made none form sooner.

    >>> recipe = Recipe(n_warmup=0, learning_rate=1.0)
    >>> [group_learning_rate(group, recipe, 0) for group in ("positions", "match", "matrices")]
    [0.1, 3.0, 1.0]
    """
    if group == "positions":
        return 0.1 * recipe.learning_rate_at(step)
    if group == "match" and not is_easy_step(recipe, step):
        return 3.0 * recipe.learning_rate_at(step)
    return recipe.learning_rate_at(step)


def train_step(model: GPT, optimizer: torch.optim.Optimizer, ids: Batch, recipe: Recipe, step: int) -> float:
    """Take one step. Returns its loss, in nats per token."""
    torch.manual_seed(recipe.seed * 1_000_003 + step)  # so that dropout draws the same numbers after a stop
    for settings in optimizer.param_groups:
        settings["lr"] = group_learning_rate(settings["group"], recipe, step)
    for module in model.modules():
        if isinstance(module, Dropout):
            module.rate = recipe.dropout_at(step)
    ids_BT = torch.from_numpy(ids).to(model.device)
    loss = cross_entropy(model, ids_BT, recipe)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
    optimizer.step()
    return loss.item()


def cross_entropy(model: GPT, ids_BT: Tensor, recipe: Recipe) -> Tensor:
    """Mean cross-entropy over all tokens except the first of each sequence, in nats per token."""
    with torch.autocast(model.device.type, torch.bfloat16, enabled=recipe.bfloat16):
        logits_BTV = model(ids_BT[:, :-1])
    return F.cross_entropy(logits_BTV.flatten(0, 1).float(), ids_BT[:, 1:].flatten())


@torch.inference_mode()
def held_out_loss(
    model: GPT, corpus: Corpus, recipe: Recipe, *, max_contexts: int | None = None
) -> tuple[float, float]:
    """The loss on the held-out texts, in nats per token and in bits per byte.

    The texts are cut into contexts, each evaluated alone; `max_contexts` limits how many are used.
    """
    was_training = model.training
    model.eval()
    contexts = list(_contexts(corpus.held_out, recipe.n_context))[:max_contexts]
    total = n_tokens = 0.0
    for start in range(0, len(contexts), recipe.batch_size):
        ids_BT = torch.from_numpy(np.stack(contexts[start : start + recipe.batch_size])).to(model.device)
        n_predicted = ids_BT[:, 1:].numel()
        total += cross_entropy(model, ids_BT, recipe).item() * n_predicted
        n_tokens += n_predicted
    model.train(was_training)
    bytes_per_token = corpus.n_held_out_bytes / len(corpus.held_out)
    return total / n_tokens, total / n_tokens / bytes_per_token / math.log(2)


def _contexts(ids: TokenIds, n_context: int) -> Iterator[np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """Consecutive contexts, each with the token after it, (T+1,)."""
    for start in range(0, len(ids) - n_context, n_context):
        yield ids[start : start + n_context + 1].astype(np.int64)


def _evaluate(record: Record, model: GPT, corpus: Corpus) -> LossPoint:
    """The point of the curve after the steps that were taken."""
    recipe = record.recipe
    max_contexts = None if record.step == recipe.n_steps else N_EVAL_CONTEXTS
    held_out, bits = held_out_loss(model, corpus, recipe, max_contexts=max_contexts)
    loss = sum(record.losses) / len(record.losses) if record.losses else held_out
    return LossPoint(record.step, record.step * recipe.batch_size * recipe.n_context, loss, held_out, bits)


def _save_checkpoint(folder: Path, record: Record, model: GPT) -> None:
    """Write the parameters of this step, those of the latest step, and the record, in this order."""
    config = record.recipe.config
    if is_saved_step(record.step):
        write_parameters(folder / "steps" / str(record.step), model.state_dict(), config, torch.float16)
    write_parameters(folder, model.state_dict(), config, torch.float16)
    write_record(folder, record)


def _save_state(path: Path, record: Record, model: GPT, optimizer: torch.optim.Optimizer) -> None:
    """Write everything that the next step depends on to one file, atomically."""
    tensors = {}
    for name, parameter in model.named_parameters():
        tensors[f"parameter.{name}"] = parameter.detach()
        tensors[f"first.{name}"] = optimizer.state[parameter]["exp_avg"]
        tensors[f"second.{name}"] = optimizer.state[parameter]["exp_avg_sq"]
    write_atomic(path, save(tensors, metadata={"record": json.dumps(record.as_dict())}))


def _load_state(path: Path, model: GPT, optimizer: torch.optim.Optimizer, recipe: Recipe) -> Record | None:
    """Restore a saved state, if there is one. Returns its record."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            record = Record.from_dict(json.loads(file.metadata()["record"]))
            if differing := differing_fields(record.recipe, recipe):
                raise TrainingError(
                    f"{path.parent} holds a run that was started with another recipe ({differing} differ). "
                    "Continue with the same options, or train into another folder."
                )
            for name, parameter in model.named_parameters():
                parameter.data.copy_(file.get_tensor(f"parameter.{name}"))
                optimizer.state[parameter] = {
                    "step": torch.tensor(float(record.step)),
                    "exp_avg": file.get_tensor(f"first.{name}").to(parameter),
                    "exp_avg_sq": file.get_tensor(f"second.{name}").to(parameter),
                }
    except (SafetensorError, KeyError, TypeError, RuntimeError) as error:
        raise TrainingError(f"{path} cannot be read ({error}). Delete it to start again.") from error
    return record
