"""The words of the page, in English and French; those of panels and tabs are in modules beside this one.

What a policy says comes with the policy.
"""

from typing import Literal

from anomaly.panel_texts import PANEL_TEXTS
from anomaly.policy import Text
from anomaly.reasons import comma
from anomaly.tab_texts import TAB_TEXTS

Language = Literal["en", "fr"]
LANGUAGES: dict[str, Language] = {"English": "en", "Français": "fr"}


def say(key: str, language: Language, **values: object) -> str:
    """A text of the page.

    Args:
        key: of TEXTS.
        language: to say it in.
        values: for the names in braces.
    """
    return TEXTS[key][language].format(**values)


def numeral(text: str, language: Language) -> str:
    """A number, or the name of a threshold with one in it, as the language writes it."""
    return text if language == "en" else comma(text)


def language_of(accepted: str) -> Language:
    """The language of the page for a browser.

    Args:
        accepted: its Accept-Language header, such as `fr-CH, fr;q=0.9, en;q=0.8`; the first known one counts.
    """
    for part in accepted.split(","):
        code = part.split(";")[0].strip().split("-")[0].lower()
        if code == "fr":
            return "fr"
        if code == "en":
            return "en"
    return "en"


TEXTS: dict[str, Text] = {
    "tagline": {
        "en": "Is this part good? A decision with its evidence, and what it cost in energy.",
        "fr": "Cette pièce est-elle bonne ? Une décision, ses preuves et son coût en énergie.",
    },
    "language": {"en": "Language", "fr": "Langue"},
    # left: what to inspect, and how
    "picture": {"en": "Picture of the part", "fr": "Photo de la pièce"},
    "picture_alt": {
        "en": "The part. Not visible? Browsers show no TIFF, but it can be inspected.",
        "fr": "La pièce. Invisible ? Les navigateurs n'affichent pas le TIFF, mais on peut l'inspecter.",
    },
    "drop": {
        "en": "Drop a picture here, paste it, or click to choose one",
        "fr": "Déposez une photo ici, collez-la, ou cliquez pour en choisir une",
    },
    "examples": {"en": "Examples", "fr": "Exemples"},
    "inspector": {"en": "Inspector", "fr": "Inspecteur"},
    "revision": {"en": "Revision", "fr": "Révision"},
    "revision_info": {"en": "A tag, a branch, or any commit", "fr": "Une étiquette, une branche ou un commit"},
    "policy": {"en": "Policy", "fr": "Politique"},
    "inspect": {"en": "Inspect", "fr": "Inspecter"},
    "loading": {"en": "Loading the inspector …", "fr": "Chargement de l'inspecteur …"},
    # verdict
    "empty_title": {"en": "No part inspected yet", "fr": "Aucune pièce inspectée"},
    "empty_1": {
        "en": "Choose a picture of a part, or click an example, then press Inspect.",
        "fr": "Choisissez la photo d'une pièce, ou cliquez sur un exemple, puis appuyez sur Inspecter.",
    },
    "empty_2": {
        "en": "The decision, the heatmap and the vote of every detector appear here.",
        "fr": "La décision, la carte de chaleur et le vote de chaque détecteur s'affichent ici.",
    },
    "running_title": {"en": "Inspecting …", "fr": "Inspection en cours …"},
    "running": {"en": "The detectors are looking at the part.", "fr": "Les détecteurs examinent la pièce."},
    "ok": {"en": "OK", "fr": "CONFORME"},
    "defect": {"en": "DEFECT", "fr": "DÉFAUT"},
    "review": {"en": "REVIEW", "fr": "À VÉRIFIER"},
    "vote_ok": {"en": "ok", "fr": "conforme"},
    "vote_defect": {"en": "defect", "fr": "défaut"},
    "vote_review": {"en": "unsure", "fr": "indécis"},
    "vote_failed": {"en": "failed", "fr": "en panne"},
    "by": {
        "en": "{category}, revision {revision} ({commit}), policy {policy}, {ms} ms",
        "fr": "{category}, révision {revision} ({commit}), politique {policy}, {ms} ms",
    },
    "warning": {"en": "Warning", "fr": "Avertissement"},
    # gauge
    "gauge": {"en": "{member} against its line", "fr": "{member} face à sa ligne"},
    "gauge_beyond": {
        "en": "is what the decision hangs on: {ranges} × the spread of good parts beyond its line {cut}.",
        "fr": "porte la décision : {ranges} × l'étendue des pièces bonnes au-delà de sa ligne {cut}.",
    },
    "gauge_short": {
        "en": "is what the decision hangs on: {ranges} × the spread of good parts short of its line {cut}.",
        "fr": "porte la décision : {ranges} × l'étendue des pièces bonnes en deçà de sa ligne {cut}.",
    },
    "gauge_line": {"en": "its line", "fr": "sa ligne"},
    "gauge_end": {"en": "{ranges} spreads or more", "fr": "{ranges} étendues ou plus"},
    "gauge_none": {
        "en": "No detector that counts gave a score: how far this part is from a line is not known.",
        "fr": "Aucun détecteur qui compte n'a donné de score : la distance à une ligne est inconnue.",
    },
    "gauge_failed": {"en": "Failed, without a score: {names}.", "fr": "En panne, sans score : {names}."},
    # heatmap
    "overlay": {"en": "The picture with the heatmap", "fr": "La photo et la carte de chaleur"},
    "split_at": {"en": "Picture | heatmap: where they meet (%)", "fr": "Photo | carte : où elles se rejoignent (%)"},
    "view": {"en": "Heatmap of", "fr": "Carte de"},
    "view_all": {"en": "all (mean)", "fr": "tous (moyenne)"},
    "view_none": {"en": "none", "fr": "aucune"},
    "opacity": {"en": "Opacity", "fr": "Opacité"},
    "legend": {
        "en": "One scale for every picture: the middle is the 99.9th percentile of the pixels of good parts.",
        "fr": "Une échelle pour toutes les photos : le milieu est le 99,9e centile des pixels de pièces bonnes.",
    },
    "legend_low": {"en": "as on good parts", "fr": "comme les pièces bonnes"},
    "legend_high": {"en": "limit of good parts", "fr": "limite des pièces bonnes"},
    "legend_beyond": {"en": "twice that or more", "fr": "le double ou plus"},
    # votes
    "votes": {"en": "Votes", "fr": "Votes"},
    "detector": {"en": "Detector", "fr": "Détecteur"},
    "score": {"en": "Score against threshold", "fr": "Score face au seuil"},
    "score_of": {"en": "{score} / {threshold} ({name})", "fr": "{score} / {threshold} ({name})"},
    "score_hint": {
        "en": "Left end: a typical good part. Mark: the threshold. In the detector's own units.",
        "fr": "À gauche : une pièce bonne typique. Repère : le seuil. Dans l'unité du détecteur.",
    },
    "p_value": {"en": "p-value", "fr": "valeur p"},
    "p_value_hint": {
        "en": "p-value: share of good parts expected to score this high or higher. Not the probability of a defect.",
        "fr": "Valeur p : part attendue de pièces bonnes à ce score ou plus. Ce n'est pas la probabilité d'un défaut.",
    },
    "probability": {"en": "probability of a defect {share}", "fr": "probabilité d'un défaut {share}"},
    "not_counted": {"en": "shown, not counted by this policy", "fr": "montré, non compté par cette politique"},
    "counts_less": {"en": "counts less here: an exception", "fr": "compte moins ici : une exception"},
    "vote_unasked": {"en": "not asked", "fr": "non consulté"},
    "unasked": {"en": "the cascade stopped before", "fr": "la cascade s'est arrêtée avant"},
    "no_part": {
        "en": "Not part of this policy: {names}.",
        "fr": "Ne font pas partie de cette politique : {names}.",
    },
    "looks_like": {"en": "looks most like {name} ({share})", "fr": "ressemble le plus à {name} ({share})"},
    "places": {"en": "places marked: {count}", "fr": "zones marquées : {count}"},
    "verdict": {"en": "Vote", "fr": "Vote"},
    "time": {"en": "Time", "fr": "Temps"},
    "energy_share": {"en": "Energy share (estimated)", "fr": "Part d'énergie (estimée)"},
    # why
    "why": {"en": "Why", "fr": "Pourquoi"},
    "why_fired": {"en": "Decided by", "fr": "Décidé par"},
    "why_agreed": {"en": "Agree with it", "fr": "D'accord avec elle"},
    "why_distance": {"en": "Distance to the line", "fr": "Distance à la limite"},
    "why_change": {"en": "What would have changed it", "fr": "Ce qui l'aurait changée"},
    "why_discounted": {"en": "Counted less, by an exception", "fr": "Compté moins, par exception"},
    "why_unasked": {"en": "Not asked: the cascade stopped before", "fr": "Non consultés : la cascade s'arrête avant"},
    "nobody": {"en": "no detector that counts", "fr": "aucun détecteur qui compte"},
    "fired_rule": {"en": "the rule of the policy", "fr": "la règle de la politique"},
    "fired_step": {"en": "step {number} of the cascade", "fr": "l'étape {number} de la cascade"},
    "fired_exception": {"en": "exception {number} of the policy", "fr": "l'exception {number} de la politique"},
    "fired_required": {"en": "a required detector without a vote", "fr": "un détecteur exigé qui n'a pas voté"},
    "distance_above": {"en": "{own} above {line} ({ranges} IQR)", "fr": "{own} au-dessus de {line} ({ranges} EIQ)"},
    "distance_below": {"en": "{own} below {line} ({ranges} IQR)", "fr": "{own} au-dessous de {line} ({ranges} EIQ)"},
    "one_side": {
        "en": "every score is on the same side of {line}",
        "fr": "tous les scores sont du même côté de {line}",
    },
    "iqr": {
        "en": "In the detector's own units; IQR: interquartile ranges of the scores of good parts.",
        "fr": "Dans l'unité du détecteur ; EIQ : écarts interquartiles des scores de bonnes pièces.",
    },
    # promises
    "promises": {"en": "What these thresholds can promise", "fr": "Ce que ces seuils peuvent promettre"},
    "promises_each": {
        "en": "Each sentence holds for one line of one detector that was settled beforehand: not for all at once, nor "
        "for the best of several that were compared.",
        "fr": "Chaque phrase vaut pour une limite d'un détecteur, fixée d'avance : ni pour toutes à la fois, ni pour "
        "la meilleure de plusieurs que l'on a comparées.",
    },
    "promise_counts": {
        "en": "Held out: {missed} of {defects} defects below it, {rejected} of {good} good parts at it or beyond.",
        "fr": "Mis de côté : au-dessous, {missed} sur {defects} des défauts ; à la limite ou au-delà, {rejected} sur "
        "{good} des bonnes pièces.",
    },
    "promise_cut": {
        "en": "These counts may have chosen the line, no promise.",
        "fr": "Ces comptes ont pu choisir la limite, aucune promesse.",
    },
    "promise_any": {
        "en": "The whole policy: a defect passes only where every detector above that voted lets it pass. So what is "
        "said of the misses of one of them holds for the policy, as long as that one votes. Of the false alarms of the "
        "policy nothing is promised.",
        "fr": "La politique entière : un défaut ne passe que si chaque détecteur ci-dessus qui a voté le laisse passer."
        " Ce qui est dit des défauts manqués de l'un d'eux vaut donc pour la politique, tant que celui-là vote. De ses "
        "fausses alarmes, rien n'est promis.",
    },
    "promise_single": {
        "en": "The whole policy: this detector decides alone, so both sentences hold for the policy.",
        "fr": "La politique entière : ce détecteur décide seul, les deux phrases valent donc pour la politique.",
    },
    "promise_weighted": {
        "en": "The weighted mean has one line for all of them, and its probabilities were fitted to the held-out parts:"
        " no promise. The card of the inspector says what it did on test parts.",
        "fr": "La moyenne pondérée a une seule limite, et ses probabilités ont été ajustées aux pièces mises de côté : "
        "aucune promesse. La fiche de l'inspecteur dit ce qu'elle a fait sur les pièces de test.",
    },
    "promise_no_policy": {
        "en": "These do not add up to a promise of the whole policy. The card of the inspector says what the policy did"
        " on test parts, and what that supports.",
        "fr": "Elles ne font pas ensemble une promesse de la politique. La fiche de l'inspecteur dit ce que celle-ci a "
        "fait sur les pièces de test, et ce que cela soutient.",
    },
    # emissions
    "emissions": {"en": "Energy and CO₂e of this inspection", "fr": "Énergie et CO₂e de cette inspection"},
    "estimated": {"en": "estimated", "fr": "estimé"},
    "unknown": {"en": "not known", "fr": "inconnu"},
    "split": {"en": "CPU / RAM / GPU", "fr": "CPU / RAM / GPU"},
    "backend": {"en": "Power from", "fr": "Puissance d'après"},
    "country": {"en": "Electricity of", "fr": "Électricité de"},
    "mean": {"en": "Mean since launch", "fr": "Moyenne depuis le lancement"},
    "mean_of": {"en": "{mean} over {count}", "fr": "{mean} sur {count}"},
    "per_1000": {"en": "1,000 images at that mean", "fr": "1 000 images à cette moyenne"},
    "full": {"en": "Against the full vote", "fr": "Face au vote complet"},
    "full_this": {"en": "This was the full vote.", "fr": "C'était le vote complet."},
    "full_vote": {
        "en": "This inspection {spent} mJ; the full vote would be about {whole} mJ; saved {saved} %, by the energy "
        "that each detector took when it was released. Not asked: {names}.",
        "fr": "Cette inspection {spent} mJ ; le vote complet serait d'environ {whole} mJ ; {saved} % économisés, "
        "d'après l'énergie de chaque détecteur à sa publication. Non consultés : {names}.",
    },
    "full_share": {
        "en": "Saved about {saved} %, by the energy that each detector took when it was released. Not asked: {names}.",
        "fr": "Environ {saved} % économisés, d'après l'énergie de chaque détecteur à sa publication. Non consultés : "
        "{names}.",
    },
    "full_unknown": {
        "en": "Not known. Not asked: {names}.",
        "fr": "Inconnu. Non consultés : {names}.",
    },
    "sees": {"en": "This machine can tell", "fr": "Cette machine peut dire"},
    "sees_counter": {
        "en": "The CPU has a power counter: the whole machine is measured, not this app alone.",
        "fr": "Le CPU a un compteur de puissance : toute la machine est mesurée, pas cette application seule.",
    },
    "sees_rated": {
        "en": "No power counter, as on most virtual machines and Spaces: rated power times load, of the whole machine.",
        "fr": "Pas de compteur de puissance, comme sur la plupart des machines virtuelles et des Spaces : puissance "
        "nominale multipliée par la charge, pour toute la machine.",
    },
    "sees_none": {"en": "Nothing of its energy.", "fr": "Rien de son énergie."},
    "sees_gpu": {"en": "The GPU counts its own energy.", "fr": "Le GPU compte sa propre énergie."},
    "sees_zero": {
        "en": "ZeroGPU lends a GPU of another process, which nobody here can measure: it is left out.",
        "fr": "ZeroGPU prête un GPU d'un autre processus, que personne ici ne peut mesurer : il n'est pas compté.",
    },
    "note": {"en": "Note", "fr": "Remarque"},
    "note_below": {
        "en": "Below the resolution of the power counter: too short to be estimated.",
        "fr": "Sous la résolution du compteur de puissance : trop court pour être estimé.",
    },
    "note_coarse": {
        "en": "Coarse: CPU load is counted in steps of 10 ms, so the CPU's part of so short a time tends to "
        "read too high.",
        "fr": "Grossier : la charge est comptée par pas de 10 ms ; sur un temps si court, la part du CPU est plutôt "
        "surestimée.",
    },
    "note_unavailable": {"en": "No estimate: {cause}", "fr": "Pas d'estimation : {cause}"},
    # commits
    "members": {"en": "Exactly what decided", "fr": "Ce qui a décidé, exactement"},
    "this_inspector": {"en": "inspector", "fr": "inspecteur"},
    "report": {"en": "Report (JSON)", "fr": "Rapport (JSON)"},
    "download": {"en": "Download the report", "fr": "Télécharger le rapport"},
    "error": {"en": "Error", "fr": "Erreur"},
    "no_picture": {
        "en": "There is no picture yet: choose one, or click an example.",
        "fr": "Il n'y a pas encore de photo : choisissez-en une, ou cliquez sur un exemple.",
    },
    # monitor
    "tab_inspect": {"en": "Inspect", "fr": "Inspecter"},
    "tab_batch": {"en": "Batch", "fr": "Lot"},
    "tab_compare": {"en": "Compare", "fr": "Comparer"},
    "tab_models": {"en": "Models", "fr": "Modèles"},
    "tab_monitor": {"en": "Monitor", "fr": "Suivi"},
    **PANEL_TEXTS,
    **TAB_TEXTS,
}
