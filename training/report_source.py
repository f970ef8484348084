"""What a report is about: finished runs or a released inspector, with the pictures that none of them has seen."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from anomaly import hub
from anomaly.calibration import read_calibration
from anomaly.datasets import GOOD, Sample, read_dataset
from anomaly.emissions import EmissionsMeter
from anomaly.errors import DataError, ModelLoadError
from anomaly.figures import ModelMetrics
from anomaly.hub_data import local_data
from anomaly.inspector import Inspector, InspectorFile, Member, MemberRef
from anomaly.loading import load_inspector
from anomaly.model_repo import MODEL_FILES, file_sha256, load_detector
from training.finish import RUN, manifest_path
from training.manifest import Manifest
from training.release import default_policies, kept_apart_samples

Layout = Literal["auto", "folder", "mvtec", "visa"]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a member is from."""

    folder: Path  # of its model files
    metrics: ModelMetrics | None  # None where no metrics.json lies beside them


@dataclass(frozen=True, slots=True)
class Subject:
    """What a report is about."""

    inspector: Inspector
    samples: tuple[Sample, ...]
    data: str  # name of the data
    pictures: str  # which of its pictures, in words
    origins: Mapping[str, Origin]  # by member
    manifests: Mapping[str, Manifest]  # by member; none for a member that came without
    notes: tuple[str, ...] = ()


def subject(
    sources: Sequence[str],
    data: str,
    *,
    category: str | None,
    layout: Layout,
    revision: str | None,
    meter: EmissionsMeter,
) -> Subject:
    """Finds out what the sources are.

    Args:
        sources: folders of finished runs, folders with `runs/` of them, or one inspector as `anomaly.hub` takes it.
        data: folder of pictures, or hf://datasets/ORG/NAME@REVISION.
        category: for runs over several.
        layout: of the data.
        revision: of an inspector.
        meter: of emissions.

    Raises:
        DataError: the sources do not go together, or the pictures are not those that the runs kept apart.
        ModelLoadError, RegistryError: a model or an inspector cannot be had.
    """
    if not (folders := [folder for source in sources for folder in _runs(Path(source))]):
        if len(sources) > 1:
            raise DataError(f"{list(sources)}: several sources can only be folders of finished runs ({RUN} in them)")
        return _of_inspector(sources[0], data, layout, revision, meter)
    if lost := [source for source in sources if not _runs(Path(source))]:
        raise DataError(f"{lost[0]} is no finished run: it has neither {RUN} nor runs/*/{RUN}")
    return _of_runs(folders, data, category, layout, meter)


def _runs(folder: Path) -> list[Path]:
    """The finished runs in a folder, by name: the folder itself, or those in its `runs`."""
    if (folder / RUN).is_file():
        return [folder]
    return sorted(path.parent for path in folder.glob(f"runs/*/{RUN}"))


def _of_runs(folders: list[Path], data: str, category: str | None, layout: Layout, meter: EmissionsMeter) -> Subject:
    names = _names(folders)
    origins = {name: Origin(folder, read_metrics(folder)) for name, folder in names.items()}
    category = category or _category(origins)
    manifests = {n: Manifest.model_validate_json(manifest_path(f, category).read_bytes()) for n, f in names.items()}
    tested = {name: _tested(manifest) for name, manifest in manifests.items()}
    first = next(iter(names))
    if other := next((name for name in names if tested[name] != tested[first]), None):
        raise DataError(
            f"{names[first]} and {names[other]} kept different test pictures apart: what one is tested on the other "
            "may have seen; report on them one by one, or train them on the same split"
        )
    samples = kept_apart_samples(names[first], category, data, layout)
    members = []
    for name, folder in names.items():
        loaded = load_detector(folder)
        if category not in loaded.calibrations.categories:
            raise DataError(
                f"{folder} is calibrated for {sorted(loaded.calibrations.categories)}, not for {category!r}"
            )
        sha256 = file_sha256(folder / "model.safetensors")
        ref = MemberRef(name=name, repo="local/run", commit="0" * 40, sha256=sha256)
        members.append(Member(ref, loaded.detector.select(category), loaded.calibrations.categories[category]))
    calibrations = {member.ref.name: member.calibration for member in members}
    notes = []
    if len({calibration.split_hash for calibration in calibrations.values()}) > 1:
        notes.append(
            "The runs were calibrated on different splits with the same test pictures: their members can be compared, "
            "but the policies below would not be released like this."
        )
    file = InspectorFile(
        category=category,
        labels=tuple(sorted({GOOD, *(sample.label for sample in samples)}, key=lambda label: (label != GOOD, label))),
        members=tuple(member.ref for member in members),
        policies=default_policies(calibrations),
        default_policy="majority",
    )
    source = ", ".join(str(folder) for folder in folders)
    inspector = Inspector(file, members, source=source, revision="runs", commit="0" * 40, meter=meter)
    _, name = local_data(data)
    words = "the test pictures that the runs kept apart, by their manifest"
    return Subject(inspector, tuple(samples), name, words, origins, manifests, tuple(notes))


def _names(folders: list[Path]) -> dict[str, Path]:
    """What each run is called; with their folder where two are called the same."""
    said = [str(json.loads((folder / RUN).read_text())["member"]) for folder in folders]
    names: dict[str, Path] = {}
    for name, folder in zip(said, folders, strict=True):
        tail = "/".join(folder.resolve().parts[-2:])
        unique = name if said.count(name) == 1 else f"{name} ({tail})"
        if unique in names:
            raise DataError(f"{folder} and {names[unique]} cannot be told apart: leave one of them out")
        names[unique] = folder
    return names


def _category(origins: Mapping[str, Origin]) -> str:
    known: set[str] = set()
    for origin in origins.values():
        known |= set(read_calibration(origin.folder / "calibration.json").categories)
    if len(known) > 1:
        raise DataError(f"the runs are of several categories, {sorted(known)}: say which with --category")
    return known.pop()


def _tested(manifest: Manifest) -> dict[str, str]:
    return {entry.path: entry.sha256 for entry in manifest.entries if entry.split == "test"}


def read_metrics(folder: Path) -> ModelMetrics | None:
    """metrics.json beside a model, None where there is none. Raises ModelLoadError for one that is not right."""
    path = folder / "metrics.json"
    if not path.is_file():
        return None
    try:
        return ModelMetrics.model_validate_json(path.read_bytes())
    except ValueError as error:
        raise ModelLoadError(f"{path}: {error}") from error


def _of_inspector(source: str, data: str, layout: Layout, revision: str | None, meter: EmissionsMeter) -> Subject:
    inspector = load_inspector(source, revision, meter=meter)
    place = hub.parse_source(source)
    origins = {}
    for name, member in inspector.members.items():
        home = place.sibling(member.ref.repo)
        files = (*MODEL_FILES, "metrics.json") if hub.holds(home, member.ref.commit, "metrics.json") else MODEL_FILES
        folder = hub.download(home, member.ref.commit, files)
        origins[name] = Origin(folder, read_metrics(folder))
    root, name = local_data(data)
    check_unseen(origins, name)
    dataset = read_dataset(root, inspector.file.category, layout)
    if not dataset.test:
        raise DataError(f"{data} has no test pictures; put some into test/<class>, or name the folders of the runs")
    note = (
        "A released inspector does not carry the list of the pictures that it was made from. These are the test "
        "folder's; that none of them was trained on rests on that folder being the one that was kept apart."
    )
    words = "the data's test folder"
    return Subject(inspector, dataset.test, name, words, origins, {}, (note,))


def check_unseen(origins: Mapping[str, Origin], data: str) -> None:
    """Raises DataError where a member was trained on a part of the test folder of data of that name."""
    for name, origin in origins.items():
        protocol = origin.metrics.settings.get("protocol", "mvtec") if origin.metrics else "mvtec"
        if protocol != "mvtec" and origin.metrics and origin.metrics.data.name == data:
            raise DataError(
                f"{name} was trained with --protocol {protocol}, which takes pictures of the test folder of {data}: "
                "name the folders of the runs, whose manifests say which pictures were kept apart"
            )
