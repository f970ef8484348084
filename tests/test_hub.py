"""Reading from the Hub: list, resolve, pull, load. The real huggingface_hub against the loopback Hub."""

from pathlib import Path

import pytest
from bare_git import lfs_pointer
from huggingface_hub import HfApi
from loopback_hub import LoopbackHub
from released import INSPECTOR, KINDS, TAGS, Release, file_of, picture, release, scores, served, store_locally

from anomaly import hub as registry
from anomaly.emissions import EmissionsMeter
from anomaly.errors import ModelLoadError, RegistryError, RepoNotFoundError, RevisionNotFoundError
from anomaly.inspector import INSPECTOR_FILE
from anomaly.loading import load_inspector
from anomaly.model_repo import MODEL_FILES
from anomaly.source import parse_source

__all__ = ["release", "served"]  # fixtures

SOURCE = registry.Source(INSPECTOR, INSPECTOR)
ODD_REVISIONS = (
    "v9",
    "..",
    ".",
    "v1 ",
    "a b",
    "é",
    "../../../etc",
    "v1?x=1",
    "%2e%2e",
    "v1\n",
    "f" * 40,
    "f" * 7,
    "/",
    "a//b",
    "x.",
)


@pytest.fixture(scope="session")
def meter() -> EmissionsMeter:
    return EmissionsMeter()


@pytest.fixture(scope="session")
def local(release: Release, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same release in a local folder."""
    folder = tmp_path_factory.mktemp("local")
    store_locally(release, folder)
    return folder


def downloads(hub: LoopbackHub) -> set[tuple[str, str]]:
    """(repo, file) of everything that was fetched."""
    gets = [path.partition("?")[0] for method, path, _ in hub.log if method == "GET" and "/resolve/" in path]
    return {(path.split("/resolve/")[0][1:], path.rsplit("/", 1)[1]) for path in gets}


# What there is


def test_tags_come_first_then_branches_then_commits(served: LoopbackHub, release: Release) -> None:
    revisions = registry.list_revisions(SOURCE)
    named = [(revision.kind, revision.name, revision.commit) for revision in revisions[:3]]
    v1, v2 = release.commits["v1"], release.commits["v2"]
    assert named == [("tag", "v2", v2), ("tag", "v1", v1), ("branch", "main", v2)]
    assert [(revision.kind, revision.commit) for revision in revisions[3:5]] == [("commit", v2), ("commit", v1)]
    assert revisions[0].title == "waves v2"
    assert revisions[0].date.startswith("20")
    assert len(served.log) == 2


def test_a_local_folder_lists_the_same_tags(local: Path) -> None:
    revisions = registry.list_revisions(parse_source(str(local)))
    assert [(revision.kind, revision.name) for revision in revisions[:3]] == [
        ("tag", "v2"),
        ("tag", "v1"),
        ("branch", "main"),
    ]
    assert {revision.commit for revision in revisions[3:]} == {revision.commit for revision in revisions[:2]}


def test_a_long_history_costs_one_page(served: LoopbackHub) -> None:
    repo = served.repo(INSPECTOR)
    for number in range(30):
        repo.commit("main", [("notes.txt", b"%d" % number)], f"note {number}", "alice")
    served.log.clear()
    commits = [revision for revision in registry.list_revisions(SOURCE) if revision.kind == "commit"]
    assert [commit.title for commit in commits[:2]] == ["note 29", "note 28"]
    assert len(commits) == 20
    assert len(served.log) == 2


# What a revision is


def test_a_revision_is_a_tag_a_branch_a_commit_or_its_first_digits(served: LoopbackHub, release: Release) -> None:
    v1, v2 = release.commits["v1"], release.commits["v2"]
    HfApi(endpoint=served.url).create_branch(INSPECTOR, branch="line/3", revision="v1")
    asked = {"v1": v1, "v2": v2, "main": v2, None: v2, "line/3": v1, v1: v1, v1[:7]: v1, v1[:39]: v1}
    assert {name: registry.resolve(SOURCE, name) for name in asked} == asked


def test_a_local_folder_takes_the_same_revisions(local: Path) -> None:
    source = parse_source(str(local))
    v1, v2 = registry.resolve(source, "v1"), registry.resolve(source, "v2")
    assert v1 != v2
    asked = {"main": v2, None: v2, v1: v1, v1[:7]: v1, v2[:39]: v2}
    assert {name: registry.resolve(source, name) for name in asked} == asked


def test_no_other_name_leads_anywhere(served: LoopbackHub, local: Path) -> None:
    for source in (SOURCE, parse_source(str(local))):
        for name in ODD_REVISIONS:
            with pytest.raises(RevisionNotFoundError):
                registry.resolve(source, name)


def test_a_tag_costs_one_request_and_a_commit_that_is_here_none(served: LoopbackHub, release: Release) -> None:
    commit = registry.resolve(SOURCE, "v1")
    assert [(method, status) for method, _, status in served.log] == [("GET", 200)]
    registry.download(SOURCE, commit, [INSPECTOR_FILE])
    served.log.clear()
    assert registry.resolve(SOURCE, commit) == commit
    assert served.log == []


# What is brought here


def test_every_model_is_pulled_byte_for_byte(served: LoopbackHub, release: Release) -> None:
    for tag, ref in [(name, ref) for name in TAGS for ref in file_of(release, name).members]:
        source = SOURCE.sibling(ref.repo)
        assert registry.resolve(source, tag) == ref.commit
        folder = registry.download(source, ref.commit, MODEL_FILES)
        for name in MODEL_FILES:
            assert (folder / name).read_bytes() == (release.folder / tag / ref.name / name).read_bytes()


def test_an_inspector_from_the_hub_scores_as_the_one_from_a_folder(
    served: LoopbackHub, local: Path, meter: EmissionsMeter, release: Release
) -> None:
    found = {}
    for tag in TAGS:
        ours = load_inspector(str(local), tag, meter=meter).inspect(picture())
        theirs = load_inspector(INSPECTOR, tag, meter=meter).inspect(picture())
        assert scores(theirs) == scores(ours)
        assert theirs.report.commit == release.commits[tag]
        assert {vote.member: vote.commit for vote in theirs.report.votes} == {
            ref.name: ref.commit for ref in file_of(release, tag).members
        }
        found[tag] = scores(theirs)
    assert set(found["v1"]) == set(KINDS)
    assert all(found["v1"][name] != found["v2"][name] for name in KINDS)


def test_a_loaded_commit_needs_no_hub_any_more(served: LoopbackHub, release: Release, meter: EmissionsMeter) -> None:
    before = scores(load_inspector(INSPECTOR, "v1", meter=meter).inspect(picture()))
    served.log.clear()
    load_inspector(INSPECTOR, release.commits["v1"], meter=meter)
    assert served.log == []
    served.stop()
    again = load_inspector(INSPECTOR, release.commits["v1"], meter=meter)
    assert scores(again.inspect(picture())) == before


def test_only_the_named_files_are_downloaded(served: LoopbackHub, release: Release, meter: EmissionsMeter) -> None:
    ref = file_of(release, "v1").members[0]
    heavy = lfs_pointer("a" * 64, 1 << 30)  # 1 GB that is not even there
    strange = [("model.pkl", b"\x80\x04."), ("pytorch_model.bin", heavy), ("sub/config.json", b"{}")]
    commit = served.repo(ref.repo).commit("main", strange, "more files", "alice")
    folder = registry.download(SOURCE.sibling(ref.repo), commit, MODEL_FILES)
    assert {path.name for path in folder.rglob("*") if path.is_file()} == set(MODEL_FILES)
    load_inspector(INSPECTOR, "v1", meter=meter)
    assert {name for _, name in downloads(served)} == {*MODEL_FILES, INSPECTOR_FILE}


def test_an_interrupted_download_is_completed(served: LoopbackHub, release: Release, meter: EmissionsMeter) -> None:
    ref = file_of(release, "v1").members[0]
    registry.download(SOURCE.sibling(ref.repo), ref.commit, ["config.json"])
    served.log.clear()
    registry.download(SOURCE.sibling(ref.repo), ref.commit, MODEL_FILES)
    assert {name for _, name in downloads(served)} == set(MODEL_FILES) - {"config.json"}


def test_holds_tells_an_inspector_from_a_model(served: LoopbackHub, release: Release, local: Path) -> None:
    ref = file_of(release, "v1").members[0]
    assert registry.holds(SOURCE, release.commits["v1"], INSPECTOR_FILE)
    assert not registry.holds(SOURCE.sibling(ref.repo), ref.commit, INSPECTOR_FILE)
    assert downloads(served) == set()
    with pytest.raises(RevisionNotFoundError):
        registry.holds(SOURCE, "f" * 40, INSPECTOR_FILE)
    source = parse_source(str(local))
    assert registry.holds(source, registry.resolve(source), INSPECTOR_FILE)
    assert not registry.holds(source, registry.resolve(source), "config.json")


# What is not as it should be


def test_a_file_that_is_not_in_the_repo_is_named(served: LoopbackHub, release: Release, local: Path) -> None:
    for source in (SOURCE, parse_source(str(local))):
        with pytest.raises(ModelLoadError, match=r"has no model\.safetensors"):
            registry.download(source, registry.resolve(source), [INSPECTOR_FILE, "model.safetensors"])


def test_a_flipped_byte_is_refused_and_a_mended_hub_serves_again(
    served: LoopbackHub, release: Release, meter: EmissionsMeter, tmp_path: Path
) -> None:
    ref = file_of(release, "v2").members[0]
    served.flip_byte(ref.repo, "model.safetensors", "v2")
    for _ in range(2):
        with pytest.raises(ModelLoadError, match=rf"{ref.repo}.*model\.safetensors is corrupt"):
            load_inspector(INSPECTOR, "v2", meter=meter)
    load_inspector(INSPECTOR, "v1", meter=meter)
    served.flip_byte(ref.repo, "model.safetensors", "v2")  # back
    assert load_inspector(INSPECTOR, "v2", meter=meter).inspect(picture()).report.votes


def test_a_byte_flipped_on_this_disk_is_refused_and_downloaded_anew(served: LoopbackHub, release: Release) -> None:
    ref = file_of(release, "v1").members[0]
    source = SOURCE.sibling(ref.repo)
    folder = registry.download(source, ref.commit, MODEL_FILES)
    for name in MODEL_FILES:
        flip(folder / name)
        with pytest.raises(ModelLoadError, match=f"{name} is corrupt"):
            registry.download(source, ref.commit, MODEL_FILES)
        registry.download(source, ref.commit, MODEL_FILES)
        assert (folder / name).read_bytes() == (release.folder / "v1" / ref.name / name).read_bytes()


def test_a_byte_flipped_in_a_local_folder_is_refused_and_left_as_it_is(
    release: Release, meter: EmissionsMeter, tmp_path: Path
) -> None:
    store_locally(release, tmp_path)
    repo = parse_source(str(tmp_path)).sibling("alice/waves-patch_knn")
    path = registry.download(repo, registry.resolve(repo, "v1"), MODEL_FILES) / "model.safetensors"
    flip(path)
    spoiled = path.read_bytes()
    with pytest.raises(ModelLoadError, match=r"alice/waves-patch_knn.*model\.safetensors"):
        load_inspector(str(tmp_path), "v1", meter=meter)
    assert path.read_bytes() == spoiled


def test_a_file_in_the_shared_store_of_xet_is_held_against_the_right_hash(
    served: LoopbackHub, release: Release, tmp_path: Path
) -> None:
    """huggingface_hub keeps what came by Xet once for all repos: blobs/<sha256> is then a link to another name."""
    ref = file_of(release, "v1").members[0]
    source = SOURCE.sibling(ref.repo)
    path = registry.download(source, ref.commit, MODEL_FILES) / "model.safetensors"
    blob = path.parent / path.readlink()
    shared = tmp_path / "cache" / "blobs" / "ab" / ("ab" * 32)
    shared.parent.mkdir(parents=True)
    blob.rename(shared)
    blob.symlink_to(shared)
    assert registry.download(source, ref.commit, MODEL_FILES) == path.parent
    flip(shared)
    with pytest.raises(ModelLoadError, match=r"model\.safetensors is corrupt"):
        registry.download(source, ref.commit, MODEL_FILES)
    assert not shared.exists()
    registry.download(source, ref.commit, MODEL_FILES)
    assert path.read_bytes() == (release.folder / "v1" / ref.name / "model.safetensors").read_bytes()


def test_a_local_folder_without_the_files_of_a_commit_says_so(release: Release, tmp_path: Path) -> None:
    store_locally(release, tmp_path)
    source = parse_source(str(tmp_path))
    with pytest.raises(RevisionNotFoundError, match="has no commit"):
        registry.download(source, "f" * 40, [INSPECTOR_FILE])
    with pytest.raises(RepoNotFoundError):
        registry.resolve(source.sibling("alice/nothing"))
    with pytest.raises(RegistryError, match="not a full commit"):
        registry.download(source, "v1", [INSPECTOR_FILE])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
