"""Data sets that are read from the Hub, pushed to the loopback Hub with huggingface_hub's own API."""

import io
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import loopback_hub
import numpy as np
import pyarrow as pa
import pytest
from huggingface_hub import HfApi
from loopback_hub import LoopbackHub
from PIL import Image
from pyarrow import parquet

from anomaly.datasets import Dataset, read_dataset, read_mask
from anomaly.errors import (
    DataError,
    HubUnreachableError,
    RegistryError,
    RepoGatedError,
    RepoNotFoundError,
    RevisionNotFoundError,
)
from anomaly.hub_data import HubData, local_data, parse_hub_data
from anomaly.hub_tables import metadata_rows, parquet_rows, write_class_folders

REPO = "alice/parts"
MAIN = f"hf://datasets/{REPO}@main"
SIZE = 16
CLASSES = ("good", "scratch")

hub = loopback_hub.hub


def encoded(seed: int, form: str = "PNG", **options: Any) -> bytes:
    """The bytes of a picture of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form, **options)
    return file.getvalue()


def mask_bytes(form: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.eye(SIZE, dtype=np.uint8) * 255).save(file, form)
    return file.getvalue()


def class_folders() -> dict[str, bytes]:
    files = {f"train/good/{n}.png": encoded(n) for n in range(3)}
    files |= {"test/good/0.png": encoded(10), "test/scratch/0.jpg": encoded(11, "JPEG")}
    return files | {"ground_truth/scratch/0_mask.png": mask_bytes(), "README.md": b"# Parts", "weights.bin": b"\0" * 99}


def push(api: HfApi, folder: Path, files: dict[str, bytes]) -> str:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return str(api.upload_folder(repo_id=REPO, repo_type="dataset", folder_path=folder).oid)


def written(columns: dict[str, Any], said: dict[str, str] | None = None) -> bytes:
    sink = io.BytesIO()
    parquet.write_table(pa.table(columns).replace_schema_metadata(said), sink)
    return sink.getvalue()


def table(
    images: Sequence[object],
    labels: Sequence[object],
    masks: Sequence[object] | None = None,
    classes: Sequence[str] | None = CLASSES,
    names: tuple[str, str] = ("image", "label"),
) -> bytes:
    """A Parquet file as `datasets` writes one."""
    picture = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    features: dict[str, object] = {names[0]: {"_type": "Image"}}
    columns = {names[0]: pa.array(images, picture), names[1]: pa.array(labels)}
    if classes is not None:
        features[names[1]] = {"names": list(classes), "_type": "ClassLabel"}
    if masks is not None:
        columns["mask"] = pa.array(masks, picture)
        features["mask"] = {"_type": "Image"}
    said = {"huggingface": json.dumps({"info": {"features": features}})}
    return written(columns, said)


def cells(*contents: bytes, path: str = "x.png") -> list[dict[str, object]]:
    return [{"bytes": content, "path": path} for content in contents]


def parquet_files() -> dict[str, bytes]:
    masks = [None, {"bytes": mask_bytes(), "path": None}]
    return {
        "data/train-00000-of-00002.parquet": table(cells(encoded(0), encoded(1)), [0, 0]),
        "data/train-00001-of-00002.parquet": table(cells(encoded(2, "JPEG"), encoded(3)), [0, 1]),
        "data/test-00000-of-00001.parquet": table(cells(encoded(4), encoded(5, "BMP")), [0, 1], masks),
    }


def read(data: str = MAIN) -> Dataset:
    return read_dataset(local_data(data)[0], "parts")


def contents(dataset: Dataset) -> Counter[tuple[str, str, bytes]]:
    return Counter((sample.split, sample.label, sample.path.read_bytes()) for sample in dataset.samples)


# --- What is named --------------------------------------------------------------------------------------------------


def test_a_folder_stays_where_it_is_and_lends_its_name(tmp_path: Path) -> None:
    assert local_data(str(tmp_path)) == (tmp_path, tmp_path.name)
    assert local_data(".")[1] == Path.cwd().name


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hf://datasets/org/parts", HubData("org/parts")),
        ("hf://datasets/org/parts@v1", HubData("org/parts", "v1")),
        ("hf://datasets/org/parts@v1/bottle/", HubData("org/parts", "v1", "bottle")),
        ("hf://datasets/org/parts/a/b", HubData("org/parts", "main", "a/b")),
        ("hf://datasets/org/parts@refs%2Fpr%2F1", HubData("org/parts", "refs/pr/1")),
    ],
)
def test_repo_revision_and_folder_are_told_apart(text: str, expected: HubData) -> None:
    assert parse_hub_data(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "hf://datasets/parts",
        "hf://models/org/parts",
        "hf://datasets/org/parts@",
        "hf://datasets/org/parts@v1/../x",
        "hf://datasets/org/parts@..%2F..",
        "hf://datasets/org/pa rts",
        "hf:org/parts",
    ],
)
def test_what_is_no_data_set_of_the_hub_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(RegistryError) as caught:
        local_data(text)
    assert "\n" not in str(caught.value)


# --- Class folders --------------------------------------------------------------------------------------------------


def test_class_folders_are_read_from_the_snapshot_of_the_commit(api: HfApi, tmp_path: Path) -> None:
    commit = push(api, tmp_path / "parts", class_folders())
    folder, name = local_data(MAIN)
    dataset = read_dataset(folder, "parts")
    assert name == f"{REPO}@{commit}"
    assert (dataset.layout, len(dataset.train), len(dataset.test)) == ("mvtec", 3, 2)
    for sample in dataset.samples:
        assert sample.path.read_bytes() == class_folders()[sample.relative]
    assert read_mask(dataset.test[1], (SIZE, SIZE)).sum() == SIZE


def test_nothing_is_downloaded_but_pictures_and_tables(hub: LoopbackHub, api: HfApi, tmp_path: Path) -> None:
    push(api, tmp_path / "parts", class_folders())
    folder, _ = local_data(MAIN)
    assert not (folder / "weights.bin").exists()
    assert not any("weights.bin" in path for _, path, _ in hub.log if "/resolve/" in path)


def test_a_tag_a_commit_and_no_revision_lead_to_their_commits(api: HfApi, tmp_path: Path) -> None:
    first = push(api, tmp_path / "parts", class_folders())
    api.create_tag(REPO, tag="v1", repo_type="dataset")
    second = push(api, tmp_path / "parts", {"train/good/more.png": encoded(20)})
    found = {revision: local_data(f"hf://datasets/{REPO}{revision}") for revision in ("", "@v1", f"@{first}")}
    assert [name for _, name in found.values()] == [f"{REPO}@{commit}" for commit in (second, first, first)]
    assert [len(read_dataset(folder, "parts").train) for folder, _ in found.values()] == [4, 3, 3]


def test_one_folder_of_a_repo_is_enough(hub: LoopbackHub, api: HfApi, tmp_path: Path) -> None:
    both = {f"{part}/{name}": content for part in ("a[1]", "b") for name, content in class_folders().items()}
    commit = push(api, tmp_path / "parts", both)
    folder, name = local_data(f"{MAIN}/a[1]")
    assert (len(read_dataset(folder, "a").samples), name) == (5, f"{REPO}@{commit}")
    assert not any("/b/" in path for _, path, _ in hub.log if "/resolve/" in path)


# --- Parquet --------------------------------------------------------------------------------------------------------


def test_parquet_becomes_class_folders_with_the_bytes_unchanged(api: HfApi, tmp_path: Path) -> None:
    commit = push(api, tmp_path / "parts", parquet_files())
    folder, name = local_data(MAIN)
    dataset = read_dataset(folder, "parts")
    assert (name, dataset.layout) == (f"{REPO}@{commit}", "mvtec")
    assert contents(dataset) == Counter(
        [("train", "good", encoded(n)) for n in (0, 1)]
        + [("train", "good", encoded(2, "JPEG")), ("train", "scratch", encoded(3))]
        + [("test", "good", encoded(4)), ("test", "scratch", encoded(5, "BMP"))]
    )
    assert {sample.path.suffix for sample in dataset.samples} == {".png", ".jpg", ".bmp"}
    defect = next(sample for sample in dataset.test if sample.is_defect)
    assert read_mask(defect, (SIZE, SIZE)).sum() == SIZE


def test_labels_may_be_text_and_columns_may_have_other_names(api: HfApi, tmp_path: Path) -> None:
    text = table(cells(encoded(0), encoded(1)), ["OK", "hot spot/2"], classes=None)
    push(api, tmp_path / "parts", {"train.parquet": text})
    assert [sample.label for sample in read().samples] == ["good", "hot_spot_2"]
    other = table(cells(encoded(0)), [0], names=("img", "defect"))
    push(api, tmp_path / "parts", {"train.parquet": other})
    assert [sample.label for sample in read().samples] == ["good"]


def test_validation_pictures_are_trained_on_and_it_is_said(
    api: HfApi, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = {f"data/{part}-00000.parquet": table(cells(encoded(n)), [0]) for n, part in enumerate(("train", "valid"))}
    push(api, tmp_path / "parts", files)
    assert len(read().train) == 2
    assert "1 validation pictures are taken as train" in caplog.text


@pytest.mark.parametrize("name", ["../../../evil", "/etc/evil", ".evil", "..\\evil", "e" * 300, "é\n\0"])
def test_no_name_of_the_data_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    source, made = tmp_path / "train.parquet", tmp_path / "a" / "b" / "made"
    source.write_bytes(table(cells(encoded(0), encoded(1), path=f"{name}.png"), ["good", name], classes=None))
    write_class_folders(parquet_rows(tmp_path, [source]), made)
    pictures = list(made.glob("train/*/*.png"))
    assert len(pictures) == len(read_dataset(made, "parts").samples) == 2
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == {source, *pictures}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (written({"picture": [b"png"], "label": ["good"]}), "column 'image' is missing; found ['picture', 'label']"),
        (written({"image": ["a.png"], "label": ["good"]}), "column 'image' is string; expected pictures as"),
        (table(cells(encoded(0)), [0], names=("image", "b"), classes=None), "column 'label' is missing"),
        (table(cells(encoded(0)), [0], classes=None), "column 'label' holds numbers without names"),
        (table(cells(encoded(0)), [0.5], classes=None), "column 'label' is double"),
        (table(cells(encoded(0)), [-1]), "row 1: column 'label' holds -1, which is no class"),
        (table(cells(encoded(0)), [2]), "row 1: column 'label' holds 2, which is no class"),
        (table(cells(encoded(0)[:200]), [0]), "row 1, column 'image': the picture given as bytes"),
        (table(cells(encoded(0), b"no picture"), [0, 0]), "row 2, column 'image': the picture given as bytes"),
        (table(cells(encoded(0, "GIF")), [0]), "row 1, column 'image': is 'GIF'"),
        (table([None], [0]), "row 1: column 'image' holds no bytes"),
        (table(cells(encoded(0)), [1], cells(mask_bytes("JPEG"))), "its mask is 'JPEG'"),
        (table(cells(encoded(0)), [1], cells(b"no mask")), "its mask cannot be read"),
        (table(cells(encoded(0)), ["?"], classes=None), "label '?' gives no folder name"),
        (table(cells(encoded(0), encoded(1)), ["a b", "a/b"], classes=None), "label 'a/b' gives no folder name"),
        (b"PAR1 no", "cannot be read as Parquet"),
    ],
)
def test_what_is_wrong_in_a_table_is_named_with_file_and_column(tmp_path: Path, content: bytes, said: str) -> None:
    source = tmp_path / "data" / "train-0.parquet"
    source.parent.mkdir()
    source.write_bytes(content)
    with pytest.raises(DataError) as caught:
        write_class_folders(parquet_rows(tmp_path, [source]), tmp_path / "made")
    assert str(caught.value).startswith("data/train-0.parquet")
    assert said in str(caught.value)


def test_a_wrong_table_is_named_with_its_repo_and_leaves_no_picture(api: HfApi, tmp_path: Path) -> None:
    push(api, tmp_path / "parts", {"train.parquet": table(cells(encoded(0), b"no picture"), [0, 0])})
    with pytest.raises(DataError, match=r"hf://datasets/alice/parts@\w{12}: train.parquet row 2, column 'image'"):
        local_data(MAIN)
    assert not list((tmp_path / "cache").rglob("*.png"))


def test_two_configurations_are_not_mixed(api: HfApi, tmp_path: Path) -> None:
    one = table(cells(encoded(0)), [0])
    push(api, tmp_path / "parts", {"bottle/train-0.parquet": one, "cable/train/0.parquet": one})
    with pytest.raises(DataError, match=r"\['bottle', 'cable'\]"):
        local_data(MAIN)
    assert len(read(f"{MAIN}/cable").train) == 1


# --- Pictures with a table of metadata ------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_metadata_tells_the_labels_of_loose_pictures(api: HfApi, tmp_path: Path, form: str) -> None:
    lines = [("a.png", "good", None), ("deep/b.png", "scratch", "masks/b.png")]
    text = "\n".join(
        ["file_name,label,mask_file_name"] + [f"{name},{label},{mask or ''}" for name, label, mask in lines]
        if form == "csv"
        else [json.dumps({"file_name": name, "label": label, "mask_file_name": mask}) for name, label, mask in lines]
    )
    pictures = {"a.png": encoded(0), "deep/b.png": encoded(1), "masks/b.png": mask_bytes()}
    files = {f"{part}/{name}": content for part in ("train", "test") for name, content in pictures.items()}
    push(api, tmp_path / "parts", files | {f"{part}/metadata.{form}": text.encode() for part in ("train", "test")})
    dataset = read()
    each = [("good", encoded(0)), ("scratch", encoded(1))]
    assert contents(dataset) == Counter((part, *row) for part in ("train", "test") for row in each)
    assert [sample.mask is not None for sample in dataset.samples] == [False, True, False, True]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file_name,kind\na.png,good\n", "column ['label'] is missing"),
        ("file_name,label\nb.png,good\n", "names 'b.png', which is not in the data set"),
        ("file_name,label\n../../../../README.md,good\n", "is no path below the table's folder"),
        ("file_name,label\na.png,0\n", "column 'label' holds '0'"),
        ("file_name,label\n", "no rows"),
    ],
)
def test_wrong_metadata_is_refused_with_column_and_row(tmp_path: Path, text: str, said: str) -> None:
    source = tmp_path / "train" / "metadata.csv"
    source.parent.mkdir()
    source.write_text(text)
    (source.parent / "a.png").write_bytes(encoded(0))
    with pytest.raises(DataError) as caught:
        write_class_folders(metadata_rows(tmp_path, [source]), tmp_path / "made")
    assert said in str(caught.value)


# --- The Hub says no, goes away, or is asked again ------------------------------------------------------------------


def test_a_wrong_revision_a_wrong_repo_and_a_closed_one_are_told_apart(
    hub: LoopbackHub, api: HfApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(api, tmp_path / "parts", class_folders())
    with pytest.raises(RevisionNotFoundError, match="alice/parts@v9: no such branch, tag or commit"):
        local_data(f"hf://datasets/{REPO}@v9")
    with pytest.raises(RevisionNotFoundError):
        local_data(f"hf://datasets/{REPO}@{'0' * 40}")
    with pytest.raises(RepoNotFoundError, match="alice/nothing"):
        local_data("hf://datasets/alice/nothing")
    monkeypatch.setenv("HF_TOKEN", "hf_loopback_bob")
    hub.set_gated(REPO, repo_type="dataset")
    with pytest.raises(RepoGatedError, match="owner must grant access"):
        local_data(MAIN)


def test_a_repo_without_pictures_says_what_it_has(api: HfApi, tmp_path: Path) -> None:
    push(api, tmp_path / "parts", {"data.zip": b"PK"})
    with pytest.raises(DataError, match=r"no pictures and no tables among its 2 files.*data\.zip.*archives"):
        local_data(MAIN)
    with pytest.raises(DataError, match="below 'nowhere'"):
        local_data(f"{MAIN}/nowhere")


@pytest.mark.parametrize("files", [class_folders(), parquet_files()], ids=["folders", "parquet"])
def test_a_full_commit_that_is_here_needs_no_hub(
    hub: LoopbackHub, api: HfApi, tmp_path: Path, files: dict[str, bytes]
) -> None:
    commit = push(api, tmp_path / "parts", files)
    first = local_data(MAIN)
    asked = len(hub.log)
    local_data(MAIN)
    assert [method for method, _, _ in hub.log[asked:]] == ["GET"], "a branch may have moved: one request"
    hub.stop()
    asked = len(hub.log)
    assert local_data(f"hf://datasets/{REPO}@{commit}") == first
    assert len(hub.log) == asked
    with pytest.raises(HubUnreachableError):
        local_data(MAIN)


def test_a_download_that_broke_off_is_completed_and_never_taken_for_whole(
    hub: LoopbackHub, api: HfApi, tmp_path: Path
) -> None:
    commit = push(api, tmp_path / "parts", class_folders())
    hub.fail_next(path_contains="test/scratch/0.jpg", status=403)
    with pytest.raises(RegistryError):
        local_data(MAIN)
    hub.stop()
    with pytest.raises(HubUnreachableError):
        local_data(f"hf://datasets/{REPO}@{commit}")
    hub.start()
    assert len(read().samples) == 5


def test_a_file_that_vanished_from_the_cache_is_fetched_again(api: HfApi, tmp_path: Path) -> None:
    commit = push(api, tmp_path / "parts", class_folders())
    folder, _ = local_data(MAIN)
    (folder / "train/good/0.png").unlink()
    assert len(read(f"hf://datasets/{REPO}@{commit}").train) == 3


def test_a_kill_in_the_middle_of_writing_leaves_nothing_that_is_taken_for_whole(api: HfApi, tmp_path: Path) -> None:
    push(api, tmp_path / "parts", parquet_files())
    script = (
        "import os, signal, sys; from anomaly import hub_data\n"
        "rows = hub_data.parquet_rows\n"
        "def until_killed(*arguments):\n"
        "    for number, row in enumerate(rows(*arguments)):\n"
        "        if number == 3: os.kill(os.getpid(), signal.SIGKILL)\n"
        "        yield row\n"
        "hub_data.parquet_rows = until_killed\n"
        "hub_data.local_data(sys.argv[1])\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, MAIN], check=False, capture_output=True)
    assert killed.returncode == -9, killed.stderr
    assert len(list((tmp_path / "cache").rglob("00000?_*x.*"))) == 3, "it was killed in the middle"
    assert len(read().samples) == 6
    assert len(list((tmp_path / "cache").rglob("00000?_*x.*"))) == 6, "what was left is cleared away"
