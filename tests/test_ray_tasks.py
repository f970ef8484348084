"""`train_all --engine ray`: the same files as in sequence, workers that die, and a machine without Ray."""

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_resume import epochs_saved, figures, same_tensors
from trained import args_for

from anomaly import hub
from anomaly.errors import DataError, VigieError
from anomaly.loading import load_at
from training import fit_patch_knn, train_all, train_autoencoder
from training.data import split_data
from training.ray_tasks import Job, run_on_ray
from training.seeds import runs_of
from training.train_all import distinct, jobs

MEMBERS = ("mahalanobis_global", "patch_knn")  # one for both categories, and one of its own for each


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Two CPUs of this machine, apart from any other cluster on it."""
    ray = pytest.importorskip("ray", reason="needs the extra ray: pip install .[ray]")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # workers find this file
        ray.init(
            address="local", num_cpus=2, include_dashboard=False, _node_ip_address="127.0.0.1",
            object_store_memory=100_000_000, log_to_driver=False,
        )  # fmt: skip
        yield
        ray.shutdown()


@pytest.fixture
def two(cables: Path, tmp_path: Path) -> Path:
    """Two categories."""
    for category in ("cable", "wire"):
        shutil.copytree(cables / "cable", tmp_path / "two" / category)
    return tmp_path / "two"


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("cluster")
def test_categories_detectors_and_seeds_as_tasks_leave_the_files_that_a_sequence_leaves(
    two: Path, training_args: train_all.Args, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_all, "members_for", lambda split: list(MEMBERS))
    both = dataclasses.replace(training_args, data=two, category="all", seeds=2, out=tmp_path)
    planned = [job for args in runs_of(both) for job in distinct(jobs(args, split_data(args)).values())]
    for job in planned:
        job.script(job.args)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit_patch_knn, "fit", None)  # nothing is fitted in this process
        train_all.main(dataclasses.replace(both, out=tmp_path / "ray", engine="ray"))
    runs = [job.args.out.relative_to(tmp_path) for job in planned]
    names = ("mahalanobis_global", "patch_knn-cable", "patch_knn-wire")
    assert [run.as_posix() for run in runs] == [f"seed{seed}/runs/{name}" for seed in (0, 1) for name in names]
    for run in runs:
        for name in ("model.safetensors", "calibration.json", "run.json"):
            assert (tmp_path / run / name).read_bytes() == (tmp_path / "ray" / run / name).read_bytes()
    knn = "seed1/runs/patch_knn-wire"
    assert figures(tmp_path / "ray" / knn) == figures(tmp_path / knn)
    for seed in ("seed0", "seed1"):  # each is released on its own
        source = hub.Source("local/inspector-wire", "local/inspector-wire", tmp_path / "ray" / seed)
        assert tuple(load_at(source, hub.resolve(source, "v1"), "v1").members) == MEMBERS
    assert (tmp_path / "ray/repeats.json").is_file()


def dies_once(args: train_autoencoder.Args) -> None:
    """The training of an autoencoder, whose first worker is killed after two epochs."""
    first = not (args.out.parent / "attempts").exists()
    with (args.out.parent / "attempts").open("a") as file:
        file.write(f"{epochs_saved(args.out)}\n")

    def kill() -> None:
        while epochs_saved(args.out) < 2:
            time.sleep(0.005)
        os.kill(os.getpid(), signal.SIGKILL)

    if first:
        threading.Thread(target=kill, daemon=True).start()
    train_autoencoder.main(args)


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_a_task_whose_worker_dies_is_begun_again_and_resumes(training_args: train_all.Args, tmp_path: Path) -> None:
    options = {"image_size": 64, "width": 2, "epochs": 8, "batch_size": 8, "weights": training_args.weights}
    killed, whole = (
        args_for(train_autoencoder.Args, training_args, tmp_path / name, **options)
        for name in ("killed/run", "whole/run")
    )
    killed.out.parent.mkdir()
    run_on_ray([Job(dies_once, killed), Job(train_autoencoder.main, whole)])
    begun, resumed = map(int, (tmp_path / "killed/attempts").read_text().split())
    assert (begun, resumed >= 2) == (0, True)
    assert same_tensors(killed.out / "model.safetensors", whole.out / "model.safetensors")


@pytest.mark.usefixtures("cluster")
def test_what_is_wrong_with_a_job_is_said_as_in_sequence(training_args: train_all.Args, tmp_path: Path) -> None:
    args = args_for(train_autoencoder.Args, dataclasses.replace(training_args, category="screw"), tmp_path)
    with pytest.raises(DataError) as in_sequence:
        train_autoencoder.main(args)
    with pytest.raises(DataError) as on_ray:
        run_on_ray([Job(train_autoencoder.main, args)])
    assert str(on_ray.value) == str(in_sequence.value)


def test_without_ray_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(VigieError, match=r"pip install 'vigie\[ray\]'"):
        run_on_ray([])


def test_ray_is_not_loaded_unless_asked_for() -> None:
    code = "import sys, training.train_all; sys.exit('ray' in sys.modules)"
    root = Path(train_all.__file__).parent.parent
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
