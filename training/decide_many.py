"""A cascade or a weighted rule on many parts at once: what a search for cuts asks thousands of times.

`next_step` is what counts; this is the same arithmetic on arrays, without failures and without exceptions for types of
defect, and a test compares the two. It proposes; whoever uses what was found decides with `replay` again.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from anomaly.policy import CascadeRule, Cut, Policy, Step, Vote, WeightedRule
from training.joint_votes import Part, Price

Flags = NDArray[np.bool_]


class Table:
    """Parts on which every member voted, and what it costs to ask."""

    def __init__(self, parts: Sequence[Part], price: Price) -> None:
        """Raises ValueError where a member failed on a part."""
        self.parts, self.price = tuple(parts), price
        self.defect: Flags = np.array([part.is_defect for part in parts], bool)
        self._votes: dict[str, list[Vote]] = {}
        for name in parts[0].votes if parts else ():
            votes = [vote for part in parts if isinstance(vote := part.votes[name], Vote)]
            if len(votes) != len(parts):
                raise ValueError(f"{name!r} failed on {len(parts) - len(votes)} parts")
            self._votes[name] = votes
        self._read: dict[tuple[str, str], NDArray[np.float64]] = {}

    def __len__(self) -> int:
        return len(self.parts)

    def column(self, name: str, what: str) -> NDArray[np.float64]:
        """(N,) of a member: `score`, `p_value`, `probability` (NaN without one), or the value of a named threshold."""
        if (name, what) not in self._read:
            votes = self._votes[name]
            if what in ("score", "p_value", "probability"):
                values = [getattr(vote, what) for vote in votes]
            else:
                values = [dict(vote.thresholds).get(what) for vote in votes]  # type: ignore[call-overload]
            self._read[name, what] = np.array([np.nan if value is None else value for value in values], float)
        return self._read[name, what]

    def reaches(self, name: str, cut: Cut) -> Flags:
        """(N,) `votes.reaches`, of every part."""
        if cut.p_value is not None:
            found = self.column(name, "p_value") <= cut.p_value
        elif cut.probability is not None:
            found = self.column(name, "probability") >= cut.probability
        elif cut.score is not None:
            found = self.column(name, "score") >= cut.score
        else:
            found = self.column(name, "score") >= self.column(name, str(cut.threshold))
        flags: Flags = found
        return flags

    def decide(self, policy: Policy) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
        """(N,) verdicts as places in ok, review, defect, and (N,) what asking cost.

        Raises:
            TypeError: the rule is neither a cascade nor weighted.
        """
        rule = policy.rule
        if isinstance(rule, WeightedRule):
            return self._weighed(rule, policy), self._cost_of([(*policy.members, *policy.advisory)], [len(self)])
        if not isinstance(rule, CascadeRule):
            raise TypeError(f"a rule {rule.kind!r} is decided part by part, by `replay`")
        return self._by_steps(rule, policy)

    def _weighed(self, rule: WeightedRule, policy: Policy) -> NDArray[np.int8]:
        sums = sum(rule.weights.values())
        mean = np.sum([weight * self.column(n, "probability") for n, weight in rule.weights.items()], axis=0) / sums
        band = policy.review.probability if policy.review is not None else None
        verdicts = np.where(mean >= (rule.probability if band is None else band), 1, 0)
        return np.where(mean >= rule.probability, 2, verdicts).astype(np.int8)

    def _by_steps(self, rule: CascadeRule, policy: Policy) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
        verdicts, pending = np.ones(len(self), np.int8), np.ones(len(self), bool)
        asked = {name: np.zeros(len(self), bool) for name in self._votes}
        for name in policy.advisory:
            asked[name][:] = True
        for step in rule.steps:
            said = np.stack([self._said(name, step, policy, pending, asked) for name in step.members])
            needed, kept = step.needs
            rejects = np.zeros(len(self), bool)
            accepts = np.zeros(len(self), bool)
            if step.reject is not None:
                rejects = (said == 2).sum(0) >= needed
            if step.accept is not None:
                accepts = ((said > 0).sum(0) < kept) & ~rejects
            verdicts[pending & rejects], verdicts[pending & accepts] = 2, 0
            pending = pending & ~rejects & ~accepts
        names = list(asked)
        bits = sum((asked[name].astype(np.int64) << i for i, name in enumerate(names)), np.zeros(len(self), np.int64))
        patterns, of = np.unique(bits, return_inverse=True)
        each = [self.price.of([n for i, n in enumerate(names) if int(pattern) >> i & 1]) for pattern in patterns]
        return verdicts, np.array(each)[of]

    def _said(self, name: str, step: Step, policy: Policy, pending: Flags, asked: dict[str, Flags]) -> NDArray[np.int8]:
        """(N,) the member's own verdict at a step, less what a discount takes from it; notes whom that asks."""
        asked[name] |= pending
        said = np.zeros(len(self), np.int8)
        if step.accept is not None:
            said[self.reaches(name, step.accept)] = 1
        if step.reject is not None:
            said[self.reaches(name, step.reject)] = 2
        for exception in policy.exceptions:
            discount = exception.discount
            if discount is None or discount.member != name or exception.defect_type is not None:
                continue
            holds = said > 0
            if discount.unless is not None:
                holds &= ~self.reaches(name, discount.unless)
            for other in discount.others:
                asked[other] |= pending & holds
            quiet = np.all([~self.reaches(other, discount.below) for other in discount.others], axis=0)
            most = 0 if discount.verdict == "ok" else 1
            said[holds & quiet] = np.minimum(said[holds & quiet], most)
        return said

    def _cost_of(self, asked: Sequence[Sequence[str]], times: Sequence[int]) -> NDArray[np.float64]:
        return np.repeat([self.price.of(tuple(dict.fromkeys(names))) for names in asked], times)
