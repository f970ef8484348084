"""Why a policy decided as it did: the one sentence that comes first, in English and French."""

from collections.abc import Sequence

from anomaly.rules import Cut, Text

NO_VOTE: Text = {"en": "No detector gave a vote.", "fr": "Aucun détecteur n'a voté."}


def no_vote_of(name: str, cause: str) -> Text:
    """A member that the policy requires failed."""
    return {
        "en": f"{name}, which this policy requires, gave no vote: {cause}.",
        "fr": f"{name}, exigé par cette politique, n'a pas voté : {cause}.",
    }


def counted(against: Sequence[str], of: int, needed: int, threshold: str) -> Text:
    """Members at or above their threshold were counted."""
    names = _listed(against)
    return {
        "en": f"{len(against)} of {of} detectors reach their {threshold} threshold, {needed} needed{names['en']}.",
        "fr": f"{len(against)} détecteurs sur {of} au seuil {threshold} ou au-dessus, {needed} requis{names['fr']}.",
    }


def close(open_: Sequence[str], silent: Sequence[str], of: int, needed: int) -> Text:
    """Those that are unsure, or gave no vote, would tip the count."""
    names, count = ", ".join((*open_, *silent)), len(open_) + len(silent)
    if silent:
        return {
            "en": f"Close call: with the unsure and those without a vote, {count} of {of} for a defect, "
            f"{needed} needed: {names}.",
            "fr": f"Cas limite : indécis et sans vote compris, {count} sur {of} pour défaut, {needed} requis : "
            f"{names}.",
        }
    return {
        "en": f"Close call: with the unsure, {count} of {of} for a defect, {needed} needed: {names}.",
        "fr": f"Cas limite : indécis compris, {count} sur {of} pour défaut, {needed} requis : {names}.",
    }


def weighed(low: float, high: float, cut: float) -> Text:
    """A weighted mean; `low` and `high` differ where a member failed."""
    said = f"{low:.3f}" if low == high else f"{low:.3f} – {high:.3f}"
    return {
        "en": f"Weighted probability of a defect {said}, {cut:g} needed.",
        "fr": f"Probabilité pondérée d'un défaut {comma(said)}, {comma(f'{cut:g}')} requis.",
    }


def step_rejects(number: int, steps: int, against: Sequence[str], of: int, needed: int, cut: Cut) -> Text:
    """A step of a cascade found enough."""
    names, line = _listed(against), cut_words(cut)
    return {
        "en": f"Step {number} of {steps} decides: {len(against)} of {of} reach {line['en']}, {needed} needed"
        f"{names['en']}.",
        "fr": f"L'étape {number} sur {steps} décide : {len(against)} sur {of} atteignent {line['fr']}, {needed} requis"
        f"{names['fr']}.",
    }


def step_accepts(number: int, steps: int, open_: Sequence[str], of: int, needed: int, cut: Cut) -> Text:
    """A step of a cascade found too little to go on."""
    names, line = _listed(open_), cut_words(cut)
    return {
        "en": f"Step {number} of {steps} decides: only {len(open_)} of {of} reach {line['en']}, {needed} needed to go "
        f"on{names['en']}.",
        "fr": f"L'étape {number} sur {steps} décide : seulement {len(open_)} sur {of} atteignent {line['fr']}, "
        f"{needed} requis pour continuer{names['fr']}.",
    }


def undecided(steps: int) -> Text:
    """No step of a cascade decided."""
    return {
        "en": f"None of the {steps} steps is sure: a person decides.",
        "fr": f"Aucune des {steps} étapes n'est sûre : une personne décide.",
    }


def named(member: str, defect_type: str, share: float, then: Text) -> Text:
    """An exception for a type of defect made the decision stricter."""
    return {
        "en": f"Exception: {member} sees {defect_type} ({share:.0%}). {then['en']}",
        "fr": f"Exception : {member} voit {defect_type} ({share * 100:.0f} %). {then['fr']}",
    }


def unnamed(member: str, cause: str) -> Text:
    """The member that an exception asks for the type of defect failed."""
    return {
        "en": f"{member}, whom an exception asks for the type of defect, gave no vote: {cause}.",
        "fr": f"{member}, qu'une exception interroge sur le type de défaut, n'a pas voté : {cause}.",
    }


AT_LEAST: dict[str, Text] = {
    "defect": {"en": "That is a defect by itself.", "fr": "C'est en soi un défaut."},
    "review": {"en": "A person has to see that.", "fr": "Une personne doit le voir."},
}


def discounted(text: Text, names: Sequence[str]) -> Text:
    """The same, and whose vote was not enough."""
    listed = ", ".join(names)
    return {
        "en": f"{text['en']} Not enough by itself, by an exception: {listed}.",
        "fr": f"{text['fr']} Ne suffit pas à lui seul, par exception : {listed}.",
    }


def cut_words(cut: Cut) -> Text:
    """A cut in a sentence."""
    if cut.threshold is not None:
        return {"en": f"the {cut.threshold} threshold", "fr": f"le seuil {cut.threshold}"}
    if cut.p_value is not None:
        number = f"{cut.p_value:.3g}"
        return {"en": f"a p-value of {number} or less", "fr": f"une valeur p de {comma(number)} ou moins"}
    if cut.score is not None:
        number = f"{cut.score:.6g}"
        return {"en": f"a score of {number} or more", "fr": f"un score de {comma(number)} ou plus"}
    number = f"{cut.probability:.3g}"
    return {
        "en": f"a probability of {number} or more",
        "fr": f"une probabilité de {comma(number)} ou plus",
    }


def _listed(names: Sequence[str]) -> Text:
    listed = ", ".join(names)
    return {"en": f": {listed}" if names else "", "fr": f" : {listed}" if names else ""}


def comma(number: str) -> str:
    """A numeral as French writes it."""
    return number.replace(".", ",")
