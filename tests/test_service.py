"""What a running app goes through: revisions that move or vanish, a Hub that comes and goes, many people at once."""

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import HfApi
from loopback_hub import LoopbackHub
from PIL import Image
from pydantic import ValidationError
from released import INSPECTOR, TAGS, Release, picture, release, scores, served, stocked, store_locally

from anomaly import hub as registry
from anomaly import service as service_module
from anomaly.errors import (
    HubUnreachableError,
    ImageError,
    ModelLoadError,
    PolicyError,
    RegistryError,
    RevisionNotFoundError,
)
from anomaly.inspector import INSPECTOR_FILE, Inspection
from anomaly.service import Service
from anomaly.settings import Settings

__all__ = ["release", "served", "stocked"]  # fixtures

PICTURE = Image.fromarray(picture())


def new_service(**settings: object) -> Service:
    return Service(Settings(inspectors=(INSPECTOR,), **settings))


@pytest.fixture
def service(stocked: LoopbackHub) -> Service:
    """Has inspected with both tags."""
    service = new_service()
    for tag in TAGS:
        assert service.inspect(PICTURE, revision=tag).report.warnings == ()
    stocked.log.clear()
    return service


@pytest.fixture
def without_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "_PAUSE_S", 0.0)


def api(hub: LoopbackHub) -> HfApi:
    return HfApi(endpoint=hub.url, token="hf_loopback_alice")


def only_warning(inspection: Inspection) -> str:
    (warning,) = inspection.report.warnings
    return warning


# Requests


def test_a_loaded_tag_costs_one_request_an_inspection(served: LoopbackHub, service: Service) -> None:
    for _ in range(3):
        service.inspect(PICTURE, revision="v1")
    asked = [(method, path.partition("?")[0]) for method, path, _ in served.log]
    assert asked == [("GET", f"/api/models/{INSPECTOR}/revision/v1")] * 3


def test_a_loaded_commit_costs_no_request(served: LoopbackHub, service: Service, release: Release) -> None:
    report = service.inspect(PICTURE, revision=release.commits["v1"]).report
    assert (report.revision, report.commit) == (release.commits["v1"], release.commits["v1"])
    assert served.log == []


def test_revisions_are_listed_once_a_minute(
    served: LoopbackHub, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = [threading.Thread(target=service.revisions) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    listing = [path for _, path, _ in served.log]
    assert listing == [f"/api/models/{INSPECTOR}/refs", f"/api/models/{INSPECTOR}/commits/main"]
    api(served).create_tag(INSPECTOR, tag="v3")
    assert service.default_revision() == "v2"
    monkeypatch.setattr(service_module, "_LIST_S", 0.0)
    assert service.default_revision() == "v3"


def test_the_default_is_the_latest_tag_and_main_without_tags(stocked: LoopbackHub, release: Release) -> None:
    assert new_service().inspect(PICTURE).report.revision == "v2"
    for tag in TAGS:
        api(stocked).delete_tag(INSPECTOR, tag=tag)
    report = new_service().inspect(PICTURE).report
    assert (report.revision, report.commit) == ("main", release.commits["v2"])


# Revisions that move or vanish


def test_a_deleted_tag_goes_on_serving_its_commit_with_a_warning(
    served: LoopbackHub, service: Service, release: Release
) -> None:
    before = scores(service.inspect(PICTURE, revision="v1"))
    api(served).delete_tag(INSPECTOR, tag="v1")
    for _ in range(2):
        inspection = service.inspect(PICTURE, revision="v1")
        assert inspection.report.commit == release.commits["v1"]
        assert scores(inspection) == before
        assert f"no such revision (any more); list them with `revisions`. v1 is served as it was last known: commit {release.commits['v1']}" in only_warning(inspection)  # fmt: skip  # noqa: E501
    assert service.inspect(PICTURE, revision="v2").report.warnings == ()
    with pytest.raises(RevisionNotFoundError):
        new_service().inspect(PICTURE, revision="v1")
    with pytest.raises(RevisionNotFoundError):
        service.inspect(PICTURE, revision="v9")


def test_a_moved_tag_is_followed(served: LoopbackHub, service: Service, release: Release) -> None:
    api(served).delete_tag(INSPECTOR, tag="v1")
    api(served).create_tag(INSPECTOR, tag="v1", revision="v2")
    inspection = service.inspect(PICTURE, revision="v1")
    assert inspection.report.commit == release.commits["v2"]
    assert inspection.report.warnings == ()


def test_a_release_that_cannot_be_loaded_does_not_replace_the_one_that_serves(
    served: LoopbackHub, service: Service, release: Release, without_pause: None
) -> None:
    service.inspect(PICTURE, revision="main")
    repo = served.repo(INSPECTOR)
    repo.commit("main", [(INSPECTOR_FILE, b"{}")], "broken", "alice")
    inspection = service.inspect(PICTURE, revision="main")
    assert inspection.report.commit == release.commits["v2"]
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
    served.set_private(INSPECTOR)
    assert "no such repo" in only_warning(service.inspect(PICTURE, revision="v1"))
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert "set HF_TOKEN" in only_warning(service.inspect(PICTURE, revision="v1"))
    served.repo(INSPECTOR).delete()
    report = service.inspect(PICTURE, revision="v1").report
    assert report.commit == release.commits["v1"]


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
    assert inspection.report.commit == release.commits["v1"]
    assert scores(inspection) == before
    assert "the Hub" in only_warning(inspection)
    asked = len(served.log)
    started = time.monotonic()
    assert only_warning(service.inspect(PICTURE, revision="v1")) == only_warning(inspection)
    assert time.monotonic() - started < 0.6  # the Hub is left in peace for a while, and nobody waits for it
    assert len(served.log) == asked
    assert service.inspect(PICTURE, revision=release.commits["v2"]).report.warnings == ()
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
    report = fresh.inspect(PICTURE, revision=release.commits["v1"]).report
    assert (report.commit, report.warnings) == (release.commits["v1"], ())
    with pytest.raises(HubUnreachableError, match="a full commit that was downloaded before"):
        fresh.inspect(PICTURE, revision="v1")


# Many at once


def test_two_people_on_two_revisions_never_get_each_others_answer(
    served: LoopbackHub, release: Release, service: Service
) -> None:
    expected = {tag: scores(service.inspect(PICTURE, revision=tag)) for tag in TAGS}
    service = new_service()
    seen: dict[str, list[tuple[str, str, object]]] = {tag: [] for tag in TAGS}

    def person(tag: str) -> None:
        for _ in range(20):
            inspection = service.inspect(PICTURE, revision=tag)
            seen[tag].append((inspection.report.revision, inspection.report.commit, scores(inspection)))

    run_all(*(lambda tag=tag: person(tag) for tag in TAGS))
    for tag in TAGS:
        assert seen[tag] == [(tag, release.commits[tag], expected[tag])] * 20


def test_a_revision_that_many_ask_for_is_loaded_once(served: LoopbackHub) -> None:
    service = new_service()
    found = []
    run_all(*[lambda: found.append(service.inspector(revision="v1"))] * 4)
    assert len(found) == 4
    assert len(set(map(id, found))) == 1
    fetched = [path for method, path, _ in served.log if method == "GET" and path.endswith(INSPECTOR_FILE)]
    assert len(fetched) == 1


def test_a_bounded_number_of_inspectors_stays_in_memory_and_the_rest_on_disk(
    stocked: LoopbackHub, release: Release
) -> None:
    service = new_service(loaded_inspectors=1)
    first = service.inspector(revision="v1")
    for tag in (*TAGS, *TAGS):
        assert service.inspector(revision=tag).commit == release.commits[tag]
        assert len(service._loaded) == 1
        assert service._loading == {}
    assert service.inspector(revision="v1") is not first
    assert service.inspector(revision="v1") is service.inspector(revision="v1")
    stocked.log.clear()
    service.inspector(revision="v2")
    assert [path.partition("?")[0] for _, path, _ in stocked.log] == [f"/api/models/{INSPECTOR}/revision/v2"]


def test_what_could_not_be_loaded_leaves_nothing_behind(stocked: LoopbackHub) -> None:
    stocked.repo(INSPECTOR).commit("main", [(INSPECTOR_FILE, b"{}")], "broken", "alice")
    service = new_service()
    failed = []

    def ask() -> None:
        with pytest.raises(ModelLoadError) as caught:
            service.inspector(revision="main")
        failed.append(str(caught.value))

    run_all(*[ask] * 4)
    assert len(failed) == 4
    assert (dict(service._loaded), service._loading) == ({}, {})
    assert service.inspect(PICTURE, revision="v2").report.revision == "v2"


def run_all(*people: Callable[[], object]) -> None:
    threads = [threading.Thread(target=person) for person in people]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# What a person may ask for, and what a deployment sets


def test_wrong_wishes_are_told_apart(service: Service) -> None:
    with pytest.raises(RegistryError, match="this app serves"):
        service.inspect(PICTURE, inspector="somebody/else")
    with pytest.raises(PolicyError, match="unknown policy 'strict'"):
        service.inspect(b"not even a picture", revision="v1", policy="strict")
    with pytest.raises(ImageError):
        service.inspect(b"not even a picture", revision="v1")
    assert service.inspect(PICTURE, inspector=INSPECTOR, revision=" v1 ", policy="any").report.policy == "any"


def test_limits_of_the_deployment_hold(stocked: LoopbackHub, tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    Image.fromarray(np.zeros((100, 100, 3), np.uint8)).save(path)
    service = new_service(max_pixels=9_999)
    with pytest.raises(ImageError, match="10,000 pixels"):
        service.inspect(path, revision="v1")
    service = new_service(max_bytes=path.stat().st_size - 1)
    with pytest.raises(ImageError, match="bytes"):
        service.inspect(path, revision="v1")
    service = new_service(max_bytes=path.stat().st_size, max_pixels=10_000)
    assert service.inspect(path, revision="v1").report.image_width == 100


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIGIE_INSPECTORS", "alice/waves, ./starter ,")
    monkeypatch.setenv("VIGIE_COUNTRY", "FRA")
    monkeypatch.setenv("VIGIE_CPU_POWER_W", "65")
    monkeypatch.setenv("VIGIE_MAX_PIXELS", "1000000")
    settings = Settings()
    assert settings.inspectors == ("alice/waves", "./starter")
    assert (settings.country, settings.cpu_power_w, settings.max_pixels) == ("FRA", 65.0, 1_000_000)


@pytest.mark.parametrize(
    ("name", "value"),
    [("INSPECTORS", ","), ("CPU_POWER_W", "-1"), ("MAX_BYTES", "0"), ("LOADED_INSPECTORS", "0"), ("MAX_PIXELS", "x")],
)
def test_settings_that_make_no_sense_are_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"VIGIE_{name}", value)
    with pytest.raises(ValidationError, match=name.lower()):
        Settings()
