"""An inspector's next revision from new good parts: the same weights, every member calibrated anew.

Its policies stay, but for p-values that fewer good parts cannot give.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from anomaly import hub, local_repo
from anomaly.calibration import Calibration, CalibrationFile, read_calibration
from anomaly.cards import write_card
from anomaly.datasets import GOOD, Sample, read_dataset
from anomaly.emissions import EmissionsMeter
from anomaly.errors import DataError, RepoNotFoundError
from anomaly.evaluation import evaluate, hardware, versions
from anomaly.figures import DataFigures, InspectorMetrics, ModelMetrics
from anomaly.hub_data import local_data
from anomaly.inspector import INSPECTOR_FILE, Inspector, InspectorFile, Member
from anomaly.loading import load_at
from anomaly.model_repo import CARD_FILES, MODEL_FILES
from training.cross_validated import within_reach
from training.manifest import Manifest
from training.new_parts import NewParts, check_new, in_words, recalibrated, words_of, write_model

Layout = Literal["auto", "folder", "mvtec", "visa"]


def recalibrate_inspector(
    source: str,
    parts: NewParts,
    *,
    revision: str | None,
    out: Path | None,
    tag: str | None,
    data: Path | str | None,
    layout: Layout,
    manifests: Sequence[Path],
    meter: EmissionsMeter,
) -> str:
    """Releases every member with its new calibration, and an inspector that names them.

    Args:
        source: a Hub repo id or a folder in the Hub's cache layout.
        parts: new good parts.
        revision: to start from; `main` by default.
        out: another folder in that layout; None to release it where it is.
        tag: of the new revision.
        data: test pictures to measure; without any the new revision has no figures, for the old ones do not hold.
        layout: of the data.
        manifests: of the runs that the members were made in, to refuse what they have seen.
        meter: of emissions.

    Returns:
        The new commit.

    Raises:
        DataError, CalibrationError: the parts are not new, or too few.
        RegistryError: the inspector cannot be had, or the tag is taken.
        PolicyError: one of its policies asks for more than the new good parts can give.
    """
    for file in manifests:
        check_new(parts, Manifest.model_validate_json(file.read_bytes()))
    place = hub.parse_source(source)
    commit = hub.resolve(place, revision)
    loaded = load_at(place, commit, revision or "main", meter=meter)
    category = loaded.file.category
    samples = _test_pictures(data, layout, category)
    target = dataclasses.replace(place, folder=out) if out is not None else place
    _check_free(target, tag)
    split_hash = parts.manifest(category).split_hash
    members = {
        name: dataclasses.replace(
            member, calibration=recalibrated(member.detector, member.calibration, parts, split_hash)
        )
        for name, member in loaded.members.items()
    }
    calibrations = {name: member.calibration for name, member in members.items()}
    policies = tuple(within_reach(policy, calibrations) for policy in loaded.file.policies)
    kept = loaded.file.model_copy(update={"policies": policies})
    checked = Inspector(  # refuses a policy that could not fire any more, before anything is written
        kept, list(members.values()), source=source, revision="new", commit="0" * 40, meter=meter
    )
    if raised := [policy.name for policy in policies if policy not in loaded.file.policies]:
        least = max(calibration.smallest_p_value for calibration in calibrations.values())
        print(f"{', '.join(raised)}: p-values below {least:.4f} become that, the least that these good parts can give")
    refs = []
    for name, member in members.items():
        with TemporaryDirectory() as work:
            files = _write_member(Path(work), place, member, category, parts)
            at = _publish(Path(work), target, member.ref.repo, files, None)
        refs.append(member.ref.model_copy(update={"commit": at}))
        print("\n".join(in_words(name, loaded.members[name].calibration, member.calibration)))
    new = kept.model_copy(update={"members": tuple(refs)})
    with TemporaryDirectory() as work:
        files = _write_inspector(Path(work), place, commit, new, checked, samples, data, parts)
        made = _publish(Path(work), target, place.repo_id, files, tag)
    if not manifests:
        print(
            "not checked: whether the members were trained on these pictures; give --manifests of their runs for that"
        )
    print(f"released {place.repo_id}@{made}" + (f" as {tag}" if tag else "") + f"; {commit[:12]} stays")
    return made


def _check_free(target: hub.Source, tag: str | None) -> None:
    """Before the members are released: an inspector that cannot be tagged afterwards would leave them there alone."""
    if tag is None:
        return
    local_repo.check_tag(tag)
    try:
        there = {revision.name: revision.commit for revision in hub.list_revisions(target) if revision.kind == "tag"}
    except RepoNotFoundError:
        return
    local_repo.check_free(target.repo_id, tag, there)


def _test_pictures(data: Path | str | None, layout: Layout, category: str) -> Sequence[Sample]:
    if data is None:
        return ()
    root, _ = local_data(str(data))
    if not (samples := read_dataset(root, category, layout).test):
        raise DataError(f"{data} has no test pictures; put some into test/<class>")
    return samples


def _write_member(folder: Path, place: hub.Source, member: Member, category: str, parts: NewParts) -> tuple[str, ...]:
    """The files of a member's new revision; a card only where it had one."""
    home = place.sibling(member.ref.repo)
    with_card = hub.holds(home, member.ref.commit, "metrics.json")
    old = hub.download(home, member.ref.commit, (*MODEL_FILES, "metrics.json") if with_card else MODEL_FILES)
    known = read_calibration(old / "calibration.json").categories
    write_model(folder, old, CalibrationFile(categories={**known, category: member.calibration}))
    if not with_card:
        return MODEL_FILES
    metrics = ModelMetrics.model_validate_json((old / "metrics.json").read_bytes())
    update: dict[str, object] = {"settings": {**metrics.settings, "recalibrated": words_of(member.calibration, parts)}}
    if metrics.by_category:
        of = metrics.by_category[category]
        found = of.model_copy(update={"data": _data(of.data, member.calibration), "test": None})
        update["by_category"] = {**metrics.by_category, category: found}
    else:
        update |= {"data": _data(metrics.data, member.calibration), "test": None}
    (folder / "metrics.json").write_text(metrics.model_copy(update=update).model_dump_json(indent=1) + "\n")
    write_card(folder, None if place.folder else member.ref.repo)
    return (*MODEL_FILES, *CARD_FILES)


def _data(data: DataFigures, new: Calibration) -> DataFigures:
    calibrate_counts = {**data.counts.get("calibrate", {}), GOOD: len(new.good_scores)}
    counts = {**data.counts, "calibrate": calibrate_counts}
    return data.model_copy(update={"split_hash": new.split_hash, "counts": counts})


def _write_inspector(
    folder: Path,
    place: hub.Source,
    commit: str,
    file: InspectorFile,
    checked: Inspector,
    samples: Sequence[Sample],
    data: Path | str | None,
    parts: NewParts,
) -> tuple[str, ...]:
    (folder / INSPECTOR_FILE).write_text(file.model_dump_json(indent=1) + "\n")
    calibrations = [member.calibration for member in checked.members.values()]
    words = f"Recalibrated {words_of(calibrations[0], parts)}, from `{commit}`, without training.\n"
    if samples and hub.holds(place, commit, "metrics.json"):
        before = hub.download(place, commit, ["metrics.json"]) / "metrics.json"
        found = evaluate(checked, samples, data=Path(str(data)).name, split="test", progress=True)
        old = InspectorMetrics.model_validate_json(before.read_bytes())
        figures = _data(old.data, calibrations[0])
        figures = figures.model_copy(update={"counts": {**figures.counts, "test": found.counts}})
        metrics = old.model_copy(
            update={
                "data": figures,
                "members": found.members,
                "policies": found.policies,
                "hardware": hardware(),
                "country": checked.meter.country,
                "versions": versions(),
                "held_out": dict.fromkeys(old.held_out),  # they were counted at the old thresholds
            }
        )
        (folder / "metrics.json").write_text(metrics.model_dump_json(indent=1) + "\n")
        card = write_card(folder, None if place.folder else place.repo_id)
        card.write_text(card.read_text() + f"\n## This release\n\n{words}")
        return INSPECTOR_FILE, *CARD_FILES
    text = f"# {file.category}: inspector\n\n{words}Not measured on test pictures since; older figures do not hold.\n"
    (folder / "README.md").write_text(text)
    return INSPECTOR_FILE, "README.md"


def _publish(folder: Path, place: hub.Source, repo: str, files: Sequence[str], tag: str | None) -> str:
    if place.folder is not None:
        return hub.store(folder, place.folder, repo, files=files, tag=tag)
    return hub.push(folder, repo, files=files, message=f"Vigie {tag or 'model'}, recalibrated", tag=tag)
