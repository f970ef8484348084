"""The training loop: seeded, stopped in time, and after a kill the same to the last bit as without."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from anomaly.errors import DataError
from training.loop import CHECKPOINT, Phase, Progress, Recipe, fit

COUNT = 22  # training samples; with batches of 7 one is left over


class Task:
    """A small regression with all that is random in a real one: initial weights, order, augmentation, dropout."""

    def __init__(self, folder: Path, *, count: int = COUNT, init: int = 0) -> None:
        data = torch.Generator().manual_seed(1)
        self.inputs, self.validation = torch.randn(count, 4, generator=data), torch.randn(8, 4, generator=data)
        torch.manual_seed(init)
        self.net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 1))
        self.folder = folder
        self.seen: list[list[int]] = []  # the batches

    def loss(self, indices: list[int]) -> Tensor:
        self.seen.append(indices)
        x = self.inputs[indices]
        return (self.net(x + 0.1 * torch.randn_like(x)) - x.sum(dim=1, keepdim=True)).square().mean()

    def validation_loss(self) -> float:
        assert not self.net.training
        assert not torch.is_grad_enabled()
        return (self.net(self.validation) - self.validation.sum(dim=1, keepdim=True)).square().mean().item()

    def fit(
        self,
        validation_loss: Callable[[], float] | None = None,
        *,
        epochs: int = 12,
        seed: int = 5,
        identity: str = "this",
        batch_size: int = 7,
        patience: int = 100,
        phases: Sequence[Phase] = (),
        **more: Any,
    ) -> Progress:
        recipe = Recipe(epochs=epochs, batch_size=batch_size, learning_rate=0.05, patience=patience, **more)
        return fit(
            self.net,
            self.loss,
            validation_loss or self.validation_loss,
            count=len(self.inputs),
            recipe=recipe,
            folder=self.folder,
            seed=seed,
            identity=identity,
            phases=phases,
        )

    def state(self) -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in self.net.state_dict().items()}


class Killed(BaseException):
    """Not caught by anybody, like a signal."""


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def scripted(losses: list[float]) -> Callable[[], float]:
    values: Iterator[float] = iter(losses)
    return lambda: next(values)


def notes(folder: Path) -> dict[str, object]:
    with safe_open(folder / CHECKPOINT, framework="pt") as file:
        read: dict[str, object] = json.loads(file.metadata()["notes"])
        return read


# --- the seed decides ------------------------------------------------------------------------------------------------


def test_two_runs_with_one_seed_are_identical_and_another_seed_is_another_run(tmp_path: Path) -> None:
    first, second, other = Task(tmp_path / "1"), Task(tmp_path / "2"), Task(tmp_path / "3")
    told = first.fit()
    torch.manual_seed(99)  # what was drawn before does not matter
    assert second.fit() == told
    assert same(first.state(), second.state())
    other.fit(seed=6)
    assert not same(first.state(), other.state())


def test_every_epoch_sees_every_sample_once_in_another_order(tmp_path: Path) -> None:
    task = Task(tmp_path, count=21)
    task.fit(epochs=3)
    orders = [[i for batch in task.seen[start : start + 3] for i in batch] for start in (0, 3, 6)]
    assert all(sorted(order) == list(range(21)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3


def test_a_left_over_sample_does_not_make_a_batch_of_its_own(tmp_path: Path) -> None:
    task = Task(tmp_path)  # batch norm in training refuses a single value for each channel
    task.fit(epochs=4)
    assert {len(batch) for batch in task.seen} == {7}
    assert len({index for batch in task.seen for index in batch}) == COUNT  # it is another one in each epoch


def test_batches_of_one_are_all_trained_on_where_that_was_asked_for(tmp_path: Path) -> None:
    task = Task(tmp_path)
    task.net = nn.Linear(4, 1)
    before = task.state()
    task.fit(epochs=1, batch_size=1)
    assert sorted(index for (index,) in task.seen) == list(range(COUNT))
    assert not same(before, task.state())


# --- stopping, and the best weights ----------------------------------------------------------------------------------


def test_training_stops_early_and_leaves_the_best_weights_not_the_last(tmp_path: Path) -> None:
    task = Task(tmp_path)
    states: list[dict[str, Tensor]] = []
    losses = scripted([3.0, 2.0, 1.0, *[1.5] * 50])

    def validation_loss() -> float:
        states.append(task.state())
        return losses()

    progress = task.fit(validation_loss, epochs=40, patience=4)
    assert 3 + 4 <= progress.epoch < 10
    assert progress.best == 1.0
    assert same(task.state(), states[2])
    assert not same(task.state(), states[-1])
    assert not task.net.training


def test_an_improvement_too_small_to_count_does_not_prolong_training(tmp_path: Path) -> None:
    progress = Task(tmp_path).fit(scripted([1 - 1e-6 * epoch for epoch in range(40)]), epochs=40, patience=4)
    assert progress.epoch < 10


def test_an_improvement_counts_in_the_units_of_the_loss_where_that_is_asked_for(tmp_path: Path) -> None:
    losses = [0.1, 0.0995, *[0.0985] * 30]
    progress = Task(tmp_path).fit(scripted(losses), epochs=32, patience=4, min_delta=1e-3)
    assert progress.best == 0.0985  # the step to .0995 is too small, the one to .0985 is not


def test_the_learning_rate_does_not_fall_below_its_least(tmp_path: Path) -> None:
    Task(tmp_path).fit(scripted([1.0] * 20), epochs=20, plateau=1, min_rate=0.02)
    assert notes(tmp_path)["lr"] == [0.02]


def test_the_learning_rate_is_halved_when_the_loss_stays(tmp_path: Path) -> None:
    task = Task(tmp_path)
    task.fit(scripted([1.0] * 4), epochs=4)
    assert notes(tmp_path)["lr"] == [0.05]
    task.fit(scripted([1.0] * 1), epochs=5)  # goes on: four epochs without a better one
    assert notes(tmp_path)["lr"] == [0.025]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_ends_training_with_advice(tmp_path: Path, value: float) -> None:
    with pytest.raises(DataError, match=r"validation loss became (nan|inf) in epoch 2: lower the learning rate"):
        Task(tmp_path / "validation").fit(scripted([1.0, value]))
    task = Task(tmp_path / "training")
    task.inputs[3] = value
    with pytest.raises(DataError, match=r"training loss became (nan|inf) in epoch 1: lower the learning rate"):
        task.fit()


# --- phases ---------------------------------------------------------------------------------------------------------

HEAD, ALL = ("4.weight", "4.bias"), ("0.weight", "0.bias", "1.weight", "1.bias", "4.weight", "4.bias")


def head_then_all(first: int = 3, second: int = 4) -> list[Phase]:
    rates = {name: 0.02 if name in HEAD else 0.005 for name in ALL}
    return [Phase("head", first, dict.fromkeys(HEAD, 0.05)), Phase("everything", second, rates)]


def test_a_phase_moves_what_it_names_and_leaves_the_rest_to_the_bit(tmp_path: Path) -> None:
    task = Task(tmp_path)
    before = task.state()
    progress = task.fit(phases=head_then_all()[:1])
    assert progress.phases == [3]
    moved = {name for name, value in task.state().items() if not torch.equal(value, before[name])}
    assert moved == set(HEAD)  # not the statistics of the frozen batch norm, either


def test_nothing_is_propagated_back_below_what_moves(tmp_path: Path) -> None:
    task = Task(tmp_path)
    graphs: list[bool] = []
    task.net[2].register_forward_hook(lambda *call: graphs.append(call[-1].requires_grad))
    task.fit(phases=head_then_all(1, 1))
    batches = 3
    assert graphs == [False] * batches + [False] + [True] * batches + [False]  # validation in between


def test_each_parameter_has_the_rate_of_its_phase(tmp_path: Path) -> None:
    Task(tmp_path).fit(phases=head_then_all())
    assert sorted(notes(tmp_path)["lr"]) == [0.005, 0.02]  # type: ignore[call-overload]
    assert notes(tmp_path)["phases"] == [3, 4]


def test_a_phase_starts_from_the_best_weights_and_waits_anew(tmp_path: Path) -> None:
    task = Task(tmp_path)
    states: list[dict[str, Tensor]] = []
    losses = scripted([3.0, 1.0, 2.0, 2.0, 2.0, 1.5, 0.5, *[2.0] * 20])

    def validation_loss() -> float:
        states.append(task.state())
        return losses()

    still = [Phase("head", 20, dict.fromkeys(HEAD, 0.05)), Phase("still", 20, dict.fromkeys(HEAD, 0.0))]
    progress = task.fit(validation_loss, patience=2, phases=still)
    assert progress.phases == [5, 5]  # two and three that were not better; then one, a better one, three more
    assert not same(states[4], states[1])
    assert same(states[5], states[1])  # at a rate of 0 it is where the second phase began
    assert progress.best == 0.5


def test_batch_norm_keeps_its_statistics_where_that_is_asked_for(tmp_path: Path) -> None:
    task = Task(tmp_path)
    before = task.state()
    task.fit(epochs=2, frozen_norm=True)
    changed = {name for name, value in task.state().items() if not torch.equal(value, before[name])}
    assert changed == set(ALL)


# --- a kill ----------------------------------------------------------------------------------------------------------

STALLING = [5.0, 4.0, 6.0, 6.0, 6.0, 6.0, 6.0, 3.0, 6.0, 6.0, 6.0, 6.0, 6.0, 6.0, 6.0, 6.0]  # halves the rate twice


@pytest.mark.parametrize("killed_in", [1, 2, 6, 7, 9, 12])
def test_a_run_killed_in_any_epoch_and_resumed_is_the_run_that_was_not(tmp_path: Path, killed_in: int) -> None:
    whole = Task(tmp_path / "whole")
    expected = whole.fit(scripted(STALLING), epochs=16, patience=6)
    assert 8 < expected.epoch < 16  # stopped early

    task = Task(tmp_path / "killed")

    def until_killed(indices: list[int]) -> Tensor:
        if len(task.seen) == killed_in * 3 - 1:  # in the midst of the epoch
            raise Killed
        return Task.loss(task, indices)

    task.loss = until_killed  # type: ignore[method-assign]
    with pytest.raises(Killed):
        task.fit(scripted(STALLING), epochs=16, patience=6)
    resumed = Task(tmp_path / "killed", init=77)  # a new process, and its initial weights do not matter
    if killed_in == 1:
        resumed = Task(tmp_path / "killed")  # nothing was saved yet: they do
    torch.manual_seed(123)
    assert resumed.fit(scripted(STALLING[killed_in - 1 :]), epochs=16, patience=6) == expected
    assert same(resumed.state(), whole.state())
    last = [load_file(task.folder / CHECKPOINT) for task in (whole, resumed)]
    assert same(*last)  # the optimiser and the last weights, too
    assert notes(resumed.folder) == notes(whole.folder)


@pytest.mark.parametrize("killed_in", [2, 3, 4, 5, 6, 7])
def test_a_run_killed_in_any_phase_and_resumed_is_the_run_that_was_not(tmp_path: Path, killed_in: int) -> None:
    whole = Task(tmp_path / "whole")
    expected = whole.fit(phases=head_then_all())
    assert expected.phases == [3, 4]

    task = Task(tmp_path / "killed")

    def until_killed(indices: list[int]) -> Tensor:
        if len(task.seen) == killed_in * 3 - 3:  # in the first batch of the epoch; of a phase, in the fourth one
            raise Killed
        return Task.loss(task, indices)

    task.loss = until_killed  # type: ignore[method-assign]
    with pytest.raises(Killed):
        task.fit(phases=head_then_all())
    resumed = Task(tmp_path / "killed", init=77)
    assert resumed.fit(phases=head_then_all()) == expected
    assert len(resumed.seen) == 3 * (7 - killed_in + 1)
    assert same(resumed.state(), whole.state())
    assert same(*[load_file(task.folder / CHECKPOINT) for task in (whole, resumed)])
    assert notes(resumed.folder) == notes(whole.folder)


def test_a_run_killed_after_its_last_epoch_is_not_trained_again(tmp_path: Path) -> None:
    task = Task(tmp_path)
    expected = task.fit(patience=2, epochs=30)
    again = Task(tmp_path, init=3)
    assert again.fit(patience=2, epochs=30) == expected
    assert again.seen == []
    assert same(again.state(), task.state())


def test_a_checkpoint_of_other_settings_is_refused_and_kept(tmp_path: Path) -> None:
    Task(tmp_path).fit(epochs=2)
    before = (tmp_path / CHECKPOINT).read_bytes()
    task = Task(tmp_path)
    untouched = task.state()
    with pytest.raises(DataError, match=r"unfinished run of other data or settings: give another --out or delete"):
        task.fit(epochs=2, identity="another")
    assert (tmp_path / CHECKPOINT).read_bytes() == before
    assert same(task.state(), untouched)


def test_a_checkpoint_that_cannot_be_read_is_named_with_the_way_out(tmp_path: Path) -> None:
    Task(tmp_path).fit(epochs=2)
    path = tmp_path / CHECKPOINT
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=rf"{path} cannot be read .* delete it to train from the start"):
        Task(tmp_path).fit(epochs=2)
