"""The one training loop: progress bar, AMP on a GPU, phases, early stopping, best weights, resume after a kill.

Every epoch seeds torch from (seed, epoch), so a run that was killed and resumed ends with the same weights as one that
was not. A checkpoint is one safetensors file, replaced as a whole after each epoch.
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
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
    patience: int = 10  # epochs of a phase without a better validation loss
    min_share: float = 1e-4  # what counts as better, as a share of the best loss
    min_delta: float = 0.0  # what counts as better, in the loss's own units
    clip: float = 1.0  # norm of the gradient
    plateau: int = 3  # epochs without a better validation loss until the rate is halved
    min_rate: float = 0.0
    frozen_norm: bool = False  # batch norm keeps the statistics it came with: small batches would spoil them


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of training: which parameters move, and how fast. The others are frozen.

    A module whose parameters are all frozen is in evaluation mode meanwhile, and nothing is propagated back below the
    lowest parameter that moves. A phase starts from the best weights so far, with its own optimiser and patience.
    """

    name: str
    epochs: int  # at the most
    rates: Mapping[str, float]  # parameter's name -> learning rate


@dataclass(slots=True)
class Progress:
    """Where a run stands."""

    epoch: int = 0
    best: float = math.inf
    waited: int = 0
    losses: list[tuple[float, float]] = field(default_factory=list)  # (training, validation) of each epoch
    phases: list[int] = field(default_factory=list)  # epochs of each phase begun


class _Optimiser:
    """What one phase minimises with."""

    def __init__(self, module: nn.Module, phase: Phase, recipe: Recipe) -> None:
        groups: dict[float, list[nn.Parameter]] = {}
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(name in phase.rates)
            if name in phase.rates:
                groups.setdefault(phase.rates[name], []).append(parameter)
        device = next(module.parameters()).device.type
        self.adam = torch.optim.AdamW(
            [{"params": parameters, "lr": rate} for rate, parameters in groups.items()],
            weight_decay=recipe.weight_decay,
        )
        self.plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
            self.adam, factor=0.5, patience=recipe.plateau, min_lr=recipe.min_rate
        )
        self.scaler = torch.GradScaler(device, enabled=device == "cuda")

    def step(self, value: Tensor, module: nn.Module, clip: float) -> None:
        self.scaler.scale(value).backward()  # type: ignore[no-untyped-call]
        self.scaler.unscale_(self.adam)
        nn.utils.clip_grad_norm_(module.parameters(), clip)
        self.scaler.step(self.adam)
        self.scaler.update()
        self.adam.zero_grad(set_to_none=True)

    def tensors(self) -> dict[str, Tensor]:
        state = self.adam.state_dict()["state"]
        return {f"{index}.{name}": value for index, entries in state.items() for name, value in entries.items()}

    def notes(self) -> dict[str, Any]:
        return {
            "lr": [group["lr"] for group in self.adam.param_groups],
            "scheduler": {name: getattr(self.plateau, name) for name in ("best", "num_bad_epochs", "last_epoch")},
            "scaler": self.scaler.state_dict(),
        }

    def restore(self, tensors: Mapping[str, Tensor], notes: Mapping[str, Any]) -> None:
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            index, key = name.split(".")
            state.setdefault(int(index), {})[key] = value
        groups = self.adam.state_dict()["param_groups"]
        for group, rate in zip(groups, notes["lr"], strict=True):
            group["lr"] = rate
        self.adam.load_state_dict({"state": state, "param_groups": groups})
        for name, value in notes["scheduler"].items():
            setattr(self.plateau, name, value)
        self.scaler.load_state_dict(notes["scaler"])


@dataclass(slots=True)
class _Saved:
    """What a checkpoint holds."""

    progress: Progress = field(default_factory=Progress)
    model: dict[str, Tensor] = field(default_factory=dict)
    best: dict[str, Tensor] = field(default_factory=dict)
    optimiser: dict[str, Tensor] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)


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
    phases: Sequence[Phase] = (),
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
        phases: one after the other; by default a single one with the recipe's epochs and rate. They decide what is
            trained, whatever requires_grad was.

    Raises:
        DataError: the checkpoint belongs to other settings or is corrupt, or a loss is not finite.
    """
    path = folder / CHECKPOINT
    saved = _read(path, identity)
    progress, best = saved.progress, saved.best
    phases = phases or [_whole(module, recipe)]
    for index, phase in enumerate(phases):
        if index < len(progress.phases) - 1:
            continue  # finished before the kill
        optimiser = _Optimiser(module, phase, recipe)
        if index < len(progress.phases):
            module.load_state_dict(saved.model, strict=True)
            optimiser.restore(saved.optimiser, saved.notes)
        else:
            if best:
                module.load_state_dict(best, strict=True)
            progress.phases.append(0)
            progress.waited = 0
        bar = trange(progress.phases[-1], phase.epochs, desc=phase.name, unit="epoch", leave=False, disable=None)
        for _ in bar:
            if progress.waited > recipe.patience:
                break
            trained = _train_epoch(module, loss, optimiser, count, recipe, seed, progress.epoch)
            module.eval()
            with torch.no_grad():
                checked = validation_loss()
            _check_finite("validation", checked, progress.epoch)
            optimiser.plateau.step(checked)
            progress.epoch += 1
            progress.phases[-1] += 1
            progress.losses.append((trained, checked))
            if not best or checked < progress.best - max(recipe.min_delta, recipe.min_share * progress.best):
                progress.best, progress.waited = checked, 0
                best = {name: value.detach().clone() for name, value in module.state_dict().items()}
            else:
                progress.waited += 1
            bar.set_postfix(train=f"{trained:.4g}", validate=f"{checked:.4g}", best=f"{progress.best:.4g}")
            _write(path, module, best, optimiser, progress, identity)
    module.load_state_dict(best, strict=True)
    module.eval()
    return progress


def _whole(module: nn.Module, recipe: Recipe) -> Phase:
    rates = {name: recipe.learning_rate for name, value in module.named_parameters() if value.requires_grad}
    return Phase("training", recipe.epochs, rates)


def _train_epoch(
    module: nn.Module,
    loss: Callable[[list[int]], Tensor],
    optimiser: _Optimiser,
    count: int,
    recipe: Recipe,
    seed: int,
    epoch: int,
) -> float:
    """One pass over the samples in an order of its own; returns the mean loss."""
    device = next(module.parameters()).device.type
    torch.manual_seed(int.from_bytes(hashlib.sha256(f"{seed} {epoch}".encode()).digest()[:7]))
    _train_mode(module, recipe.frozen_norm)
    order = torch.randperm(count).tolist()
    total = 0.0
    for start in range(0, count, recipe.batch_size):
        indices = order[start : start + recipe.batch_size]
        if len(indices) == 1 and start > 0 and recipe.batch_size > 1:
            continue  # batch norm cannot take a left-over batch of one; it comes along in another epoch
        with torch.autocast(device, enabled=device == "cuda"):
            value = loss(indices)
        _check_finite("training", value.item(), epoch)
        optimiser.step(value, module, recipe.clip)
        total += value.item() * len(indices)
    return total / count


def _train_mode(module: nn.Module, frozen_norm: bool) -> None:
    module.train()
    for part in module.modules():
        parameters = list(part.parameters())
        frozen = bool(parameters) and not any(parameter.requires_grad for parameter in parameters)
        if frozen or (frozen_norm and isinstance(part, nn.modules.batchnorm._BatchNorm)):
            part.eval()


def _check_finite(which: str, loss: float, epoch: int) -> None:
    if not math.isfinite(loss):
        raise DataError(f"the {which} loss became {loss} in epoch {epoch + 1}: lower the learning rate")


def _write(
    path: Path, module: nn.Module, best: dict[str, Tensor], optimiser: _Optimiser, progress: Progress, identity: str
) -> None:
    from safetensors.torch import save_file

    tensors = {f"model.{name}": value.detach().clone() for name, value in module.state_dict().items()}
    tensors |= {f"best.{name}": value for name, value in best.items()}
    tensors |= {f"optimiser.{name}": value for name, value in optimiser.tensors().items()}
    notes = {
        "identity": identity,
        "epoch": progress.epoch,
        "best": progress.best,
        "waited": progress.waited,
        "losses": progress.losses,
        "phases": progress.phases,
        **optimiser.notes(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file({k: v.contiguous() for k, v in tensors.items()}, partial, metadata={"notes": json.dumps(notes)})
    partial.replace(path)


def _read(path: Path, identity: str) -> _Saved:
    if not path.is_file():
        return _Saved()
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

    def under(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

    progress = Progress(
        notes["epoch"], notes["best"], notes["waited"], [(a, b) for a, b in notes["losses"]], notes["phases"]
    )
    return _Saved(progress, under("model."), under("best."), under("optimiser."), notes)
