"""What a running app survives: revisions that move or vanish, repos that are closed, a Hub that comes and goes."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import HfApi
from loopback_hub import LoopbackHub
from released import PAIR, PICTURE, Release, new_service, release, scores, served, service, stocked, store_locally

from anomaly import hub as registry
from anomaly import service as service_module
from anomaly.errors import HubUnreachableError, ModelLoadError, RevisionNotFoundError
from anomaly.inspector import INSPECTOR_FILE, Inspection
from anomaly.service import Service
from anomaly.settings import Settings

__all__ = ["release", "served", "service", "stocked"]  # fixtures


@pytest.fixture
def without_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "_PAUSE_S", 0.0)


def api(hub: LoopbackHub) -> HfApi:
    return HfApi(endpoint=hub.url, token="hf_loopback_alice")


def only_warning(inspection: Inspection) -> str:
    (warning,) = inspection.report.warnings
    return warning


# Revisions that move or vanish


def test_a_deleted_tag_goes_on_serving_its_commit_with_a_warning(
    served: LoopbackHub, service: Service, release: Release
) -> None:
    before = scores(service.inspect(PICTURE, revision="v1"))
    api(served).delete_tag(PAIR, tag="v1")
    for _ in range(2):
        inspection = service.inspect(PICTURE, revision="v1")
        assert inspection.report.commit == release.pair["v1"]
        assert scores(inspection) == before
        assert f"no such revision (any more); list them with `revisions`. v1 is served as it was last known: commit {release.pair['v1']}" in only_warning(inspection)  # fmt: skip  # noqa: E501
    assert service.inspect(PICTURE, revision="v2").report.warnings == ()
    with pytest.raises(RevisionNotFoundError):
        new_service().inspect(PICTURE, revision="v1")
    with pytest.raises(RevisionNotFoundError):
        service.inspect(PICTURE, revision="v9")


def test_a_moved_tag_is_followed(served: LoopbackHub, service: Service, release: Release) -> None:
    api(served).delete_tag(PAIR, tag="v1")
    api(served).create_tag(PAIR, tag="v1", revision="v2")
    inspection = service.inspect(PICTURE, revision="v1")
    assert inspection.report.commit == release.pair["v2"]
    assert inspection.report.warnings == ()


def test_a_release_that_cannot_be_loaded_does_not_replace_the_one_that_serves(
    served: LoopbackHub, service: Service, release: Release, without_pause: None
) -> None:
    service.inspect(PICTURE, revision="main")
    repo = served.repo(PAIR)
    repo.commit("main", [(INSPECTOR_FILE, b"{}")], "broken", "alice")
    inspection = service.inspect(PICTURE, revision="main")
    assert inspection.report.commit == release.pair["v2"]
    assert "inspector.json" in only_warning(inspection)
    with pytest.raises(ModelLoadError):
        new_service().inspect(PICTURE, revision="main")
    whole = (release.folder / "v1" / "inspector" / INSPECTOR_FILE).read_bytes()
    mended = repo.commit("main", [(INSPECTOR_FILE, whole)], "mended", "alice")
    report = service.inspect(PICTURE, revision="main").report
    assert (report.commit, report.warnings) == (mended, ())


def test_a_repo_that_is_closed_or_deleted_goes_on_serving(
    served: LoopbackHub, service: Service, release: Release, monkeypatch: pytest.MonkeyPatch, without_pause: None
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_loopback_bob")
    served.set_private(PAIR)
    assert "no such repo" in only_warning(service.inspect(PICTURE, revision="v1"))
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert "set HF_TOKEN" in only_warning(service.inspect(PICTURE, revision="v1"))
    served.repo(PAIR).delete()
    report = service.inspect(PICTURE, revision="v1").report
    assert report.commit == release.pair["v1"]


def test_a_local_folder_that_vanishes_goes_on_serving(release: Release, tmp_path: Path) -> None:
    store_locally(release, tmp_path / "local")
    service = Service(Settings(inspectors=(str(tmp_path / "local"),)))
    before = service.inspect(PICTURE).report
    shutil.rmtree(tmp_path / "local")
    after = service.inspect(PICTURE)
    assert (after.report.revision, after.report.commit) == (before.revision, before.commit)
    assert "holds no repo" in only_warning(after)


# A Hub that comes and goes


def stop(hub: LoopbackHub) -> None:
    hub.stop()


def too_many(hub: LoopbackHub) -> None:
    hub.fail_next(path_contains="/", status=429, times=99)


def broken(hub: LoopbackHub) -> None:
    hub.fail_next(path_contains="/", status=500, times=99)


def silent(hub: LoopbackHub) -> None:
    hub.fail_next(path_contains="/", delay_s=2, times=99)


@pytest.mark.parametrize("trouble", [stop, too_many, broken, silent])
def test_a_hub_in_trouble_goes_unnoticed_but_for_a_warning(
    served: LoopbackHub, service: Service, release: Release, trouble: Callable[[LoopbackHub], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(registry, "ANSWER_S", 0.6)
    known = service.revisions()
    before = scores(service.inspect(PICTURE, revision="v1"))
    monkeypatch.setattr(service_module, "_LIST_S", 0.0)
    trouble(served)
    served.log.clear()
    assert service.revisions() == known
    inspection = service.inspect(PICTURE, revision="v1")
    assert inspection.report.commit == release.pair["v1"]
    assert scores(inspection) == before
    assert "the Hub" in only_warning(inspection)
    asked = len(served.log)
    started = time.monotonic()
    service.inspector(revision="v1")
    assert time.monotonic() - started < 0.6  # the Hub is left in peace for a while, and nobody waits for it
    assert len(served.log) == asked
    assert only_warning(service.inspect(PICTURE, revision="v1")) == only_warning(inspection)
    assert service.inspect(PICTURE, revision=release.pair["v2"]).report.warnings == ()
    with pytest.raises(HubUnreachableError):
        service.inspect(PICTURE, revision="never-seen")
    with pytest.raises(HubUnreachableError):
        new_service().inspect(PICTURE)


def test_a_hub_that_is_back_is_used_again(served: LoopbackHub, service: Service, without_pause: None) -> None:
    served.stop()
    assert service.inspect(PICTURE, revision="v1").report.warnings
    served.start()
    assert service.inspect(PICTURE, revision="v1").report.warnings == ()


def test_a_new_process_without_a_hub_serves_a_commit_that_is_here(
    served: LoopbackHub, service: Service, release: Release
) -> None:
    served.stop()
    fresh = new_service()
    report = fresh.inspect(PICTURE, revision=release.pair["v1"]).report
    assert (report.commit, report.warnings) == (release.pair["v1"], ())
    with pytest.raises(HubUnreachableError, match="a full commit that was downloaded before"):
        fresh.inspect(PICTURE, revision="v1")
