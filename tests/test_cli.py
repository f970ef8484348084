"""The command line: what it prints and writes, and exit codes 0 done, 1 wrong input, 2 usage."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from anomaly import cli, images
from anomaly.evaluation import Evaluation
from anomaly.loading import load_inspector
from anomaly.render import OPACITY, overlay
from anomaly.report import Report
from training.synthetic_cable import render

MEASURED = {"created_at", "duration_ms", "emissions"}  # differs from one inspection to the next


class Said(NamedTuple):
    code: int
    out: str
    err: str


Vigie = Callable[..., Said]


@pytest.fixture
def vigie(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Vigie:
    """`python -m anomaly`, in this process."""

    def call(*words: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["anomaly", *map(str, words)])
        code = cli.main()
        return Said(code, *capsys.readouterr())

    return call


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """A good cable, a file that is no picture, and a cable with a defect."""
    paths = [tmp_path / "good.png", tmp_path / "broken.png", tmp_path / "poked.jpg"]
    Image.fromarray(render(None, seed=1, size=96)[0]).save(paths[0])
    paths[1].write_text("no picture")
    Image.fromarray(render("poke_insulation", seed=2, size=80)[0]).save(paths[2], quality=95)
    return paths


def one_line(said: Said) -> str:
    assert said.code == 1
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    return said.err


def lasting(report: dict[str, object]) -> dict[str, object]:
    """A report without what is measured anew each time."""
    votes = report["votes"]
    assert isinstance(votes, list)
    kept = [{k: v for k, v in vote.items() if k not in ("duration_ms", "energy_share_mj")} for vote in votes]
    return {key: value for key, value in report.items() if key not in MEASURED} | {"votes": kept}


# --- as a process ----------------------------------------------------------------------------------------------------


def process(*words: object) -> Said:
    done = subprocess.run(
        [sys.executable, "-m", "anomaly", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"},
    )
    return Said(done.returncode, done.stdout, done.stderr)


def test_exit_code_0_is_done(inspector_folder: Path, pictures: list[Path]) -> None:
    said = process("inspect", pictures[0], "--inspector", inspector_folder)
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith(f"{pictures[0]}: ")
    assert said.out.split(": ")[1].split(".")[0] in ("OK", "DEFECT", "REVIEW")


def test_exit_code_1_is_wrong_input_in_one_line(tmp_path: Path) -> None:
    said = process("inspect", tmp_path / "part.png", "--inspector", tmp_path / "nowhere")
    assert "nowhere" in one_line(said)


def test_exit_code_2_is_usage_and_costs_no_import_of_torch() -> None:
    said = process("inspect", "--inspector", "org/name")
    assert said.code == 2
    assert "Missing argument" in said.err
    assert "Traceback" not in said.err
    words = "import sys, anomaly.cli; print([m for m in ('torch', 'gradio', 'timm', 'codecarbon') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# --- usage -----------------------------------------------------------------------------------------------------------


def test_help_names_every_command(vigie: Vigie) -> None:
    said = vigie("--help")
    assert said.code == 0
    assert all(
        f" {command} " in said.out for command in ("inspect", "evaluate", "compare", "drift", "revisions", "pull")
    )


FLAGS = {
    "inspect": "inspector revision policy json save-heatmaps",
    "evaluate": "data inspector revision split json",
    "compare": "inspector revisions data policy json layout country",
    "drift": "inspector revision member window level prevalence json",
    "score": "engine input inspector revision policy output workers",
    "watch": "inspector revision policy out once interval",
    "revisions": "inspector",
    "pull": "revision",
}


@pytest.mark.parametrize("command", FLAGS)
def test_help_of_a_command_names_its_flags(vigie: Vigie, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    said = vigie(command, "--help")
    assert said.code == 0
    assert [flag for flag in FLAGS[command].split() if f"--{flag}" not in said.out] == []


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("decide",),
        ("inspect",),
        ("inspect", "part.png", "--colour", "red"),
        ("evaluate", "--data", "x", "--inspector", "x"),
        ("evaluate", "--data", "x", "--inspector", "x", "--json", "o.json", "--split", "validate"),
        ("evaluate", "--data", "x", "--inspector", "x", "--json", "o.json", "--layout", "flat"),
        ("evaluate", "--data", "x", "--inspector", "x", "--json", "."),
        ("pull",),
    ],
    ids=" ".join,
)
def test_wrong_usage_is_exit_code_2(vigie: Vigie, words: tuple[str, ...]) -> None:
    assert vigie(*words).code == 2


# --- inspect ---------------------------------------------------------------------------------------------------------


def test_a_broken_picture_is_named_and_the_others_are_inspected(
    vigie: Vigie, inspector_folder: Path, pictures: list[Path]
) -> None:
    said = vigie("inspect", *pictures, "--inspector", inspector_folder)
    assert said.code == 1
    assert [line.split(": ")[0] for line in said.out.splitlines()] == [str(pictures[0]), str(pictures[2])]
    assert said.err.count("\n") == 1
    assert said.err.startswith("error: 'broken.png'")


def test_json_is_one_report_a_line(vigie: Vigie, inspector_folder: Path, pictures: list[Path]) -> None:
    said = vigie("inspect", *pictures, "--inspector", inspector_folder, "--revision", "v1", "--json")
    assert said.code == 1  # for the broken one, which is on stderr
    inspector = load_inspector(str(inspector_folder), "v1")
    lines = [json.loads(line) for line in said.out.splitlines()]
    for path, line in zip([pictures[0], pictures[2]], lines, strict=True):
        assert line.pop("image") == str(path)
        Report.model_validate(line)
        expected = inspector.inspect(images.read(path)).report.model_dump(mode="json")
        assert lasting(line) == lasting(expected)


@pytest.mark.parametrize("revision", ["v1", "v2"])
@pytest.mark.parametrize("policy", ["majority", "any_alarm"])
def test_revision_and_policy_are_those_that_were_asked_for(
    vigie: Vigie, inspector_folder: Path, pictures: list[Path], revision: str, policy: str
) -> None:
    flags = ("--inspector", inspector_folder, "--revision", revision, "--policy", policy)
    report = json.loads(vigie("inspect", pictures[0], *flags, "--json").out)
    commit = load_inspector(str(inspector_folder), revision).commit
    assert (report["revision"], report["commit"], report["policy"]) == (revision, commit, policy)


def test_heatmaps_are_saved_raw_and_drawn(
    vigie: Vigie, inspector_folder: Path, pictures: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "deep/maps"
    assert vigie("inspect", pictures[2], "--inspector", inspector_folder, "--save-heatmaps", out).code == 0
    inspector = load_inspector(str(inspector_folder))
    picture = images.read(pictures[2])
    heatmaps = inspector.inspect(picture).heatmaps
    names = [f"poked.{member}.{kind}" for member in heatmaps for kind in ("npy", "png")]
    assert sorted(path.name for path in out.iterdir()) == sorted(names)
    for member, heatmap in heatmaps.items():
        assert np.array_equal(np.load(out / f"poked.{member}.npy"), heatmap)
        scale = inspector.members[member].calibration.heatmap
        assert scale is not None
        drawn = np.asarray(Image.open(out / f"poked.{member}.png"))
        assert np.array_equal(drawn, overlay(picture, heatmap, scale, OPACITY))


def test_pictures_of_one_name_do_not_overwrite_each_others_heatmaps(
    vigie: Vigie, inspector_folder: Path, pictures: list[Path], tmp_path: Path
) -> None:
    other = tmp_path / "line2" / "good.jpg"
    other.parent.mkdir()
    Image.open(pictures[2]).save(other)
    out = tmp_path / "maps"
    assert vigie("inspect", pictures[0], other, "--inspector", inspector_folder, "--save-heatmaps", out).code == 0
    assert len(list(out.glob("*.npy"))) == 4


def test_the_country_decides_the_co2(vigie: Vigie, inspector_folder: Path, pictures: list[Path]) -> None:
    flags = ("--inspector", inspector_folder, "--json")
    french = json.loads(vigie("inspect", pictures[0], *flags, "--country", "FRA").out)["emissions"]
    german = json.loads(vigie("inspect", pictures[0], *flags, "--country", "DEU").out)["emissions"]
    assert (french["country"], german["country"]) == ("FRA", "DEU")
    assert french["g_per_kwh"] < german["g_per_kwh"]


def test_what_does_not_exist_is_one_line(
    vigie: Vigie, inspector_folder: Path, pictures: list[Path], tmp_path: Path
) -> None:
    good, known = pictures[0], ("--inspector", inspector_folder)
    assert "nowhere" in one_line(vigie("inspect", good, "--inspector", tmp_path / "nowhere"))
    assert "v9" in one_line(vigie("inspect", good, *known, "--revision", "v9"))
    assert "unknown policy 'fast'" in one_line(vigie("inspect", good, *known, "--policy", "fast"))
    assert "XXX" in one_line(vigie("inspect", good, *known, "--country", "XXX"))
    assert "nothing.png" in one_line(vigie("inspect", tmp_path / "nothing.png", *known))
    assert str(tmp_path.name) in one_line(vigie("inspect", tmp_path, *known))


def test_an_environment_that_makes_no_sense_is_one_line(
    vigie: Vigie, inspector_folder: Path, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIGIE_CPU_POWER_W", "much")
    assert "cpu_power_w" in one_line(vigie("inspect", pictures[0], "--inspector", inspector_folder))


def test_a_folder_that_cannot_be_made_is_one_line(
    vigie: Vigie, inspector_folder: Path, pictures: list[Path], tmp_path: Path
) -> None:
    said = vigie("inspect", pictures[0], "--inspector", inspector_folder, "--save-heatmaps", pictures[1] / "maps")
    assert said.code == 1
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1


def test_what_train_all_leaves_behind_is_a_source(vigie: Vigie, trained: Path, pictures: list[Path]) -> None:
    report = json.loads(vigie("inspect", pictures[0], "--inspector", trained, "--revision", "v1", "--json").out)
    assert len(report["votes"]) == 10
    assert report["commit"] in vigie("revisions", "--inspector", trained).out
    assert f"{trained}@{report['commit']}: inspector of cable" in vigie("pull", trained).out


# --- evaluate --------------------------------------------------------------------------------------------------------


def test_evaluate_writes_what_it_prints(vigie: Vigie, trained: Path, cables: Path, tmp_path: Path) -> None:
    out = tmp_path / "new/out.json"
    said = vigie("evaluate", "--data", cables, "--inspector", trained, "--revision", "v1", "--json", out)
    assert said.code == 0, said.err
    found = Evaluation.model_validate_json(out.read_bytes())
    assert (found.data, found.split, found.revision) == (cables.name, "test", "v1")
    assert found.counts["good"] == 6
    lines = said.out.splitlines()
    assert [line.split()[0] for line in lines] == [*found.members, *found.policies]
    figures = found.policies["safe"]
    assert f"tp {figures.tp} fp {figures.fp} fn {figures.fn} tn {figures.tn} review {figures.review}" in lines[-1]


def test_evaluate_takes_the_train_split_too(vigie: Vigie, trained: Path, cables: Path, tmp_path: Path) -> None:
    flags = ("--data", cables, "--inspector", trained, "--json", tmp_path / "out.json")
    assert vigie("evaluate", *flags, "--split", "train").code == 0
    found = Evaluation.model_validate_json((tmp_path / "out.json").read_bytes())
    assert (found.split, found.counts["good"], found.counts["poke_insulation"]) == ("train", 40, 4)


def test_what_cannot_be_evaluated_is_one_line_and_writes_nothing(
    vigie: Vigie, inspector_folder: Path, cables: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.json"
    flags = ("--inspector", inspector_folder, "--json", out)
    assert "no such folder" in one_line(vigie("evaluate", "--data", tmp_path / "nowhere", *flags))
    (tmp_path / "empty/cable").mkdir(parents=True)
    assert "neither train nor test" in one_line(vigie("evaluate", "--data", tmp_path / "empty", *flags))
    train_only = tmp_path / "half/train/good"
    train_only.mkdir(parents=True)
    picture = next((cables / "cable/train/good").iterdir())
    (train_only / "1.png").write_bytes(picture.read_bytes())
    assert "no test pictures" in one_line(vigie("evaluate", "--data", tmp_path / "half", *flags))
    (train_only / "2.png").write_bytes(picture.read_bytes()[:100])
    assert "2.png" in one_line(vigie("evaluate", "--data", tmp_path / "half", *flags, "--split", "train"))
    assert not out.exists()


# --- revisions and pull ----------------------------------------------------------------------------------------------


def test_revisions_lists_tags_first(vigie: Vigie, inspector_folder: Path) -> None:
    said = vigie("revisions", "--inspector", inspector_folder)
    assert said.code == 0
    rows = [line.split() for line in said.out.splitlines()]
    assert [row[:2] for row in rows[:3]] == [["tag", "v2"], ["tag", "v1"], ["branch", "main"]]
    assert rows[0][2] == load_inspector(str(inspector_folder), "v2").commit
    assert all(line == line.rstrip() for line in said.out.splitlines())


def test_pull_checks_an_inspector_with_its_members_or_one_model(vigie: Vigie, inspector_folder: Path) -> None:
    said = vigie("pull", inspector_folder, "--revision", "v1")
    assert said.code == 0
    assert "inspector of cable, members autoencoder, patch_knn" in said.out
    said = vigie("pull", inspector_folder / "models--test--cable-patch_knn")
    assert said.code == 0
    assert ": patch_knn in " in said.out


def test_pull_of_what_does_not_exist_is_one_line(vigie: Vigie, inspector_folder: Path, tmp_path: Path) -> None:
    assert "v9" in one_line(vigie("pull", inspector_folder, "--revision", "v9"))
    assert "neither a folder here nor a Hub repo id" in one_line(vigie("pull", tmp_path / "nowhere"))
