"""Bulk scoring: every picture is a row, the rows are the same to the byte however made, a break costs little."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from huggingface_hub import HfApi
from PIL import Image
from pyarrow import parquet

from anomaly import images, score_input
from anomaly.errors import DataError, RegistryError, UnknownPolicyError, VigieError
from anomaly.loading import load_inspector
from anomaly.report import Report
from anomaly.score import Counts, score
from anomaly.score_input import Inputs, Listed, Span
from anomaly.score_rows import schemas
from training.synthetic_cable import render

SIDE = 64
Scored = Callable[..., tuple[Path, Counts]]


def encoded(seed: int, form: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(render(None if seed % 2 else "missing_cable", seed=seed, size=SIDE)[0]).save(file, form)
    return file.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Seven cables, one of them deeper, and a file that is no picture."""
    (tmp_path / "in" / "day 2").mkdir(parents=True)
    for seed in range(6):
        (tmp_path / f"in/{seed}.png").write_bytes(encoded(seed))
    (tmp_path / "in/day 2/6.jpg").write_bytes(encoded(6, "JPEG"))
    (tmp_path / "in/3b.png").write_text("no picture")
    return tmp_path / "in"


NAMES = ["0.png", "1.png", "2.png", "3.png", "3b.png", "4.png", "5.png", "day 2/6.jpg"]


@pytest.fixture
def scored(tmp_path: Path, inspector_folder: Path) -> Scored:
    """Scores into a folder of that name."""

    def run(inputs: object, name: str = "out", **options: Any) -> tuple[Path, Counts]:
        options = {"revision": "v1", "part_size": 3} | options
        return tmp_path / name, score(str(inputs), str(inspector_folder), tmp_path / name, **options)

    return run


def read(output: Path, kind: str = "rows") -> list[dict[str, Any]]:
    files = sorted((output / kind).iterdir())
    return [row for file in files for row in parquet.read_table(file).to_pylist(maps_as_pydicts="strict")]


def files_of(output: Path) -> dict[str, bytes]:
    """What has to be the same to the byte."""
    return {path.name: path.read_bytes() for path in sorted((output / "rows").iterdir())}


def report_of(row: dict[str, Any], measured: dict[str, Any]) -> Report:
    """What was taken apart, put together."""
    votes = [vote | timed for vote, timed in zip(row["votes"], measured["votes"], strict=True)]
    whole = {name: {**row, **measured, "votes": votes}[name] for name in Report.model_fields}
    return Report.model_validate(whole)


def lasting(report: Report) -> dict[str, Any]:
    votes = {"votes": {"__all__": {"duration_ms", "energy_share_mj"}}}
    return report.model_dump(exclude={"emissions": True, "duration_ms": True, "created_at": True} | votes)


# --- rows ------------------------------------------------------------------------------------------------------------


def test_every_picture_is_a_row_in_order_and_a_bad_one_a_row_with_an_error(folder: Path, scored: Scored) -> None:
    output, counts = scored(folder)
    rows = read(output)
    assert [row["image"] for row in rows] == [row["image"] for row in read(output, "measured")] == NAMES
    bad = rows[NAMES.index("3b.png")]
    assert bad["code"] == "image_unreadable"
    assert bad["error"].startswith("'3b.png' ")
    assert (bad["decision"], bad["votes"]) == (None, None)
    assert [row["image"] for row in rows if row["error"]] == ["3b.png"]
    assert (counts.pictures, counts.parts, counts.scored) == (8, 3, 3)
    assert counts.decisions.total() == 7
    assert counts.errors == {"image_unreadable": 1}


def test_a_row_and_what_was_measured_are_the_report_of_that_picture(
    folder: Path, scored: Scored, inspector_folder: Path
) -> None:
    torch.set_num_threads(1)
    output, _ = scored(folder, policy="any_alarm", country="FRA")
    inspector = load_inspector(str(inspector_folder), "v1")
    for row, measured in zip(read(output), read(output, "measured"), strict=True):
        if row["error"] is None:
            found = report_of(row, measured)
            assert lasting(found) == lasting(inspector.inspect(images.read(folder / row["image"]), "any_alarm").report)
            assert found.emissions.country == "FRA"
            assert found.duration_ms > 0


def test_both_files_together_have_every_field_of_a_report() -> None:
    rows, measured = schemas()
    assert set(rows.names) | set(measured.names) == {*Report.model_fields, "image", "error", "code", "worker"}
    assert set(rows.names) & set(measured.names) == {"image", "votes"}
    vote = {field.name for schema in (rows, measured) for field in schema.field("votes").type.value_type}
    assert vote == set(Report.model_fields["votes"].annotation.__args__[0].model_fields)


def test_every_part_has_the_same_schema_also_one_without_a_single_report(tmp_path: Path, scored: Scored) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_bytes(b"" if name == "a.png" else encoded(1))
    output, _ = scored(tmp_path / "in", part_size=1)
    for kind, schema in zip(("rows", "measured"), schemas(), strict=True):
        assert all(parquet.read_schema(file).equals(schema) for file in (output / kind).iterdir())
    assert parquet.read_table(output / "rows").num_rows == 2  # a folder of parts reads as one table


def test_a_name_that_is_not_utf8_is_a_row_as_well(tmp_path: Path, scored: Scored) -> None:
    (tmp_path / "in").mkdir()
    name = b"caf\xe9.png"
    Path(os.fsdecode(os.fsencode(tmp_path / "in") + b"/" + name)).write_bytes(b"no picture")
    row = read(scored(tmp_path / "in")[0])[0]
    assert row["image"] == "caf\\xe9.png"
    assert "caf\\xe9.png" in row["error"]


# --- the same to the byte --------------------------------------------------------------------------------------------


def test_a_score_depends_neither_on_the_other_pictures_nor_on_threads(
    folder: Path, scored: Scored, tmp_path: Path
) -> None:
    rows = {row["image"]: row for row in read(scored(folder)[0])}
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone/4.png").write_bytes((folder / "4.png").read_bytes())
    torch.set_num_threads(2)
    try:
        alone = read(scored(tmp_path / "alone", "out of one", part_size=1)[0])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert alone == [rows["4.png"]]


# --- again -----------------------------------------------------------------------------------------------------------


def test_a_second_run_does_only_what_is_missing(folder: Path, scored: Scored) -> None:
    output, _ = scored(folder)
    before, times = files_of(output), {file.name: file.stat().st_mtime_ns for file in (output / "rows").iterdir()}
    (output / "rows/00001.parquet").unlink()
    (output / "partial").mkdir()
    (output / "partial/00001.parquet.0").write_bytes(b"PAR1 cut sh")  # as a kill leaves it
    told: list[tuple[int, int]] = []
    assert scored(folder, told=lambda done, of: told.append((done, of)))[1].scored == 1
    assert told == [(3, 3)]
    assert files_of(output) == before
    changed = {f.name for f in (output / "rows").iterdir() if f.stat().st_mtime_ns != times[f.name]}
    assert changed == {"00001.parquet"}
    assert sorted(path.name for path in output.iterdir()) == ["manifest.json", "measured", "rows"]
    assert scored(folder)[1].scored == 0


@pytest.mark.parametrize(
    ("options", "named"),
    [({"policy": "any_alarm"}, "policy"), ({"revision": "v2"}, "commit"), ({"part_size": 4}, "part_size")],
    ids=["policy", "revision", "part size"],
)
def test_an_output_of_other_arguments_is_refused_and_left_alone(
    folder: Path, scored: Scored, options: dict[str, Any], named: str
) -> None:
    output, _ = scored(folder)
    before = files_of(output)
    with pytest.raises(DataError, match=f"was begun with .*{named} .*, now .*name a new folder"):
        scored(folder, **options)
    assert files_of(output) == before


def test_an_input_that_changed_is_refused(folder: Path, scored: Scored) -> None:
    scored(folder)
    (folder / "new.png").write_bytes(encoded(9))
    with pytest.raises(DataError, match="pictures 8, now 9"):
        scored(folder)
    (folder / "new.png").unlink()
    scored(folder)
    os.utime(folder / "1.png", (1, 1))
    with pytest.raises(DataError, match="input_sha256"):
        scored(folder)


def test_a_folder_with_other_things_in_it_is_left_alone(folder: Path, scored: Scored, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/precious.txt").write_text("not to be lost")
    with pytest.raises(DataError, match="holds other files"):
        scored(folder)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["precious.txt"]
    (tmp_path / "out/manifest.json").write_text('{"format": 2}')
    with pytest.raises(DataError, match="not what this version writes"):
        scored(folder)


def test_what_is_wrong_shows_before_anything_is_written(folder: Path, scored: Scored, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for wrong, error, words in (
        ({"policy": "fast"}, UnknownPolicyError, "fast"),
        ({"revision": "v9"}, RegistryError, "v9"),
        ({"country": "XXX"}, VigieError, "XXX"),
        ({"inputs": tmp_path / "empty"}, DataError, "no pictures"),
        ({"inputs": tmp_path / "nowhere"}, DataError, "nowhere is neither a folder nor"),
    ):
        with pytest.raises(error, match=words):
            scored(**{"inputs": folder} | wrong)
    assert not (tmp_path / "out").exists()


# --- Parquet ---------------------------------------------------------------------------------------------------------


def write_table(path: Path, column: str, cells: list[Any], kind: pa.DataType, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {"label": pa.array(["good"] * len(cells)), column: pa.array(cells, kind)}
    parquet.write_table(pa.table(columns), path, **options)


IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def as_datasets_write(seeds: range, missing: int | None = None) -> list[Any]:
    return [None if seed == missing else {"bytes": encoded(seed), "path": f"{seed}.png"} for seed in seeds]


def test_tables_give_the_rows_that_the_same_files_give(folder: Path, scored: Scored, tmp_path: Path) -> None:
    """Two tables in both forms, in parts that neither row groups nor files end with; one cell is empty."""
    write_table(tmp_path / "tables/a.parquet", "photo", as_datasets_write(range(4), 2), IMAGE, row_group_size=3)
    write_table(tmp_path / "tables/b/c.parquet", "image", [encoded(4), encoded(5)], pa.binary(), row_group_size=1)
    from_files = {row["image"]: row for row in read(scored(folder)[0])}
    rows = read(scored(tmp_path / "tables", "from tables", part_size=2)[0])
    assert [row["image"] for row in rows] == [
        *(f"a.parquet#{row}" for row in range(4)),
        "b/c.parquet#0",
        "b/c.parquet#1",
    ]
    assert rows[2]["code"] == "image_unreadable"
    for seed in (0, 1, 3, 4, 5):
        assert rows[seed] == from_files[f"{seed}.png"] | {"image": rows[seed]["image"]}
    one, _ = scored(tmp_path / "tables/b/c.parquet", "from one table")
    assert [row["image_sha256"] for row in read(one)] == [row["image_sha256"] for row in rows[4:]]


def test_a_table_that_is_damaged_inside_costs_its_rows_and_no_others(scored: Scored, tmp_path: Path) -> None:
    table = tmp_path / "tables/a.parquet"
    write_table(table, "image", as_datasets_write(range(2)), IMAGE, row_group_size=1, compression="none")
    at = parquet.ParquetFile(table).metadata.row_group(1).column(1).data_page_offset
    content = bytearray(table.read_bytes())
    content[at : at + 16] = b"\xff" * 16
    table.write_bytes(content)
    rows = read(scored(tmp_path / "tables", part_size=1)[0])
    assert rows[0]["decision"] is not None
    assert (rows[1]["image"], rows[1]["code"]) == ("a.parquet#1", "data_unusable")


@pytest.mark.parametrize(
    ("column", "cells", "kind", "words"),
    [
        ("image", ["a.png"], pa.string(), "column 'image' is string"),
        ("photo", [b"x"], pa.binary(), "column 'image' is missing; found"),
    ],
    ids=["text", "another name"],
)
def test_a_table_without_pictures_is_refused(
    scored: Scored, tmp_path: Path, column: str, cells: list[Any], kind: pa.DataType, words: str
) -> None:
    write_table(tmp_path / "tables/a.parquet", column, cells, kind)
    with pytest.raises(DataError, match=words):
        scored(tmp_path / "tables")


def test_tables_among_pictures_and_broken_tables_are_refused(folder: Path, scored: Scored) -> None:
    (folder / "a.parquet").write_text("no table")
    with pytest.raises(DataError, match=r"a\.parquet cannot be read as Parquet"):
        scored(folder / "a.parquet")
    write_table(folder / "a.parquet", "image", [b"x"], pa.binary())
    with pytest.raises(DataError, match=r"7 pictures and 1 \.parquet|8 pictures and 1 \.parquet"):
        scored(folder)


def test_parts_are_stretches_of_equal_length_across_files() -> None:
    files = (Listed("a.parquet", "", 5), Listed("b.parquet", "", 0), Listed("c.parquet", "", 2))
    assert score_input.parts(Inputs("x", Path("x"), files), 3) == [
        (Span("a.parquet", 0, 3),),
        (Span("a.parquet", 3, 2), Span("c.parquet", 0, 1)),
        (Span("c.parquet", 1, 1),),
    ]


# --- the Hub ---------------------------------------------------------------------------------------------------------


def test_a_data_set_of_the_hub_gives_the_rows_of_a_folder_at_one_commit(
    folder: Path, api: HfApi, scored: Scored, tmp_path: Path
) -> None:
    commit = api.upload_folder(repo_id="alice/parts", repo_type="dataset", folder_path=folder, path_in_repo="day").oid
    local, _ = scored(folder)
    remote, _ = scored("hf://datasets/alice/parts/day", "from the Hub")
    assert files_of(remote) == files_of(local)
    manifest = json.loads((remote / "manifest.json").read_text())
    assert manifest["input"] == f"hf://datasets/alice/parts@{commit}/day"
    (tmp_path / "cache").rename(tmp_path / "another cache")
    assert scored("hf://datasets/alice/parts/day", "from the Hub")[1].scored == 0  # brought anew, it is the same input
    api.upload_file(path_or_fileobj=encoded(9), path_in_repo="day/9.png", repo_id="alice/parts", repo_type="dataset")
    with pytest.raises(DataError, match=f"was begun with input .*{commit}"):
        scored("hf://datasets/alice/parts/day", "from the Hub")
    (remote / "rows/00000.parquet").unlink()
    scored(f"hf://datasets/alice/parts@{commit}/day", "from the Hub")
    assert files_of(remote) == files_of(local)


def test_tables_of_the_hub_are_read_as_they_were_published_without_labels(
    api: HfApi, scored: Scored, tmp_path: Path
) -> None:
    path = tmp_path / "up/data/test-00000-of-00001.parquet"
    path.parent.mkdir(parents=True)
    parquet.write_table(pa.table({"image": pa.array(as_datasets_write(range(2)), IMAGE)}), path)
    api.upload_folder(repo_id="alice/parts", repo_type="dataset", folder_path=tmp_path / "up")
    rows = read(scored("hf://datasets/alice/parts@main")[0])
    assert [row["image"] for row in rows] == [f"data/test-00000-of-00001.parquet#{row}" for row in range(2)]
    assert all(row["error"] is None for row in rows)


def test_another_node_fetches_what_it_does_not_have(folder: Path, api: HfApi, tmp_path: Path) -> None:
    api.upload_folder(repo_id="alice/parts", repo_type="dataset", folder_path=folder)
    found = score_input.find("hf://datasets/alice/parts")
    spans = [Span("0.png", 0, 1)]
    assert score_input.at_hand(found.named, found.root, spans) == found.root
    (tmp_path / "cache").rename(tmp_path / "on the first node")
    here = score_input.at_hand(found.named, tmp_path / "on the first node", spans)
    assert (here / "0.png").read_bytes() == (folder / "0.png").read_bytes()


# --- as a process ----------------------------------------------------------------------------------------------------


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "anomaly", "score", *map(str, words)]


def kill_after(parts: int, output: Path, words: list[str], **environment: str) -> int:
    """Runs the command until that many parts are there, kills it, and says how many there were then."""
    process = subprocess.Popen(
        words, env=os.environ | {"OMP_NUM_THREADS": "1"} | environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    deadline = time.monotonic() + 240
    while len(list((output / "rows").glob("*.parquet"))) < parts:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return len(list((output / "rows").glob("*.parquet")))


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_killed_half_way_and_run_again_no_row_is_lost_or_doubled(
    tmp_path: Path, scored: Scored, inspector_folder: Path, workers: int
) -> None:
    (tmp_path / "in").mkdir()
    for seed in range(40):
        (tmp_path / f"in/{seed:02d}.png").write_bytes(encoded(seed))
    whole, _ = scored(tmp_path / "in", part_size=2)
    output = tmp_path / "killed"
    words = command(
        "--input", tmp_path / "in", "--output", output, "--inspector", inspector_folder, "--revision", "v1",
        "--part-size", 2, "--workers", workers,
    )  # fmt: skip
    assert 3 <= kill_after(3, output, words) < 20
    again = subprocess.run(words, capture_output=True, text=True, check=True)
    assert again.stdout.startswith(f"{output}: 40 pictures in 20 parts, ")
    assert files_of(output) == files_of(whole)


def test_the_command_says_what_it_found(folder: Path, tmp_path: Path, inspector_folder: Path) -> None:
    words = command("--input", folder, "--output", tmp_path / "out", "--inspector", inspector_folder)
    done = subprocess.run([*words, "--engine", "spark"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "1 of 1 parts\n")
    assert done.stdout.startswith(f"{tmp_path / 'out'}: 8 pictures in 1 parts, 1 now: ")
    assert done.stdout.endswith(", 1 image_unreadable\n")


@pytest.mark.parametrize(("package", "extra"), [("pyarrow", "score"), ("ray", "ray")])
def test_a_missing_package_is_one_line_with_the_extra_that_brings_it(
    folder: Path, tmp_path: Path, inspector_folder: Path, package: str, extra: str
) -> None:
    words = f"import sys; sys.modules[{package!r}] = None; from anomaly.cli import main; sys.exit(main())"
    flags = command("--input", folder, "--output", tmp_path / "out", "--inspector", inspector_folder, "--engine", "ray")
    done = subprocess.run([sys.executable, "-c", words, *flags[3:]], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.endswith(f"pip install 'vigie[{extra}]'\n")


def test_neither_ray_nor_pyarrow_is_imported_before_it_is_needed() -> None:
    words = "import sys, anomaly.score; print([m for m in ('ray', 'pyarrow') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True).stdout == "[]\n"
