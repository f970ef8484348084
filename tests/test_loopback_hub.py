"""The loopback Hub, asked by the real huggingface_hub client."""

import hashlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import loopback_hub
import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import httpx
from loopback_hub import DROPPED, LoopbackHub

REPO = "alice/cable"
CARD = "---\ntags:\n- vigie\nlibrary_name: vigie\n---\n# Cable\n"
WEIGHTS = bytes(range(256)) * 64
FILES = {"README.md": CARD.encode(), "config.json": b'{"kind": "patch_knn"}', "model.safetensors": WEIGHTS}

hub = loopback_hub.hub


def client(hub: LoopbackHub, user: str | None = "alice") -> HfApi:
    return HfApi(endpoint=hub.url, token=f"hf_loopback_{user}" if user else False)


@pytest.fixture
def api(hub: LoopbackHub) -> HfApi:
    """Alice, who owns REPO."""
    api = client(hub)
    api.create_repo(REPO)
    return api


def push(api: HfApi, files: dict[str, bytes] = FILES, message: str = "push", **options: str) -> str:
    operations = [CommitOperationAdd(path, content) for path, content in files.items()]
    return api.create_commit(REPO, operations, commit_message=message, **options).oid


def head(api: HfApi, branch: str = "main") -> str:
    return {ref.name: ref.target_commit for ref in api.list_repo_refs(REPO).branches}[branch]


# Upload and download


def test_an_uploaded_folder_comes_back_byte_for_byte(hub: LoopbackHub, api: HfApi, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    for name, content in FILES.items():
        (folder / "sub dir").mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
        (folder / "sub dir" / f"é {name}").write_bytes(content)
    pushed = api.upload_folder(repo_id=REPO, folder_path=folder).oid
    snapshot = Path(api.snapshot_download(REPO, cache_dir=tmp_path / "cache"))
    assert snapshot.name == pushed
    for path in folder.rglob("*.*"):
        assert (snapshot / path.relative_to(folder)).read_bytes() == path.read_bytes()


def test_weights_go_through_lfs_once_and_small_text_does_not(hub: LoopbackHub, api: HfApi) -> None:
    push(api)
    push(api, {"copy.safetensors": WEIGHTS})
    assert [status for method, _, status in hub.log if method == "PUT"] == [200]
    stored = {file.path: file for file in api.list_repo_tree(REPO)}
    assert stored["model.safetensors"].lfs.sha256 == hashlib.sha256(WEIGHTS).hexdigest()
    assert stored["model.safetensors"].size == len(WEIGHTS)
    assert stored["config.json"].lfs is None


def test_unchanged_content_makes_no_commit(api: HfApi) -> None:
    assert push(api) == push(api) == head(api)


def test_a_missing_file_is_not_a_missing_repo(api: HfApi, tmp_path: Path) -> None:
    with pytest.raises(EntryNotFoundError):
        api.hf_hub_download(REPO, "nothing.json", cache_dir=tmp_path)
    assert not api.file_exists(REPO, "nothing.json")


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_download_can_start_in_the_middle(hub: LoopbackHub, api: HfApi, tmp_path: Path, name: str) -> None:
    push(api)
    with (tmp_path / "file").open("w+b") as file:
        file.write(FILES[name][:10])
        http_get(f"{hub.url}/{REPO}/resolve/main/{name}", file, resume_size=10, expected_size=len(FILES[name]))
    assert (tmp_path / "file").read_bytes() == FILES[name]
    assert hub.log[-1][2] == 206


@pytest.mark.parametrize("repo_type", ["model", "dataset", "space"])
def test_models_datasets_and_spaces_are_apart(hub: LoopbackHub, tmp_path: Path, repo_type: str) -> None:
    api, sdk = client(hub), "gradio" if repo_type == "space" else None
    url = api.create_repo(REPO, repo_type=repo_type, space_sdk=sdk)
    assert (url.repo_type, url.repo_id) == (repo_type, REPO)
    for name in ("weights.bin", "a.txt"):
        api.upload_file(path_or_fileobj=WEIGHTS, path_in_repo=name, repo_id=REPO, repo_type=repo_type)
        path = api.hf_hub_download(REPO, name, repo_type=repo_type, cache_dir=tmp_path)
        assert Path(path).read_bytes() == WEIGHTS
    assert [api.repo_exists(REPO, repo_type=kind) for kind in ("model", "dataset", "space")].count(True) == 1
    api.delete_repo(REPO, repo_type=repo_type)
    assert not api.repo_exists(REPO, repo_type=repo_type)


# Repos and revisions


def test_a_repo_is_created_once_and_can_be_deleted(api: HfApi) -> None:
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_repo(REPO)
    api.create_repo(REPO, exist_ok=True)
    assert [model.id for model in api.list_models(author="alice")] == [REPO]
    api.delete_repo(REPO)
    with pytest.raises(RepositoryNotFoundError):
        api.model_info(REPO)


def test_info_tells_card_and_files(api: HfApi) -> None:
    oid = push(api)
    info = api.model_info(REPO, files_metadata=True)
    assert (info.sha, info.tags, info.card_data.library_name, info.private) == (oid, ["vigie"], "vigie", False)
    sizes = {file.rfilename: file.size for file in info.siblings}
    assert {name: sizes[name] for name in FILES} == {name: len(content) for name, content in FILES.items()}
    assert [file.path for file in api.get_paths_info(REPO, ["config.json"])] == ["config.json"]


def test_commits_are_listed_newest_first_with_distinct_dates(api: HfApi) -> None:
    for number in range(3):
        push(api, {"n.txt": b"%d" % number}, f"number {number}", commit_description="why")
    commits = api.list_repo_commits(REPO)
    assert [commit.title for commit in commits] == ["number 2", "number 1", "number 0", "initial commit"]
    assert (commits[0].message, commits[0].authors, commits[0].commit_id) == ("why", ["alice"], head(api))
    dates = [commit.created_at for commit in commits]
    assert dates == sorted(set(dates), reverse=True)


@pytest.mark.parametrize("message", [None, "first release"])
def test_a_tag_stays_where_it_was_put(api: HfApi, tmp_path: Path, message: str | None) -> None:
    tagged = push(api)
    api.create_tag(REPO, tag="v1", tag_message=message)
    push(api, {"config.json": b"{}"})
    assert api.resolve_revision(REPO, revision="v1", cache_dir=tmp_path).resolved == tagged != head(api)
    assert [(ref.name, ref.target_commit) for ref in api.list_repo_refs(REPO).tags] == [("v1", tagged)]
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_tag(REPO, tag="v1")


def test_a_deleted_tag_is_an_unknown_revision_and_its_commit_is_not(api: HfApi, tmp_path: Path) -> None:
    oid = push(api)
    api.create_tag(REPO, tag="v1")
    api.delete_tag(REPO, tag="v1")
    with pytest.raises(RevisionNotFoundError):
        api.resolve_revision(REPO, revision="v1", cache_dir=tmp_path)
    with pytest.raises(RevisionNotFoundError):
        api.snapshot_download(REPO, revision="v1", cache_dir=tmp_path)
    with pytest.raises(RevisionNotFoundError):
        api.delete_tag(REPO, tag="v1")
    assert api.model_info(REPO, revision=oid).sha == oid


def test_a_revision_may_contain_a_slash(api: HfApi, tmp_path: Path) -> None:
    api.create_branch(REPO, branch="line/3")
    oid = push(api, {"sub/a.json": b"3"}, revision="line/3")
    api.create_tag(REPO, tag="line/3/v1", revision="line/3")
    for revision in ("line/3", "line/3/v1"):
        assert api.model_info(REPO, revision=revision).sha == oid
        assert [file.path for file in api.list_repo_tree(REPO, "sub", revision=revision)] == ["sub/a.json"]
        path = api.hf_hub_download(REPO, "sub/a.json", revision=revision, cache_dir=tmp_path)
        assert Path(path).read_bytes() == b"3"
    assert api.list_repo_commits(REPO, revision="line/3")[0].commit_id == oid
    assert head(api) != oid
    api.delete_branch(REPO, branch="line/3")
    assert [ref.name for ref in api.list_repo_refs(REPO).branches] == ["main"]


# A commit is whole or not there


def test_a_stale_parent_is_refused_with_412(api: HfApi) -> None:
    parent = head(api)
    newest = push(api, parent_commit=parent)
    with pytest.raises(HfHubHTTPError) as refused:
        push(api, {"config.json": b"mine"}, parent_commit=parent)
    assert refused.value.response.status_code == 412
    assert head(api) == newest


def test_of_writers_with_the_same_parent_one_wins(api: HfApi) -> None:
    parent, refused = head(api), []

    def write(number: int) -> None:
        try:
            push(api, {f"{number}.txt": b"x"}, parent_commit=parent)
        except HfHubHTTPError as error:
            refused.append(error.response.status_code)

    writers = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert refused == [412] * 3
    assert [commit.commit_id for commit in api.list_repo_commits(REPO)] == [head(api), parent]


def test_one_impossible_operation_spoils_the_whole_commit(api: HfApi) -> None:
    before = push(api)
    with pytest.raises(EntryNotFoundError):
        api.create_commit(
            REPO, [CommitOperationAdd("new.txt", b"x"), CommitOperationDelete("nothing.txt")], commit_message="both"
        )
    assert head(api) == before


def test_files_and_folders_are_deleted(api: HfApi) -> None:
    push(api, {**FILES, "plots/a.txt": b"a", "plots/b.txt": b"b"})
    api.delete_folder("plots", REPO)
    api.delete_file("config.json", REPO)
    assert set(api.list_repo_files(REPO)) == {".gitattributes", "README.md", "model.safetensors"}


def run_client(code: str, url: str, home: Path) -> subprocess.CompletedProcess[str]:
    env = {"HF_ENDPOINT": url, "HF_TOKEN": "hf_loopback_alice", "HF_HOME": str(home)}
    env |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=os.environ | env, capture_output=True, text=True, check=False)


def test_a_push_killed_before_its_commit_leaves_nothing_to_see(hub: LoopbackHub, api: HfApi, tmp_path: Path) -> None:
    refs = hub.repo(REPO).refs()
    killed = run_client(
        "import os, signal\n"
        "from huggingface_hub import CommitOperationAdd, preupload_lfs_files\n"
        f"weights = CommitOperationAdd('model.safetensors', {WEIGHTS!r})\n"
        f"preupload_lfs_files({REPO!r}, [weights])\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n",
        hub.url,
        tmp_path,
    )
    assert killed.returncode == -9
    assert [method for method, _, _ in hub.log].count("PUT") == 1
    assert hub.repo(REPO).refs() == refs
    assert api.list_repo_files(REPO) == [".gitattributes"]
    push(api)  # the second try finds the LFS object there
    assert [method for method, _, _ in hub.log].count("PUT") == 1


def test_it_also_runs_as_a_command_for_clients_in_other_processes(tmp_path: Path) -> None:
    command = [sys.executable, loopback_hub.__file__, "--root", str(tmp_path / "hub"), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            url = server.stdout.readline().split()[0]
            done = run_client(
                "from huggingface_hub import ModelCard, create_repo, whoami\n"
                f"create_repo({REPO!r})\n"
                f"ModelCard({CARD!r}).push_to_hub({REPO!r})\n"
                f"print(whoami()['name'], ModelCard.load({REPO!r}).data.tags)\n",
                url,
                tmp_path / "home",
            )
        finally:
            server.kill()
    assert (done.returncode, done.stdout) == (0, "alice ['vigie']\n"), done.stderr
    assert LoopbackHub(tmp_path / "hub").repo(REPO).refs().keys() == {"refs/heads/main"}


# Who may do what


@pytest.mark.parametrize(("user", "status"), [("bob", 404), (None, 401)])
def test_a_private_repo_looks_missing(
    hub: LoopbackHub, api: HfApi, tmp_path: Path, user: str | None, status: int
) -> None:
    push(api)
    hub.set_private(REPO)
    stranger = client(hub, user)
    for missing in (REPO, "alice/never-was"):
        with pytest.raises(RepositoryNotFoundError) as refused:
            stranger.hf_hub_download(missing, "config.json", cache_dir=tmp_path)
        assert not isinstance(refused.value, GatedRepoError)
        assert refused.value.response.status_code == status
    assert list(stranger.list_models()) == []
    assert api.model_info(REPO).private
    hub.set_private(REPO, False)
    assert stranger.hf_hub_download(REPO, "config.json", cache_dir=tmp_path)


@pytest.mark.parametrize(("user", "status"), [("bob", 403), (None, 401)])
def test_a_gated_repo_can_be_seen_but_not_downloaded(
    hub: LoopbackHub, api: HfApi, tmp_path: Path, user: str | None, status: int
) -> None:
    push(api)
    hub.set_gated(REPO)
    stranger = client(hub, user)
    assert stranger.model_info(REPO).gated == "manual"
    with pytest.raises(GatedRepoError) as refused:
        stranger.hf_hub_download(REPO, "config.json", cache_dir=tmp_path)
    assert refused.value.response.status_code == status
    with pytest.raises(GatedRepoError):
        stranger.snapshot_download(REPO, cache_dir=tmp_path)
    assert api.hf_hub_download(REPO, "config.json", cache_dir=tmp_path)
    api.update_repo_settings(REPO, gated=False)
    assert stranger.hf_hub_download(REPO, "config.json", cache_dir=tmp_path)


def test_only_the_owner_writes(hub: LoopbackHub, api: HfApi) -> None:
    bob = client(hub, "bob")
    for attempt in (push, lambda api: api.create_tag(REPO, tag="v1"), lambda api: api.create_repo("alice/other")):
        with pytest.raises(HfHubHTTPError) as refused:
            attempt(bob)
        assert refused.value.response.status_code == 403


def test_an_unknown_token_is_refused_and_does_not_look_like_a_missing_repo(hub: LoopbackHub, api: HfApi) -> None:
    with pytest.raises(HfHubHTTPError, match="401") as refused:
        client(hub, "mallory").model_info(REPO)
    assert not isinstance(refused.value, RepositoryNotFoundError)


# Faults


def test_an_injected_status_hits_the_next_matching_request_only(hub: LoopbackHub, api: HfApi) -> None:
    hub.fail_next(path_contains="/commit/", status=500)
    before = head(api)
    with pytest.raises(HfHubHTTPError, match="500"):
        push(api)
    assert head(api) == before
    assert push(api) == head(api)


def test_a_busy_hub_is_asked_again_by_the_client(hub: LoopbackHub, api: HfApi) -> None:
    hub.fail_next(path_contains="/preupload/", status=429)
    push(api)
    assert [status for _, path, status in hub.log if "/preupload/" in path] == [429, 200]


def test_faults_last_as_many_requests_as_asked(hub: LoopbackHub, api: HfApi) -> None:
    hub.fail_next(path_contains=f"/api/models/{REPO}", status=503, times=2)
    for _ in range(2):
        with pytest.raises(HfHubHTTPError, match="503"):
            api.model_info(REPO)
    assert api.model_info(REPO).id == REPO


def test_a_dropped_connection_is_no_answer_at_all(hub: LoopbackHub, api: HfApi) -> None:
    hub.fail_next(path_contains="/commit/", drop=True)
    before = head(api)
    with pytest.raises(httpx.TransportError):
        push(api)
    assert [status for _, path, status in hub.log if "/commit/" in path] == [DROPPED]
    assert head(api) == before


def test_a_slow_hub_runs_into_the_timeout_of_the_client(hub: LoopbackHub, api: HfApi) -> None:
    hub.fail_next(path_contains="/api/models/", delay_s=0.6)
    with pytest.raises(httpx.ReadTimeout):
        api.model_info(REPO, timeout=0.1)
    hub.fail_next(path_contains="/api/models/", delay_s=0.1)
    assert api.model_info(REPO).id == REPO


def test_a_flipped_byte_is_seen_by_its_sha256_only(hub: LoopbackHub, api: HfApi, tmp_path: Path) -> None:
    push(api)
    hub.flip_byte(REPO, "model.safetensors")
    promised = api.get_paths_info(REPO, "model.safetensors")[0].lfs
    delivered = Path(api.hf_hub_download(REPO, "model.safetensors", cache_dir=tmp_path)).read_bytes()
    assert len(delivered) == promised.size
    assert hashlib.sha256(delivered).hexdigest() != promised.sha256 == hashlib.sha256(WEIGHTS).hexdigest()
    assert sum(ours != theirs for ours, theirs in zip(WEIGHTS, delivered, strict=True)) == 1
    with pytest.raises(ValueError, match=r"config\.json"):
        hub.flip_byte(REPO, "config.json")


def test_what_was_downloaded_outlives_the_hub_and_the_hub_comes_back(
    hub: LoopbackHub, api: HfApi, tmp_path: Path
) -> None:
    oid = push(api)
    online = api.snapshot_download(REPO, cache_dir=tmp_path)
    hub.stop()
    with pytest.raises(httpx.ConnectError):
        api.model_info(REPO)
    assert api.snapshot_download(REPO, cache_dir=tmp_path, local_files_only=True) == online
    assert api.resolve_revision(REPO, cache_dir=tmp_path).resolved == oid
    hub.start()
    assert api.model_info(REPO).sha == oid
