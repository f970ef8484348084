"""What people say of verdicts: a folder that training reads, a dataset on the Hub, and nothing without a press."""

import html
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import RunningApp
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from huggingface_hub import HfApi
from loopback_hub import LoopbackHub
from PIL import Image
from pydantic import ValidationError
from released import use_hub
from reports import make_report

from anomaly import images
from anomaly.datasets import read_dataset, read_mask
from anomaly.errors import DataError, VigieError
from anomaly.feedback import FeedbackStore, Opinion, checked_label
from anomaly.feedback_panel import before_html, labels
from anomaly.report import Report
from anomaly.settings import Settings

REPO = "alice/labels"


def picture(folder: Path, seed: int = 0, name: str = "part.png") -> Path:
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), np.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(folder / name)
    return folder / name


def opinion(stored: Path) -> Opinion:
    return Opinion.model_validate_json(stored.with_suffix(".json").read_bytes())


def report(path: Path, **changes: Any) -> Report:
    pixels = images.read(path)
    size = {"image_width": pixels.shape[1], "image_height": pixels.shape[0]}
    return make_report(image_sha256=images.digest(pixels), **size, **changes)


def test_training_reads_the_folder(tmp_path: Path) -> None:
    store = FeedbackStore(tmp_path / "said")
    for seed, label in enumerate(("good", "OK", "cut", "bent wire", "cut")):
        path = picture(tmp_path, seed)
        store.add(path, report(path), label)
    found = read_dataset(tmp_path / "said", "cable")
    assert sorted(sample.label for sample in found.train) == ["bent_wire", "cut", "cut", "good", "good"]
    assert found.test == ()
    assert read_dataset(tmp_path / "said" / "cable", "cable").labels == found.labels


def test_picture_and_sidecar_are_what_was_inspected_and_nothing_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "phone.jpg"
    exif = Image.Exif()
    exif[0x010F] = "Somebody's phone"
    Image.effect_noise((32, 24), 90).convert("RGB").save(path, exif=exif)
    given = report(path, decision="defect")
    stored = FeedbackStore(tmp_path / "said").add(path, given.model_dump(mode="json"), "good")
    assert images.digest(images.read(stored.path)) == given.image_sha256
    assert b"Somebody" not in stored.path.read_bytes()
    said = opinion(stored.path)
    assert (said.label, said.right, said.report) == ("good", False, given)


@pytest.mark.parametrize(
    ("decision", "label", "right"),
    [("ok", "good", True), ("ok", "cut", False), ("defect", "cut", True), ("review", "cut", None)],
)
def test_right_or_wrong_follows_from_what_the_part_is(
    tmp_path: Path, decision: str, label: str, right: bool | None
) -> None:
    path = picture(tmp_path)
    stored = FeedbackStore(tmp_path / "said").add(path, report(path, decision=decision), label)
    assert opinion(stored.path).right is right


def test_the_same_picture_counts_once_and_the_latest_label_stands(tmp_path: Path) -> None:
    store, path = FeedbackStore(tmp_path / "said"), picture(tmp_path)
    again = tmp_path / "copy.bmp"
    Image.open(path).save(again)  # other bytes, the same pixels
    said = [store.add(file, report(path), label) for file, label in ((path, "cut"), (again, "cut"), (path, "good"))]
    assert [(one.outcome, one.label, one.pictures) for one in said] == [
        ("stored", "cut", 1),
        ("known", "cut", 1),
        ("moved", "good", 1),
    ]
    assert sorted(p.relative_to(tmp_path / "said").parts[:3] for p in (tmp_path / "said").rglob("*.png")) == [
        ("cable", "train", "good")
    ]
    assert len(read_dataset(tmp_path / "said", "cable").samples) == 1  # no empty class is left behind


@pytest.mark.parametrize(
    "label", ["../../etc", "..", ".", "", " ", "a/b", "a\\b", "/abs", "C:x", ".hidden", "-x", "a\0b", "x" * 61, "a.b"]
)
def test_no_type_leads_out_of_the_folder(tmp_path: Path, label: str) -> None:
    path = picture(tmp_path)
    with pytest.raises(DataError, match="cannot name a type of defect"):
        FeedbackStore(tmp_path / "said").add(path, report(path), label)
    assert not (tmp_path / "said").exists()


def test_a_category_cannot_lead_out_either(tmp_path: Path) -> None:
    path = picture(tmp_path)
    with pytest.raises(DataError, match="cannot name"):
        FeedbackStore(tmp_path / "said").add(path, report(path, category="../x"), "good")


def test_accents_and_spaces_are_fine() -> None:
    assert [checked_label(text) for text in (" fe\u0302lure  fine ", "Normal", "cut-2")] == [
        "fêlure_fine",
        "good",
        "cut-2",
    ]


@pytest.mark.parametrize("wrong", [None, {}, [], "x", {"format": 1}])
def test_what_is_no_report_is_refused(tmp_path: Path, wrong: object) -> None:
    with pytest.raises(DataError, match="that is no report"):
        FeedbackStore(tmp_path / "said").add(picture(tmp_path), wrong, "good")


def test_a_report_of_another_picture_is_refused(tmp_path: Path) -> None:
    path, other = picture(tmp_path), picture(tmp_path, 1, "other.png")
    with pytest.raises(DataError, match="of another picture"):
        FeedbackStore(tmp_path / "said").add(path, report(other), "good")


def marks(said: Path) -> dict[str, bytes]:
    """The masks below a folder, and what is in them."""
    found = said.rglob("*_mask.png")
    return {path.relative_to(said).as_posix(): np.asarray(Image.open(path)).tobytes() for path in found}


def test_a_region_is_a_mask_that_training_reads(tmp_path: Path) -> None:
    store = FeedbackStore(tmp_path / "said")
    for seed, region in enumerate(([[2, 1, 3, 2]], [], None)):
        path = picture(tmp_path, seed)
        store.add(path, report(path), "cut", region)
    path = picture(tmp_path, 9)
    store.add(path, report(path), "good")
    found = [sample for sample in read_dataset(tmp_path / "said", "cable").train if sample.mask is not None]
    (mask,) = [read_mask(sample, (24, 32)) for sample in found]
    assert np.argwhere(mask).tolist() == [[y, x] for y in (1, 2) for x in (2, 3, 4)]
    assert found[0].mask is not None
    assert set(np.unique(np.asarray(Image.open(found[0].mask)))) == {0, 255}


def test_a_region_goes_with_its_picture_and_a_good_part_has_none(tmp_path: Path) -> None:
    store, path = FeedbackStore(tmp_path / "said"), picture(tmp_path)
    name = f"{report(path).image_sha256}_mask.png"
    store.add(path, report(path), "cut", [[0, 0, 5, 5]])
    store.add(path, report(path), "cut")
    first = marks(tmp_path / "said")
    assert list(first) == [f"cable/ground_truth_train/cut/{name}"]
    store.add(path, report(path), "bent")
    second = marks(tmp_path / "said")
    assert list(second) == [f"cable/ground_truth_train/bent/{name}"]
    assert list(second.values()) == list(first.values())
    store.add(path, report(path), "bent", [[9, 9, 5, 5]])
    assert list(marks(tmp_path / "said").values()) != list(first.values())
    with pytest.raises(DataError, match="a good part has no defect to mark"):
        store.add(path, report(path), "good", [[9, 9, 5, 5]])
    store.add(path, report(path), "good")
    assert sorted(p.name for p in (tmp_path / "said/cable").iterdir()) == ["train"]


def test_a_full_folder_takes_no_more_but_labels_may_change(tmp_path: Path) -> None:
    store = FeedbackStore(tmp_path / "said", most=1)
    first, second = picture(tmp_path), picture(tmp_path, 1, "other.png")
    store.add(first, report(first), "good")
    with pytest.raises(DataError, match="the most that are taken"):
        store.add(second, report(second), "good")
    assert store.add(first, report(first), "cut").outcome == "moved"


def test_a_folder_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    path = picture(tmp_path)
    with pytest.raises(DataError, match="cannot be stored"):
        FeedbackStore(tmp_path / "file" / "said").add(path, report(path), "good")


def test_the_folder_goes_to_a_private_dataset_on_the_hub(
    hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_hub(hub, tmp_path / "cache", monkeypatch)
    store, path = FeedbackStore(tmp_path / "said", REPO, every_min=1000), picture(tmp_path)
    api = HfApi(endpoint=hub.url, token="hf_loopback_alice")

    def there() -> list[str]:
        files = api.list_repo_files(REPO, repo_type="dataset")
        return sorted(file for file in files if file.startswith("cable/"))

    sha256 = report(path).image_sha256
    store.add(path, report(path), "cut", [[0, 0, 5, 5]])
    store.push()
    assert there() == [
        f"cable/ground_truth_train/cut/{sha256}_mask.png",
        f"cable/train/cut/{sha256}.json",
        f"cable/train/cut/{sha256}.png",
    ]
    assert api.repo_info(REPO, repo_type="dataset").private
    store.add(path, report(path), "good")
    store.push()
    assert there() == [f"cable/train/good/{sha256}.json", f"cable/train/good/{sha256}.png"]
    store.close()
    local = api.snapshot_download(REPO, repo_type="dataset", local_dir=tmp_path / "back")
    assert [sample.label for sample in read_dataset(Path(local), "cable").train] == ["good"]


def test_without_the_hub_labels_stay_in_the_folder(
    hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_hub(hub, tmp_path / "cache", monkeypatch)
    hub.stop()
    path = picture(tmp_path)
    stored = FeedbackStore(tmp_path / "said", REPO).add(path, report(path), "cut")
    assert stored.outcome == "stored"
    assert stored.path.is_file()


def test_a_repo_needs_a_folder() -> None:
    with pytest.raises(ValidationError, match="needs VIGIE_FEEDBACK"):
        Settings(feedback_repo=REPO)


def test_the_panel_says_how_to_switch_it_on_and_what_is_stored(tmp_path: Path) -> None:
    assert "VIGIE_FEEDBACK" in before_html(None, Settings(), "en")
    on = Settings(feedback=tmp_path, feedback_repo=REPO)
    said = html.unescape(before_html(None, on, "fr"))
    assert "Sans appui, rien n'est enregistré" in said
    assert REPO in said


def test_the_buttons_say_which_one_agrees_with_the_verdict() -> None:
    assert labels({"decision": "ok"}, "en") == ("Right: The part is good", "Wrong: The part is defective")
    assert labels({"decision": "defect"}, "en")[0].startswith("Wrong")
    assert labels({"decision": "review"}, "fr") == ("La pièce est bonne", "La pièce est défectueuse")


def test_the_panel_says_where_a_label_helps_most(tmp_path: Path) -> None:
    on = Settings(feedback=tmp_path)
    said = [before_html(make_report(decision=d).model_dump(mode="json"), on, "en") for d in ("review", "ok")]
    assert ["helps most" in text for text in said] == [True, False]


def test_the_api_takes_a_label_with_the_report(
    start_app: Callable[[Settings], RunningApp], inspector_folder: Path, picture_file: Path, tmp_path: Path
) -> None:
    app = start_app(Settings(inspectors=(str(inspector_folder),), feedback=tmp_path / "said"))
    client = Client(app.url, verbose=False)
    given, _ = client.predict(handle_file(picture_file), api_name="/inspect")
    assert not (tmp_path / "said").exists()
    answer = client.predict(handle_file(picture_file), given, "missing cable", api_name="/feedback")
    assert answer == {"outcome": "stored", "label": "missing_cable", "pictures": 1}
    (sidecar,) = (tmp_path / "said").rglob("*.json")
    assert json.loads(sidecar.read_text())["report"] == given
    assert marks(tmp_path / "said") == {}
    again = client.predict(handle_file(picture_file), given, "missing cable", [[10, 20, 30, 8]], api_name="/feedback")
    assert again["outcome"] == "known"
    (mask,) = (tmp_path / "said").rglob("*_mask.png")
    assert Image.open(mask).getbbox() == (10, 20, 40, 28)
    with pytest.raises(AppError, match="does not lie in the picture of 128 x 128"):
        client.predict(handle_file(picture_file), given, "cut", [[100, 20, 30, 8]], api_name="/feedback")
    with pytest.raises(AppError, match="cannot name a type"):
        client.predict(handle_file(picture_file), given, "../x", api_name="/feedback")
    client.close()


def test_the_api_without_a_folder_says_how_to_switch_it_on(running_app: RunningApp, picture_file: Path) -> None:
    client = Client(running_app.url, verbose=False)
    with pytest.raises(AppError, match="set VIGIE_FEEDBACK to a folder"):
        client.predict(handle_file(picture_file), {}, "good", api_name="/feedback")
    client.close()
    assert issubclass(DataError, VigieError)
