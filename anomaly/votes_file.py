"""votes.json of an inspector: what every member said of its calibration and test pictures, without the pictures."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from anomaly.datasets import GOOD

VOTES_FILE = "votes.json"
Finite = Annotated[float, Field(allow_inf_nan=False)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StoredPart(_Frozen):
    """One picture. By member."""

    label: str
    group: str | None = None  # parts of one group show the same object
    scores: dict[str, Finite]
    failures: dict[str, str] = {}  # why there is no score
    class_shares: dict[str, dict[str, Finite]] = {}  # of type heads
    ms: dict[str, Finite] = {}  # test: as in `Ballot`
    shared_ms: dict[str, Finite] = {}
    mj: dict[str, Finite | None] = {}


class VotesFile(_Frozen):
    """votes.json."""

    format: Literal[1] = 1
    category: str
    split_hash: str
    hardware: str  # of the times and energies
    unit: str  # of `each`
    each: dict[str, Finite]  # what asking a member alone costs
    trunk: dict[str, str]  # member -> fingerprint of what several may stand on
    inputs: dict[str, str]  # member -> `Ballot.inputs`
    calibrate: tuple[StoredPart, ...]
    test: tuple[StoredPart, ...]

    def scores(self, member: str) -> tuple[list[float], list[float]]:
        """Of the good test parts and of the defective ones that a member voted on."""
        sides: tuple[list[float], list[float]] = ([], [])
        for part in self.test:
            if member in part.scores:
                sides[part.label != GOOD].append(part.scores[member])
        return sides
