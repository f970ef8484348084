"""An inspector's next revision with other policies: the same members at the same commits, measured anew."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from anomaly import hub
from anomaly.cards import write_card
from anomaly.costs import Outcomes
from anomaly.datasets import Sample, read_dataset
from anomaly.emissions import EmissionsMeter
from anomaly.errors import DataError, PolicyError
from anomaly.evaluation import counting_threshold, evaluate, hardware, policy_figures, versions
from anomaly.figures import InspectorMetrics
from anomaly.hub_data import local_data
from anomaly.inspector import INSPECTOR_FILE, Inspector, InspectorFile
from anomaly.loading import load_at
from anomaly.model_repo import CARD_FILES
from anomaly.policy import Policy, read_policy
from anomaly.votes_file import VOTES_FILE, VotesFile
from training.cross_validated import grid_of, held_out
from training.joint_votes import Joint, LayoutChoice, figures_counted, joint_of
from training.votes_file import joint_from, read_votes, scored_from


def edited(policies: Sequence[Policy], files: Sequence[Path]) -> tuple[Policy, ...]:
    """The policies with those of these files: in place of the one of that name, or added.

    Raises:
        PolicyError: a file is no policy, or two have one name.
    """
    found = {policy.name: policy for policy in policies}
    new: dict[str, Path] = {}
    for file in files:
        policy = read_policy(file)
        if policy.name in new:
            raise PolicyError(f"{file} and {new[policy.name]} are both called {policy.name!r}: leave one of them out")
        found[policy.name], new[policy.name] = policy, file
    return tuple(found.values())


def revise(
    inspector: str,
    files: Sequence[Path],
    *,
    revision: str | None = None,
    tag: str | None = None,
    note: str | None = None,
    default: str | None = None,
    data: Path | str | None = None,
    layout: LayoutChoice = "auto",
    country: str = "USA",
    cpu_power_w: float | None = None,
    manifest: Path | None = None,
) -> str:
    """Releases the same members with other policies, where the inspector is.

    Args:
        inspector: a Hub repo id or a local folder in the Hub's cache layout.
        files: policies as JSON.
        revision: to start from; `main` by default.
        tag: of the new revision.
        note: what it is for, one sentence in its card.
        default: name of the policy that decides by default; the same as before without it.
        data: the test pictures that the inspector was measured on, to measure anew; by default new policies are
            measured on the votes in its votes.json.
        layout: of the data.
        country: for the estimate of emissions.
        cpu_power_w: likewise.
        manifest: manifest.json of a run of its split; the data then holds the calibration pictures, too, and what
            policies cost is counted on these. Without it that is not known of a policy that is new.

    Returns:
        The commit, an old one where nothing would change.

    Raises:
        PolicyError: a policy is wrong.
        DataError: the pictures are not the ones.
        RegistryError, ModelLoadError: the inspector cannot be had.
    """
    place = hub.parse_source(inspector)
    commit = hub.resolve(place, revision)
    folder = hub.download(place, commit, [INSPECTOR_FILE, *CARD_FILES])
    loaded = load_at(place, commit, revision or "main", meter=EmissionsMeter(country, cpu_power_w))
    old = loaded.file
    update = {"policies": edited(old.policies, files), "default_policy": default or old.default_policy}
    file = old.model_copy(update=update)
    changed = Inspector(
        file, list(loaded.members.values()), source=inspector, revision="new", commit="0" * 40, meter=loaded.meter
    )  # refuses what is wrong
    if file == old and note is None and tag is None:
        return commit
    before = InspectorMetrics.model_validate_json((folder / "metrics.json").read_bytes())
    votes = read_votes(loaded, place)
    new = tuple(policy for policy in file.policies if policy not in old.policies)
    if data is None and votes is not None and votes.test:
        metrics = _derived(before, changed, new, votes)
    else:
        found = evaluate(
            changed, _tested(before, file, data, layout), data=before.data.name, split="test", progress=True
        )
        metrics = before.model_copy(
            update={
                "members": found.members,
                "policies": found.policies,
                "hardware": hardware(),
                "country": country,
                "versions": versions(),
            }
        )
    joint = None
    if manifest is not None:
        joint = joint_of(changed, place, manifest, data, layout)
    elif votes is not None and votes.calibrate:
        joint = joint_from(votes, changed)
    held: dict[str, Outcomes | None] = {policy.name: before.held_out.get(policy.name) for policy in file.policies}
    held |= dict.fromkeys((policy.name for policy in new), None) | counted(new, changed, joint)
    metrics = metrics.model_copy(update={"held_out": held if any(held.values()) else {}})
    with TemporaryDirectory() as work:
        if votes is not None:
            (Path(work) / VOTES_FILE).write_text(votes.model_dump_json() + "\n", encoding="utf-8")
        return publish(Path(work), place, file, metrics, tag=tag, note=note)


def _derived(before: InspectorMetrics, changed: Inspector, new: Sequence[Policy], votes: VotesFile) -> InspectorMetrics:
    """The figures with those of new policies from the votes of the release: nothing is scored again.

    What needs heatmaps is not known of these.
    """
    scored = scored_from(votes, changed)
    members = {
        name: figures.model_copy(update={"threshold": key, **figures.at[key].model_dump()})
        for name, figures in before.members.items()
        if (key := counting_threshold(changed, name))
    }
    policies = before.policies | {p.name: policy_figures(scored, changed.policies[p.name]) for p in new}
    kept = {policy.name: policies[policy.name] for policy in changed.file.policies}
    return before.model_copy(update={"members": members, "policies": kept})


def counted(policies: Sequence[Policy], inspector: Inspector, joint: Joint | None) -> dict[str, Outcomes | None]:
    """What each policy does with calibration pictures that its thresholds were not set on; {}, said why, if unknown."""
    if joint is None or not policies:
        return {}
    known = {name: member.calibration for name, member in inspector.members.items()}
    try:
        return dict(held_out(policies, known, joint, inspector.file.category, grid_of(inspector.meter)))
    except DataError as error:
        print(f"what the policies cost is not known: {error}")
        return {}


def publish(
    folder: Path,
    place: hub.Source,
    file: InspectorFile,
    metrics: InspectorMetrics,
    *,
    tag: str | None,
    note: str | None,
) -> str:
    """Writes an inspector's files into a folder, votes.json may be there already, and releases them; the commit."""
    (folder / INSPECTOR_FILE).write_text(file.model_dump_json(indent=1) + "\n")
    (folder / "metrics.json").write_text(metrics.model_dump_json(indent=1) + "\n")
    write_card(folder, None if place.folder else place.repo_id)
    if note:
        card = folder / "README.md"
        card.write_text(card.read_text() + f"\n## This release\n\n{note}\n")
    files = (INSPECTOR_FILE, *CARD_FILES, *((VOTES_FILE,) if (folder / VOTES_FILE).is_file() else ()))
    if place.folder:
        return hub.store(folder, place.folder, place.repo_id, files=files, tag=tag)
    return hub.push(folder, place.repo_id, files=files, message=note or f"Vigie {tag or ''}", tag=tag)


def _tested(
    before: InspectorMetrics, file: InspectorFile, data: Path | str | None, layout: LayoutChoice
) -> list[Sample]:
    """The test pictures of the data, as many of each label as the inspector was measured on."""
    if data is None:
        raise DataError(
            f"other policies have to be measured: give --data with the test pictures of {before.data.name!r}, "
            f"{before.data.counts.get('test', {})}"
        )
    root, _ = local_data(str(data))
    samples = list(read_dataset(root, file.category, layout).test)
    counts = figures_counted(samples)
    if counts != before.data.counts.get("test"):
        raise DataError(
            f"{data} has the test pictures {counts}, the inspector was measured on {before.data.counts.get('test')}: "
            "give --data with the same pictures, or release the runs anew with --members and --policy"
        )
    return samples
