"""One picture, inspected twice: with two revisions, or two policies. What `/compare` and the Compare tab stand on."""

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from anomaly import serving
from anomaly.differences import Differences, differences
from anomaly.errors import DataError, VigieError
from anomaly.render import Exhibit
from anomaly.settings import Settings

SIDES = ("first", "second")
_SHOWN = 100  # characters of what a program sent


class Ask(BaseModel):
    """One side of a comparison; what is empty is the default one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    revision: str = ""
    policy: str = ""


Side = Exhibit | VigieError  # what one side gave, or why it gave nothing
Pair = tuple[Side, Side]


def read_ask(given: object, side: str) -> Ask:
    """One side as a program asks for it.

    Args:
        given: an object with `revision` and `policy`, or nothing.
        side: first or second, for the message.

    Raises:
        DataError: it is anything else.
    """
    try:
        return Ask.model_validate(given or {})
    except ValidationError as error:
        way = "give an object with the texts revision and policy, or one of them"
        raise DataError(f"{side}: {repr(given)[:_SHOWN]} does not say what to compare: {way}") from error


def compare_pair(settings: Settings, path: str, inspector: str, first: Ask, second: Ask) -> Pair:
    """Inspects a picture file twice, by the path that serves. What one side cannot does not stop the other.

    Raises:
        VigieError: neither side can, as the first one tells it.
    """

    def one(ask: Ask) -> Side:
        try:
            return serving.inspect(settings, path, inspector, ask.revision, ask.policy)
        except VigieError as error:
            return error

    pair = one(first), one(second)
    if isinstance(pair[0], VigieError) and isinstance(pair[1], VigieError):
        raise pair[0]
    return pair


def as_json(pair: Pair) -> dict[str, Any]:
    """What `/compare` answers."""
    reports = [None if isinstance(side, VigieError) else side.report for side in pair]
    found = found_in(pair)
    return {
        **{name: report and report.model_dump(mode="json") for name, report in zip(SIDES, reports, strict=True)},
        "differences": found and found.model_dump(mode="json"),
        "errors": {
            name: {"code": side.code, "message": str(side)}
            for name, side in zip(SIDES, pair, strict=True)
            if isinstance(side, VigieError)
        },
    }


def found_in(pair: Pair) -> Differences | None:
    """What differs; None where one side gave nothing."""
    first, second = pair
    if isinstance(first, VigieError) or isinstance(second, VigieError):
        return None
    return differences(first.report, second.report)
