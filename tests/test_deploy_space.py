"""Deploying the Space: what is sent, that nothing is sent twice, and that no secret ever is. On the loopback Hub."""

import shutil
from pathlib import Path

import hub_spaces
import pytest
import yaml
from huggingface_hub import HfApi
from loopback_hub import LoopbackHub
from released import INSPECTOR, PAIR, PAIR_KINDS, Release, file_of, release, served

from anomaly import hub as registry
from anomaly.errors import DataError, HubUnreachableError, ModelLoadError, RegistryError, RepoNotFoundError, VigieError
from training import space_plan
from training.arguments import run
from training.deploy_space import Args, main

__all__ = ["release", "served"]  # fixtures

SPACE = "alice/demo"
FAKE_TOKEN = "hf_" + "Aa1" * 12  # in two parts, so that this file holds nothing that looks like one


def deploy(*inspectors: str, space: str = SPACE, **options: object) -> None:
    main(Args(space=space, inspectors=inspectors or (PAIR,), **options))


def files(hub: LoopbackHub) -> dict[str, bytes]:
    repo = hub.repo(SPACE, "space")
    return {e.path: repo.content_file(e).read_bytes() for e in repo.entries(repo.resolve("main")) if e.is_file}


def front(hub: LoopbackHub) -> dict[str, object]:
    return yaml.safe_load(files(hub)["README.md"].decode().split("---\n")[1])


def state(hub: LoopbackHub) -> hub_spaces.Space:
    return hub_spaces.space(hub.repo(SPACE, "space"))


def commits(hub: LoopbackHub) -> list[str]:
    repo = hub.repo(SPACE, "space")
    return [commit.oid for commit in repo.history(repo.resolve("main"))]


def writes(hub: LoopbackHub) -> list[str]:
    """Changes; the client asks by POST whether a card is valid and how files would go, which changes nothing."""
    asking = ("/validate-yaml", "/preupload/", "/objects/batch")
    return [path for method, path, _ in hub.log if method not in ("GET", "HEAD") and not any(a in path for a in asking)]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what is sent, to change."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    for name in (*space_plan.APP_FILES, "README.md"):
        shutil.copyfile(space_plan.ROOT / name, folder / name)
    shutil.copytree(space_plan.ROOT / "anomaly", folder / "anomaly", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(space_plan, "ROOT", folder)
    return folder


# What a Space gets


def test_a_new_space_has_the_app_its_settings_and_its_hardware(served: LoopbackHub) -> None:
    deploy(INSPECTOR, PAIR, hardware="zero-a10g", private=True, country="FRA", cpu_power_w=15.0)
    sent = files(served)
    assert sent["app.py"] == (space_plan.ROOT / "app.py").read_bytes()
    assert {"app.css", "requirements.txt", "LICENSE", "anomaly/page.py", "anomaly/detectors/__init__.py"} <= sent.keys()
    assert not [name for name in sent if name.startswith(("tests/", "training/", "starter/", "docs/"))]
    assert state(served).variables == {
        "VIGIE_INSPECTORS": f"{INSPECTOR},{PAIR}",
        "VIGIE_COUNTRY": "FRA",
        "VIGIE_CPU_POWER_W": "15",
    }
    assert state(served).hardware == "zero-a10g"
    assert served.repo(SPACE, "space").settings().private
    assert served.repo(SPACE, "space").settings().sdk == "gradio"
    assert len(commits(served)) == 2  # the Hub's own, and ours


def test_the_front_matter_pins_what_the_app_needs(served: LoopbackHub, release: Release) -> None:
    deploy(title="Waves")
    found = front(served)
    pins = dict(line.split("==") for line in (space_plan.ROOT / "requirements.txt").read_text().splitlines()[1:])
    gradio = next(version for name, version in pins.items() if name.split("[")[0] == "gradio")
    assert (found["sdk"], found["sdk_version"]) == ("gradio", gradio)
    assert (found["app_file"], found["license"], found["title"]) == ("app.py", "apache-2.0", "Waves")
    assert found["python_version"] == "3.12.12"
    assert found["emoji"]
    assert found["models"] == sorted([PAIR, *(f"alice/waves-{kind}" for kind in PAIR_KINDS)])
    preload = dict(line.rsplit(" ", 1) for line in found["preload_from_hub"])
    members = {ref.name: ref.commit for ref in file_of(release, "v2").members}
    weights = "config.json,model.safetensors,calibration.json,reference.safetensors"
    assert preload == {f"{PAIR} inspector.json": release.pair["v2"]} | {
        f"alice/waves-{kind} {weights}": members[kind] for kind in PAIR_KINDS
    }


def test_every_preloaded_file_is_at_its_commit(served: LoopbackHub) -> None:
    deploy(INSPECTOR)
    for line in front(served)["preload_from_hub"]:
        repo, names, commit = line.split(" ")
        at_commit = HfApi(endpoint=served.url).list_repo_files(repo, revision=commit)
        assert set(names.split(",")) <= set(at_commit)


def test_the_starter_is_sent_with_the_app_and_needs_no_setting(
    served: LoopbackHub, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(space_plan.ROOT)
    deploy("starter", dry_run=True)
    shown = capsys.readouterr().out
    assert "starter/models--vigie--cable/refs/main" in shown
    assert "starter/examples/1-good.png" in shown
    assert "VIGIE_INSPECTORS unset" in shown
    assert "preload_from_hub" not in shown


# Once, and only what has changed


def test_the_same_call_again_writes_nothing(served: LoopbackHub, capsys: pytest.CaptureFixture[str]) -> None:
    deploy(hardware="cpu-basic", country="FRA")
    before = commits(served)
    served.log.clear()
    capsys.readouterr()
    deploy(hardware="cpu-basic", country="FRA")
    assert commits(served) == before
    assert writes(served) == []
    assert capsys.readouterr().out.splitlines()[-1].endswith("/spaces/alice/demo: up to date")


def test_an_update_changes_what_differs_and_nothing_else(served: LoopbackHub, checkout: Path) -> None:
    deploy(country="FRA")
    api = HfApi(endpoint=served.url, token="hf_loopback_alice")
    api.upload_file(path_or_fileobj=b"mine", path_in_repo="notes.md", repo_id=SPACE, repo_type="space")
    api.add_space_variable(SPACE, "VIGIE_MAX_BYTES", "1000000")
    (checkout / "anomaly" / "cost_panel.py").unlink()
    (checkout / "anomaly" / "new.py").write_text("")
    before = len(commits(served))
    deploy(country="DEU")
    assert state(served).variables == {
        "VIGIE_INSPECTORS": PAIR,
        "VIGIE_COUNTRY": "DEU",
        "VIGIE_MAX_BYTES": "1000000",
    }
    sent = files(served)
    assert "anomaly/new.py" in sent
    assert "anomaly/cost_panel.py" not in sent
    assert sent["notes.md"] == b"mine"
    assert len(commits(served)) == before + 1


def test_a_new_release_changes_the_front_matter(served: LoopbackHub, release: Release, tmp_path: Path) -> None:
    deploy()
    folder = shutil.copytree(release.folder / "v1" / "pair", tmp_path / "v3")
    commit = registry.push(folder, PAIR, files=["inspector.json"], message="third", tag="v3")
    deploy()
    assert f"{PAIR} inspector.json {commit}" in front(served)["preload_from_hub"]
    assert len(commits(served)) == 3


# A dry run


def test_a_dry_run_shows_everything_and_sends_nothing(
    served: LoopbackHub, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LINE_KEY", "a-secret-value")
    deploy(dry_run=True, country="FRA", variables=("VIGIE_MAX_BYTES=2000000",), secrets=("LINE_KEY",))
    shown = capsys.readouterr().out
    for expected in (
        "anomaly/page.py",
        "preload_from_hub:",
        "VIGIE_COUNTRY=FRA",
        "VIGIE_MAX_BYTES=2000000",
        "LINE_KEY",
    ):
        assert expected in shown
    assert "a-secret-value" not in shown
    assert shown.splitlines()[-1] == "dry run: nothing was sent"
    assert {method for method, _, _ in served.log} <= {"GET", "HEAD"}
    assert not served.repo(SPACE, "space").exists()


# Secrets


@pytest.mark.parametrize("text", [FAKE_TOKEN, "hf_loopback_alice", "-----BEGIN " + "PRIVATE KEY-----"])
def test_a_token_in_a_file_is_refused_with_the_name_of_the_file(served: LoopbackHub, checkout: Path, text: str) -> None:
    (checkout / "anomaly" / "settings.py").write_text(f'TOKEN = "{text}"\n')
    with pytest.raises(DataError, match=r"the file anomaly/settings\.py holds what looks like a token") as refused:
        deploy()
    assert text not in str(refused.value)
    assert not served.repo(SPACE, "space").exists()


def test_a_token_in_a_variable_is_refused(served: LoopbackHub) -> None:
    with pytest.raises(DataError, match="the variable VIGIE_DEVICE holds what looks like a token"):
        deploy(variables=(f"VIGIE_DEVICE={FAKE_TOKEN}",))
    assert not served.repo(SPACE, "space").exists()


def test_files_that_are_no_code_stay_here(served: LoopbackHub, checkout: Path) -> None:
    for name in (".env", "notes.txt", "weights.pt"):
        (checkout / "anomaly" / name).write_text("private")
    deploy()
    assert {Path(name).suffix for name in files(served) if name.startswith("anomaly/")} <= set(space_plan.SUFFIXES)


def test_a_secret_goes_over_by_name_and_into_no_file(
    served: LoopbackHub, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LINE_KEY", FAKE_TOKEN)
    deploy(secrets=("LINE_KEY",))
    assert state(served).secrets == {"LINE_KEY": FAKE_TOKEN}
    assert not [name for name, content in files(served).items() if FAKE_TOKEN.encode() in content]
    assert FAKE_TOKEN not in capsys.readouterr().out


def test_no_token_goes_to_the_space_unless_asked_for(served: LoopbackHub) -> None:
    deploy()
    assert state(served).secrets == {}


def test_a_private_inspector_needs_a_token_and_is_not_preloaded(served: LoopbackHub) -> None:
    served.set_private(PAIR)
    with pytest.raises(RegistryError, match=r"alice/pair: private or gated, .* --secrets HF_TOKEN"):
        deploy()
    assert not served.repo(SPACE, "space").exists()
    deploy(secrets=("HF_TOKEN",))
    assert state(served).secrets == {"HF_TOKEN": "hf_loopback_alice"}
    assert not [line for line in front(served)["preload_from_hub"] if line.startswith(PAIR)]
    deploy()  # it has the token


# What can go wrong


@pytest.mark.parametrize(
    ("wrong", "kind", "said"),
    [
        ({"inspectors": ("alice/none",)}, RepoNotFoundError, "alice/none: no such repo"),
        ({"inspectors": ("none",)}, RegistryError, "'none' is neither a folder here nor a Hub repo id"),
        ({"inspectors": ("alice/waves-autoencoder",)}, ModelLoadError, "has no inspector.json"),
        ({"space": "demo"}, DataError, "'demo' is not the name of a Space: give ORG/NAME, such as my-org/demo"),
        ({"space": "bob/demo"}, RegistryError, "bob/demo: HF_TOKEN may not do this"),
        ({"hardware": "t5"}, DataError, "unknown hardware 't5'; huggingface_hub knows cpu-basic"),
        ({"country": "France"}, DataError, "'France' is not an ISO 3166 alpha-3 code"),
        ({"variables": ("VIGIE_COLOUR=red",)}, DataError, "VIGIE_COLOUR: no such setting, the app knows VIGIE_INSP"),
        ({"variables": ("HF_TOKEN=abc",)}, DataError, "--variables takes VIGIE_NAME=VALUE, and secrets are no"),
        ({"secrets": ("NOT_SET",)}, DataError, "--secrets NOT_SET: there is no environment variable of that name"),
        ({"secrets": ("hf_token",)}, DataError, "--secrets takes names of environment variables"),
    ],
)
def test_what_is_wrong_is_said_and_no_space_is_made(
    served: LoopbackHub, wrong: dict[str, object], kind: type[VigieError], said: str
) -> None:
    options = {"space": SPACE, "inspectors": (PAIR,)} | wrong
    with pytest.raises(kind) as error:
        main(Args(**options))
    assert said in str(error.value)
    assert not served.repo(SPACE, "space").exists()


def test_a_local_folder_is_refused_with_the_way_to_push_it(inspector_folder: Path, served: LoopbackHub) -> None:
    with pytest.raises(DataError, match=r"is a folder here, which a Space cannot read: push it first .* --push ORG/N"):
        deploy(str(inspector_folder))


def test_without_a_token_it_says_how_to_get_one(served: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(RegistryError, match="no token: set HF_TOKEN"):
        deploy()


def test_a_hub_that_is_gone_is_one_line_and_exit_code_1(
    served: LoopbackHub, capsys: pytest.CaptureFixture[str]
) -> None:
    served.stop()
    assert run(main, Args, ["--space", SPACE, "--inspectors", PAIR]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_hub_that_fails_in_the_middle_leaves_the_last_app_and_the_next_call_completes_it(
    served: LoopbackHub,
) -> None:
    deploy()
    before = commits(served)
    served.fail_next(path_contains=f"/api/spaces/{SPACE}/commit/", status=500)
    with pytest.raises(HubUnreachableError):
        deploy(title="Other")
    assert commits(served) == before
    deploy(title="Other")
    assert front(served)["title"] == "Other"


def test_the_flags_are_those_of_the_documents() -> None:
    text = (space_plan.ROOT / "docs" / "DEPLOY.md").read_text()
    flags = {f"--{name.replace('_', '-')}" for name in Args.__dataclass_fields__}
    calls = [call.replace("\\\n", " ") for call in text.split("training.deploy_space ")[1:]]
    used = {word for call in calls for word in call.split("```")[0].splitlines()[0].split() if word.startswith("--")}
    assert used <= flags
