"""What a person names: a SOURCE and a revision of it."""

from pathlib import Path

import pytest

from anomaly import hub as registry
from anomaly.errors import RegistryError
from anomaly.source import Revision, latest_first, parse_source


def release(folder: Path, repo_id: str) -> None:
    (folder / "inspector.json").write_text("{}")
    registry.store(folder, folder, repo_id, files=["inspector.json"])


@pytest.mark.parametrize(
    "text",
    ["", " ", "org", "a/b/c", "ü/cable", "a b/c", "org/", "/org", "./x/y", "~nobody/x", "org/x--y", "org/..", "-a/b",
     "a/b\0", "a/b\n", "a/" + "b" * 300, "a" * 5000],
)  # fmt: skip
def test_what_is_neither_a_folder_nor_a_repo_id_is_refused(text: str) -> None:
    with pytest.raises(RegistryError):
        parse_source(text)


def test_a_folder_must_hold_one_inspector_or_be_named_more_closely(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="found none"):
        parse_source(str(tmp_path))
    release(tmp_path, "alice/waves")
    assert parse_source(str(tmp_path)) == registry.Source(str(tmp_path), "alice/waves", tmp_path)
    release(tmp_path, "alice/other")
    with pytest.raises(RegistryError, match="name one of these"):
        parse_source(str(tmp_path))
    assert parse_source(str(tmp_path / "models--alice--other")).repo_id == "alice/other"


def test_a_folder_comes_before_a_repo_of_the_same_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse_source("alice/waves").folder is None
    (tmp_path / "alice" / "waves").mkdir(parents=True)
    release(tmp_path / "alice" / "waves", "bob/cable")
    assert parse_source("alice/waves").repo_id == "bob/cable"
    assert parse_source("alice/waves").sibling("bob/other").folder == tmp_path / "alice" / "waves"


@pytest.mark.parametrize(
    "latest_to_oldest",
    [
        ["v10", "v9", "v1.10", "v1.2.1", "v1.2", "v1", "v1-rc2", "v1-rc1"],
        ["2024-05-02", "2024-05-01", "2023-12-31"],
        ["10", "9", "1"],
    ],
)
def test_tags_are_ordered_as_people_number_releases(latest_to_oldest: list[str]) -> None:
    shuffled = [Revision(name, "tag", "0" * 40) for name in sorted(latest_to_oldest)]
    assert [revision.name for revision in latest_first(shuffled)] == latest_to_oldest
