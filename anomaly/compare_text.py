"""A comparison of two revisions in words, for a terminal."""

from anomaly.compare import OUTCOMES, Comparison


def in_words(found: Comparison) -> str:
    """Lines for a terminal."""
    names = _names(found)
    width = max(len(outcome) for outcome in (*OUTCOMES, names[0])) + 2
    first, second = found.first, found.second
    policies = first.policy if first.policy == second.policy else f"{first.policy} and {second.policy}"
    lines = [
        f"{found.inspector}: {names[0]} ({first.commit[:12]}) and {names[1]} ({second.commit[:12]}) on "
        f"{found.pictures} pictures of {found.data}, policy {policies}",
        "",
        f"{names[0]:{width}}" + "".join(f"{names[1] + ' ' + outcome:>20}" for outcome in OUTCOMES),
        *(f"{a:{width}}" + "".join(f"{found.table[a][b]:20}" for b in OUTCOMES) for a in OUTCOMES),
        "",
        f"They differ on {found.differ} of {found.pictures} pictures: of such pictures at most "
        f"{found.differ_at_most:.1%} with 95 % confidence.",
    ]
    tests = {"all": found.all, "good parts": found.good, "defects": found.defects}
    for words, test in tests.items():
        if test is not None:
            lines.append(
                f"{words}: both right {test.both}, only {names[0]} {test.first_only}, only {names[1]} "
                f"{test.second_only}, neither {test.neither}; McNemar p {test.p_value:.3g}"
            )
    for name, side in zip(names, (first, second), strict=True):
        ms = "-" if side.latency_ms is None else f"{side.latency_ms:.1f} ms"
        mj = "energy below the resolution" if side.energy_mj is None else f"{side.energy_mj:.0f} mJ (estimate)"
        errors = "" if side.missed is None else f"; {side.missed} missed, {side.false_alarms} false alarms"
        lines.append(f"{name}: median {ms}, {mj}{errors}")
    if found.shown:
        lines += ["", "Pictures that differ or failed:"]
    for picture in found.shown:
        who = {None: "", "first": f"; {names[0]} is right", "second": f"; {names[1]} is right"}.get(
            picture.right, f"; {picture.right} right"
        )
        label = "" if picture.label is None else f" [{picture.label}]"
        lines.append(f"  {picture.path}{label}: {names[0]} {picture.first}, {names[1]} {picture.second}{who}")
        lines += [
            f"    {name}: {why}"
            for name, outcome, why in zip(names, (picture.first, picture.second), picture.why, strict=True)
            if outcome == "failed"
        ]
    return "\n".join(lines)


def _names(found: Comparison) -> tuple[str, str]:
    """The revisions, shortened where they are commits."""
    names = [side.revision[:12] for side in (found.first, found.second)]
    return (names[0], names[1]) if names[0] != names[1] else (f"{names[0]} (1)", f"{names[1]} (2)")
