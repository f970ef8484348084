"""A policy as data: rules, cuts, exceptions. What they mean is said here, `anomaly.policy` does it.

Format 1 grows by new kinds of rule and by optional keys only: what an older version wrote means the same for ever, and
what a version does not know it refuses, by its key.
"""

from collections.abc import Callable
from functools import cache
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_serializer, model_validator

from anomaly.calibration import ThresholdName

Verdict = Literal["ok", "defect", "review"]
Text = dict[Literal["en", "fr"], str]
Members = Annotated[tuple[str, ...], Field(min_length=1)]
Weight = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Terse(_Frozen):
    """Written without the keys that are not given."""

    @model_serializer(mode="wrap")
    def _terse(self, write: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        return {key: value for key, value in write(self).items() if value is not None and value != ()}


class Cut(_Terse):
    """A line in what one member says, in one of four units. A vote at the line or beyond it *reaches* it.

    Whatever the unit, a vote that reaches it still does with a higher score.
    """

    threshold: ThresholdName | None = None  # reached by score >= the member's own threshold of that name
    p_value: Annotated[float, Field(gt=0, lt=1)] | None = None  # reached by a p-value of this or less
    probability: Annotated[float, Field(gt=0, le=1)] | None = None  # reached by a probability of this or more
    score: Annotated[float, Field(allow_inf_nan=False)] | None = None  # reached by a score of this or more, own units

    @model_validator(mode="after")
    def _one_unit(self) -> Self:
        if sum(value is not None for _, value in self) != 1:
            raise ValueError("give exactly one of threshold, p_value, probability and score")
        return self

    def __str__(self) -> str:
        if self.threshold is not None:
            return self.threshold
        if self.score is not None:
            return f"score ≥ {self.score:.6g}"
        return f"p ≤ {self.p_value:g}" if self.p_value is not None else f"P ≥ {self.probability:g}"


@cache  # one of these is asked for at every vote
def _cut_at(threshold: ThresholdName) -> Cut:
    return Cut(threshold=threshold)


class ReviewBand(Cut):
    """Where a member below its threshold is unsure; of a weighted rule, a probability: where the mean is."""


class Rule(_Frozen):
    """How many members at or above their threshold make a defect.

    `any`: one. `majority`: more than half of those that voted; half is a tie and a review. `all`: every one. `single`:
    there is only one member. For `any` and `majority` a member that failed is left out of the count (unless it is
    required). For `all` it may have said either: where that matters, the decision is review.

    A member in the review band may also say either, so that the decision is review where that matters.
    """

    kind: Literal["any", "all", "majority", "single"]
    members: Members
    threshold: ThresholdName  # which of each member's thresholds counts

    @model_validator(mode="after")
    def _alone(self) -> Self:
        if self.kind == "single" and len(self.members) != 1:
            raise ValueError(f"members: the rule single takes one member, not {len(self.members)}")
        return self

    @property
    def cut(self) -> Cut:
        return _cut_at(self.threshold)


class AtLeastRule(_Frozen):
    """`k` members or more at or above their threshold make a defect; one that failed may have said either."""

    kind: Literal["at_least"]
    k: int = Field(ge=1)
    members: Members
    threshold: ThresholdName

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        if self.k > len(self.members):
            raise ValueError(f"k: {self.k} of {len(self.members)} members can never reject")
        return self

    @property
    def cut(self) -> Cut:
        return _cut_at(self.threshold)


class WeightedRule(_Frozen):
    """Defect where the weighted mean of the members' probabilities of a defect is at least `cut`.

    A member that failed may have said anything from 0 to 1: where that matters, the decision is review. With a policy's
    review band of a probability, a mean from there up to `cut` is a review.
    """

    kind: Literal["weighted"]
    weights: Annotated[dict[str, Weight], Field(min_length=1)]  # by member; only their ratios matter
    probability: Annotated[float, Field(gt=0, le=1)]

    @property
    def members(self) -> tuple[str, ...]:
        return tuple(self.weights)

    @property
    def cut(self) -> Cut:
        return Cut(probability=self.probability)

    @property
    def threshold(self) -> str:
        return str(self.cut)


class Step(_Terse):
    """Members that are asked together, and what makes the cascade stop with them.

    Defect where enough of them reach `reject`; ok where not enough of them reach even `accept`; else the next step is
    asked. *Enough* is one (`any`), all (`all`), more than half (`majority`; half is neither enough nor not enough) or
    `k` of them (`at_least`). A member that failed is taken not to reach `reject`, and to reach `accept`. With the same
    cut for both, the step decides all but ties and failures. Rejecting comes first.
    """

    members: Members
    combine: Literal["any", "all", "majority", "at_least"] = "any"
    k: Annotated[int, Field(ge=1)] | None = None  # of at_least
    accept: Cut | None = None  # None: this step never says ok
    reject: Cut | None = None  # None: this step never says defect

    @property
    def needs(self) -> tuple[int, int]:
        """How many members have to reach `reject` for a defect, and `accept` for the cascade to go on."""
        count = len(self.members)
        if self.combine == "majority":
            return count // 2 + 1, (count + 1) // 2
        needed = {"any": 1, "all": count, "at_least": self.k or count}[self.combine]
        return needed, needed

    @model_validator(mode="after")
    def _decides(self) -> Self:
        if self.accept is None and self.reject is None:
            raise ValueError("the step can decide nothing: give accept, reject or both")
        if (self.combine == "at_least") != (self.k is not None):
            raise ValueError("k: it goes with combine at_least, and with nothing else")
        if self.k is not None and self.k > len(self.members):
            raise ValueError(f"k: {self.k} of {len(self.members)} members can never reject")
        return self


class CascadeRule(_Frozen):
    """Steps in their order, the cheap ones first; later ones are only asked if the earlier ones leave it open.

    What no step decides is a review. A member may be in several steps; it is asked once. Members that the policy
    requires count when their step is reached.
    """

    kind: Literal["cascade"]
    steps: Annotated[tuple[Step, ...], Field(min_length=1)]

    @property
    def members(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for step in self.steps for name in step.members))

    @property
    def threshold(self) -> str:
        return "cascade"


AnyRule = Annotated[Rule | AtLeastRule | WeightedRule | CascadeRule, Field(discriminator="kind")]


class DefectType(_Frozen):
    """Holds where a member with a type head names this type: with at least this share (softmax)."""

    member: str
    name: str
    share: Annotated[float, Field(gt=0, le=1)] = 0.5


class Discount(_Terse):
    """A lone vote that is not enough. The only thing in a policy that can turn a defect into ok, and it says for whom.

    As long as every one of `others` voted and reaches no `below`, the vote of `member` counts as `verdict` at the most.
    It counts in full where it reaches `unless`, and where one of the others failed. In a cascade a vote that counts as
    review reaches no `reject`, one that counts as ok reaches nothing.
    """

    member: str
    others: Members
    below: Cut
    unless: Cut | None = None
    verdict: Literal["ok", "review"]


class PolicyException(_Terse):
    """What is different for one category, or where a member names a type of defect in it. Exactly one of:

    `rule` without a type: that category is decided by this rule in place of the policy's.
    `rule` with a type: this rule is asked as well, and the stricter verdict counts (defect, review, ok).
    `verdict` with a type: the decision is that at the least.
    `discount`, always or with a type: the vote of one member counts less while others are quiet.

    So only a discount can make a verdict milder. Where the member that would name the type failed, a decision that the
    exception could make stricter is a review, and a discount does not hold. Discounts do not touch the rules of other
    exceptions, nor weighted rules, which have weights for that.
    """

    category: str
    defect_type: DefectType | None = None
    rule: AnyRule | None = None
    verdict: Literal["defect", "review"] | None = None
    discount: Discount | None = None

    @model_validator(mode="after")
    def _one_thing(self) -> Self:
        if sum(part is not None for part in (self.rule, self.verdict, self.discount)) != 1:
            raise ValueError("give exactly one of rule, verdict and discount")
        if self.verdict is not None and self.defect_type is None:
            raise ValueError("verdict: without a defect_type every part of the category would get it; give a rule")
        return self

    @property
    def members(self) -> tuple[str, ...]:
        """Whose votes it needs."""
        head = () if self.defect_type is None else (self.defect_type.member,)
        rule = () if self.rule is None else self.rule.members
        lone = () if self.discount is None else (self.discount.member, *self.discount.others)
        return tuple(dict.fromkeys((*head, *rule, *lone)))

    @property
    def replaces(self) -> bool:
        """Whether it is the rule of its category."""
        return self.rule is not None and self.defect_type is None


class Policy(_Frozen):
    """The rule that turns votes into a decision: plain JSON, edited without retraining."""

    format: Literal[1] = 1
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
    description: Text
    rule: AnyRule
    advisory: tuple[str, ...] = ()  # members that vote for people to see, and do not count
    required: tuple[str, ...] = ()  # without a vote of each of these the decision is review
    review: ReviewBand | None = None
    exceptions: tuple[PolicyException, ...] = ()

    @model_serializer(mode="wrap")
    def _as_before(self, write: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        """Without `exceptions` where there are none: older versions can read that."""
        return {key: value for key, value in write(self).items() if key != "exceptions" or self.exceptions}

    @property
    def members(self) -> tuple[str, ...]:
        """All that count, or may."""
        return tuple(dict.fromkeys((*self.rule.members, *(n for e in self.exceptions for n in e.members))))

    def for_category(self, category: str) -> "Policy":
        """The policy as it is for one category: its own rule where an exception gives it one, no others' exceptions."""
        own = tuple(e for e in self.exceptions if e.category == category)
        if own == self.exceptions and not any(e.replaces for e in own):
            return self
        rule = next((e.rule for e in own if e.rule is not None and e.replaces), self.rule)
        kept = tuple(e for e in own if not e.replaces)
        required, review = self.required, self.review
        if rule is not self.rule:  # what the replaced rule asked for is not asked any more
            asked = {*rule.members, *(name for e in kept for name in e.members)}
            required = tuple(name for name in required if name in asked)
            review = review if _takes(rule, review) else None
        return self.model_copy(update={"rule": rule, "exceptions": kept, "required": required, "review": review})


def _takes(rule: AnyRule, band: ReviewBand | None) -> bool:
    """Whether a review band has a meaning for this rule."""
    if isinstance(rule, CascadeRule):
        return False
    return not isinstance(rule, WeightedRule) or (band is not None and band.probability is not None)
