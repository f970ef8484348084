"""The words of the page, in English and French. What a policy says comes with the policy."""

from typing import Literal

from anomaly.policy import Text

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
    # heatmap
    "overlay": {"en": "The picture with the heatmap", "fr": "La photo et la carte de chaleur"},
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
    "looks_like": {"en": "looks most like {name} ({share})", "fr": "ressemble le plus à {name} ({share})"},
    "places": {"en": "places marked: {count}", "fr": "zones marquées : {count}"},
    "verdict": {"en": "Vote", "fr": "Vote"},
    "time": {"en": "Time", "fr": "Temps"},
    "energy_share": {"en": "Energy share (estimated)", "fr": "Part d'énergie (estimée)"},
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
    # provenance
    "members": {"en": "Exactly what decided", "fr": "Ce qui a décidé, exactement"},
    "this_inspector": {"en": "inspector", "fr": "inspecteur"},
    "report": {"en": "Report (JSON)", "fr": "Rapport (JSON)"},
    "download": {"en": "Download the report", "fr": "Télécharger le rapport"},
    "error": {"en": "Error", "fr": "Erreur"},
    "no_picture": {
        "en": "There is no picture yet: choose one, or click an example.",
        "fr": "Il n'y a pas encore de photo : choisissez-en une, ou cliquez sur un exemple.",
    },
}
