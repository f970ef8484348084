"""The one training loop: progress bar, AMP on a GPU, early stopping, best weights, resume after a kill.

Every epoch seeds torch from (seed, epoch), so a run that was killed and resumed ends with the same weights as one that
was not. A checkpoint is one safetensors file, replaced as a whole after each epoch.
"""

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import trange

from anomaly.errors import DataError

CHECKPOINT = "checkpoint.safetensors"


@dataclass(frozen=True, slots=True)
class Recipe:
    """How long and how fast."""

    epochs: int
    batch_size: int = 16
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    patience: int = 10  # epochs without a better validation loss
    min_delta: float = 1e-4  # what counts as better, as a share of the best loss
    clip: float = 1.0  # norm of the gradient


@dataclass(slots=True)
class Progress:
    """Where a run stands."""

    epoch: int = 0
    best: float = math.inf
    waited: int = 0
    losses: list[tuple[float, float]] = field(default_factory=list)  # (training, validation) of each epoch


def fit(
    module: nn.Module,
    loss: Callable[[list[int]], Tensor],
    validation_loss: Callable[[], float],
    *,
    count: int,
    recipe: Recipe,
    folder: Path,
    seed: int,
    identity: str,
) -> Progress:
    """Trains in place and leaves the best weights in the module.

    Args:
        module: on its device, with requires_grad set on what is to be trained.
        loss: of a batch of sample indices, with gradient.
        validation_loss: of the module as it is, lower is better; called without gradient, in evaluation mode.
        count: how many training samples there are.
        recipe: how long and how fast.
        folder: where the checkpoint lies; an unfinished one of the same identity is continued.
        seed: of shuffling, augmentation and dropout.
        identity: of data and settings; a checkpoint of another one is refused.

    Raises:
        DataError: the checkpoint belongs to other settings or is corrupt, or a loss is not finite.
    """
    device = next(module.parameters()).device
    optimiser = torch.optim.AdamW(
        [p for p in module.parameters() if p.requires_grad], lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimiser, factor=0.5, patience=3)
    scaler = torch.GradScaler(device.type, enabled=device.type == "cuda")
    path = folder / CHECKPOINT
    progress, best = _resume(path, module, optimiser, scheduler, scaler, identity)

    bar = trange(progress.epoch, recipe.epochs, desc="training", unit="epoch", leave=False, disable=None)
    for epoch in bar:
        if progress.waited > recipe.patience:
            break
        torch.manual_seed(int.from_bytes(hashlib.sha256(f"{seed} {epoch}".encode()).digest()[:7]))
        module.train()
        order = torch.randperm(count).tolist()
        total = 0.0
        for start in range(0, count, recipe.batch_size):
            indices = order[start : start + recipe.batch_size]
            if len(indices) == 1 and start > 0 and recipe.batch_size > 1:
                continue  # batch norm cannot take a left-over batch of one; it comes along in another epoch
            optimiser.zero_grad(set_to_none=True)
            with torch.autocast(device.type, enabled=device.type == "cuda"):
                value = loss(indices)
            _check_finite("training", value.item(), epoch)
            scaler.scale(value).backward()  # type: ignore[no-untyped-call]
            scaler.unscale_(optimiser)
            nn.utils.clip_grad_norm_(module.parameters(), recipe.clip)
            scaler.step(optimiser)
            scaler.update()
            total += value.item() * len(indices)
        module.eval()
        with torch.no_grad():
            checked = validation_loss()
        _check_finite("validation", checked, epoch)
        scheduler.step(checked)
        progress.epoch = epoch + 1
        progress.losses.append((total / count, checked))
        if checked < progress.best * (1 - recipe.min_delta) or not best:
            progress.best, progress.waited = checked, 0
            best = {name: value.detach().clone() for name, value in module.state_dict().items()}
        else:
            progress.waited += 1
        bar.set_postfix(train=f"{total / count:.4g}", validate=f"{checked:.4g}", best=f"{progress.best:.4g}")
        _save(path, module, best, optimiser, scheduler, scaler, progress, identity)
    module.load_state_dict(best, strict=True)
    module.eval()
    return progress


def _check_finite(which: str, loss: float, epoch: int) -> None:
    if not math.isfinite(loss):
        raise DataError(f"the {which} loss became {loss} in epoch {epoch + 1}: lower the learning rate")


def _save(
    path: Path,
    module: nn.Module,
    best: dict[str, Tensor],
    optimiser: torch.optim.Optimizer,
    scheduler: Any,
    scaler: torch.GradScaler,
    progress: Progress,
    identity: str,
) -> None:
    from safetensors.torch import save_file

    tensors = {f"model.{name}": value.detach().clone() for name, value in module.state_dict().items()}
    tensors |= {f"best.{name}": value for name, value in best.items()}
    for index, entries in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{name}": value for name, value in entries.items()}
    notes = {
        "identity": identity,
        "epoch": progress.epoch,
        "best": progress.best,
        "waited": progress.waited,
        "losses": progress.losses,
        "lr": [group["lr"] for group in optimiser.param_groups],
        "scheduler": {name: getattr(scheduler, name) for name in ("best", "num_bad_epochs", "last_epoch")},
        "scaler": scaler.state_dict(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file({k: v.contiguous() for k, v in tensors.items()}, partial, metadata={"notes": json.dumps(notes)})
    partial.replace(path)


def _resume(
    path: Path,
    module: nn.Module,
    optimiser: torch.optim.Optimizer,
    scheduler: Any,
    scaler: torch.GradScaler,
    identity: str,
) -> tuple[Progress, dict[str, Tensor]]:
    if not path.is_file():
        return Progress(), {}
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            notes = json.loads(file.metadata()["notes"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path} cannot be read ({error}): delete it to train from the start") from error
    if notes["identity"] != identity:
        raise DataError(
            f"{path.parent} holds an unfinished run of other data or settings: give another --out or delete {path}"
        )
    module.load_state_dict({k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")})
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimiser."):
            _, index, key = name.split(".")
            state.setdefault(int(index), {})[key] = value
    groups = optimiser.state_dict()["param_groups"]
    for group, rate in zip(groups, notes["lr"], strict=True):
        group["lr"] = rate
    optimiser.load_state_dict({"state": state, "param_groups": groups})
    for name, value in notes["scheduler"].items():
        setattr(scheduler, name, value)
    scaler.load_state_dict(notes["scaler"])
    best = {k.removeprefix("best."): v for k, v in tensors.items() if k.startswith("best.")}
    losses = [(a, b) for a, b in notes["losses"]]
    return Progress(notes["epoch"], notes["best"], notes["waited"], losses), best
