"""A running app: what it asks the Hub for, what it keeps, many people at once, and its settings."""

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import HfApi
from loopback_hub import LoopbackHub
from PIL import Image
from pydantic import ValidationError
from released import PAIR, PICTURE, TAGS, Release, new_service, release, scores, served, service, stocked

from anomaly import service as service_module
from anomaly.errors import (
    ImageError,
    ModelLoadError,
    PolicyError,
    RegistryError,
)
from anomaly.inspector import INSPECTOR_FILE
from anomaly.service import Service
from anomaly.settings import Settings

__all__ = ["release", "served", "service", "stocked"]  # fixtures


def api(hub: LoopbackHub) -> HfApi:
    return HfApi(endpoint=hub.url, token="hf_loopback_alice")


# Requests


def test_a_loaded_tag_costs_one_request_an_inspection(served: LoopbackHub, service: Service) -> None:
    for _ in range(3):
        service.inspect(PICTURE, revision="v1")
    asked = [(method, path.partition("?")[0]) for method, path, _ in served.log]
    assert asked == [("GET", f"/api/models/{PAIR}/revision/v1")] * 3


def test_a_loaded_commit_costs_no_request(served: LoopbackHub, service: Service, release: Release) -> None:
    report = service.inspect(PICTURE, revision=release.pair["v1"]).report
    assert (report.revision, report.commit) == (release.pair["v1"], release.pair["v1"])
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
    assert listing == [f"/api/models/{PAIR}/refs", f"/api/models/{PAIR}/commits/main"]
    api(served).create_tag(PAIR, tag="v3")
    assert service.default_revision() == "v2"
    monkeypatch.setattr(service_module, "_LIST_S", 0.0)
    assert service.default_revision() == "v3"


def test_the_default_is_the_latest_tag_and_main_without_tags(stocked: LoopbackHub, release: Release) -> None:
    assert new_service().inspect(PICTURE).report.revision == "v2"
    for tag in TAGS:
        api(stocked).delete_tag(PAIR, tag=tag)
    report = new_service().inspect(PICTURE).report
    assert (report.revision, report.commit) == ("main", release.pair["v2"])


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
        assert seen[tag] == [(tag, release.pair[tag], expected[tag])] * 20


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
        assert service.inspector(revision=tag).commit == release.pair[tag]
        assert len(service._loaded) == 1
        assert service._loading == {}
    assert service.inspector(revision="v1") is not first
    assert service.inspector(revision="v1") is service.inspector(revision="v1")
    stocked.log.clear()
    service.inspector(revision="v2")
    assert [path.partition("?")[0] for _, path, _ in stocked.log] == [f"/api/models/{PAIR}/revision/v2"]


def test_what_could_not_be_loaded_leaves_nothing_behind(stocked: LoopbackHub) -> None:
    stocked.repo(PAIR).commit("main", [(INSPECTOR_FILE, b"{}")], "broken", "alice")
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
    assert service.inspect(PICTURE, inspector=PAIR, revision=" v1 ", policy="any").report.policy == "any"


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
