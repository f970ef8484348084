"""votes.json of an inspector, from the votes and back: a policy is made, edited, priced and measured from the release
alone. It holds scores, which a member at its commit gives again; thresholds are those of the calibrations beside it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from anomaly import hub
from anomaly.datasets import Sample
from anomaly.errors import DataError
from anomaly.evaluation import Row, Scored
from anomaly.inspector import Ballot, Inspector
from anomaly.policy import Failure, Vote, cast_vote
from anomaly.votes_file import VOTES_FILE, StoredPart, VotesFile
from training.joint_votes import Joint, Part, Price


def stored(inspector: Inspector, joint: Joint, rows: Sequence[Row], hardware: str) -> VotesFile:
    """What is to be kept.

    Args:
        inspector: whose members voted.
        joint: on the calibration pictures.
        rows: on the test pictures.
        hardware: that they were scored on.
    """
    tested = []
    for row in rows:
        part = _stored(Part(row.sample.label, {name: ballot.vote for name, ballot in row.ballots.items()}))
        times = {
            "ms": {name: ballot.duration_ms for name, ballot in row.ballots.items()},
            "shared_ms": {name: ballot.shared_ms for name, ballot in row.ballots.items()},
            "mj": dict(row.energy_mj),
        }
        tested.append(part.model_copy(update=times))
    return VotesFile(
        category=inspector.file.category,
        split_hash=_split_hash(inspector),
        hardware=hardware,
        unit=joint.price.unit,
        each=dict(joint.price.each),
        trunk=dict(joint.price.trunk),
        inputs={name: ballot.inputs for name, ballot in rows[0].ballots.items()} if rows else {},
        calibrate=tuple(_stored(part) for part in joint.parts),
        test=tuple(tested),
    )


def read_votes(inspector: Inspector, place: hub.Source) -> VotesFile | None:
    """That of a released inspector; None where it has none.

    Raises:
        DataError: it is of another split than the calibrations.
        RegistryError: it cannot be had.
    """
    if not hub.holds(place, inspector.commit, VOTES_FILE):
        return None
    path: Path = hub.download(place, inspector.commit, [VOTES_FILE]) / VOTES_FILE
    found = VotesFile.model_validate_json(path.read_bytes())
    if found.split_hash != _split_hash(inspector):
        raise DataError(
            f"{VOTES_FILE} of {place.repo_id} is of split {found.split_hash[:12]}, its members are calibrated on "
            f"{_split_hash(inspector)[:12]}: release the inspector again"
        )
    return found


def joint_from(found: VotesFile, inspector: Inspector, split: Literal["calibrate", "test"] = "calibrate") -> Joint:
    """The votes on a split, as the members are calibrated.

    Raises:
        DataError: there are none.
    """
    parts = found.calibrate if split == "calibrate" else found.test
    if not parts:
        raise DataError(f"{VOTES_FILE} holds no votes on {split} pictures")
    return Joint(
        tuple(Part(part.label, _votes(part, inspector), part.group) for part in parts),
        Price(found.each, found.trunk, found.unit),
    )


def scored_from(found: VotesFile, inspector: Inspector) -> Scored:
    """The test pictures as `evaluation.score` gives them, without heatmaps and masks."""
    rows = []
    for index, part in enumerate(found.test):
        name = f"test/{index:04}"
        sample = Sample(Path(name), name, part.label, "test", None)
        ballots = {
            member: Ballot(vote, part.ms[member], inputs=found.inputs[member], shared_ms=part.shared_ms[member])
            for member, vote in _votes(part, inspector).items()
        }
        rows.append(Row(sample, (0, 0), ballots, part.mj))
    return Scored(inspector, tuple(rows), (), {}, {})


def _stored(part: Part) -> StoredPart:
    cast = {name: vote for name, vote in part.votes.items() if isinstance(vote, Vote)}
    return StoredPart(
        label=part.label,
        group=part.group,
        scores={name: vote.score for name, vote in cast.items()},
        failures={name: vote.reason for name, vote in part.votes.items() if isinstance(vote, Failure)},
        class_shares={name: dict(vote.class_shares) for name, vote in cast.items() if vote.class_shares},
    )


def _votes(part: StoredPart, inspector: Inspector) -> dict[str, Vote | Failure]:
    return {
        name: cast_vote(name, part.scores[name], member.calibration, part.class_shares.get(name))
        if name in part.scores
        else Failure(name, part.failures.get(name, "it gave no vote"))
        for name, member in inspector.members.items()
    }


def _split_hash(inspector: Inspector) -> str:
    return next(iter(inspector.members.values())).calibration.split_hash
