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
    # drift
    "drift": {"en": "Has production moved?", "fr": "La production a-t-elle bougé ?"},
    "drift_intro": {
        "en": "The scores of every picture that this app has inspected with {category}, revision {revision} ({commit}),"
        " from the page and the API: {pictures}. Inspections of one seen before, which is no new part: {repeats}.",
        "fr": "Les scores de chaque photo que cette application a inspectée avec {category}, révision {revision} "
        "({commit}), par la page et l'API : {pictures}. Inspections d'une photo déjà vue, qui n'est pas une "
        "nouvelle pièce : {repeats}.",
    },
    "drift_none": {"en": "No part yet.", "fr": "Encore aucune pièce."},
    "drift_few": {
        "en": "Cannot be watched: {good} held-out good scores, at least {least} are needed. Calibrate with more.",
        "fr": "Ne peut être surveillé : {good} scores de bonnes pièces mises de côté, il en faut au moins {least}. "
        "Calibrez avec davantage.",
    },
    "drift_chosen": {
        "en": "Votes left out: {chosen}, on parts that a cascade asked it about because others were unsure. Such "
        "a choice looks like drift.",
        "fr": "Votes écartés : {chosen}, sur des pièces que la cascade lui a soumises parce que d'autres hésitaient. "
        "Un tel choix ressemble à une dérive.",
    },
    "drift_earlier": {
        "en": "Begun anew after {earlier} parts without drift.",
        "fr": "Recommencé après {earlier} pièces sans dérive.",
    },
    "drift_failed": {"en": "Parts without a vote: {failed}.", "fr": "Pièces sans vote : {failed}."},
    "drift_act": {
        "en": "What to do: look at camera, light, position and material. If the parts are good and stay like this, "
        "recalibrate with new good ones: python -m training.recalibrate --good DIR.",
        "fr": "Que faire : vérifier caméra, lumière, position et matière. Si les pièces sont bonnes et le restent, "
        "recalibrer avec de nouvelles bonnes : python -m training.recalibrate --good DIR.",
    },
    "drift_parts": {"en": "Parts", "fr": "Pièces"},
    "drift_above": {"en": "Above the cut", "fr": "Au-dessus de la coupure"},
    "drift_above_of": {"en": "{above} (cut {cut})", "fr": "{above} (coupure {cut})"},
    "drift_martingale": {"en": "Martingale: now, highest", "fr": "Martingale : actuelle, maximum"},
    "drift_alarm": {"en": "Alarm at", "fr": "Alarme à"},
    "drift_ks": {"en": "KS p, latest {window}", "fr": "KS p, {window} dernières"},
    "drift_later": {"en": "not yet", "fr": "pas encore"},
    "drift_most_above": {"en": "most are above", "fr": "la plupart au-dessus"},
    "drift_settings": {
        "en": "Settings: window {window} parts (VIGIE_DRIFT_WINDOW), level {level} (VIGIE_DRIFT_LEVEL), usual share of "
        "defects {prevalence} (VIGIE_DRIFT_PREVALENCE).",
        "fr": "Réglages : fenêtre {window} pièces (VIGIE_DRIFT_WINDOW), niveau {level} (VIGIE_DRIFT_LEVEL), part "
        "habituelle de défauts {prevalence} (VIGIE_DRIFT_PREVALENCE).",
    },
    "drift_promise": {
        "en": "Promise (Ville's inequality): if good parts are like the held-out ones, and at most {prevalence} of all "
        "parts are defects, each above the cut, the probability that the alarm of one detector ever goes off, over all "
        "of its up to {most} parts, is at most {level}. More defects than that are an alarm, too: trying out many "
        "defects here is one.",
        "fr": "Promesse (inégalité de Ville) : si les bonnes pièces sont comme celles mises de côté, et que les "
        "défauts, tous au-dessus de la coupure, font au plus {prevalence} des pièces, la probabilité que l'alarme d'un "
        "détecteur se déclenche un jour, sur jusqu'à {most} pièces, est d'au plus {level}. Plus de défauts que cela "
        "est aussi une alarme : en essayer beaucoup ici en est une.",
    },
    "drift_forgets": {
        "en": "A restart forgets all this. For a record that stays: python -m anomaly inspect --json IMAGES >> "
        "LOG.jsonl, then python -m anomaly drift LOG.jsonl --inspector REPO.",
        "fr": "Un redémarrage oublie tout cela. Pour une trace qui reste : python -m anomaly inspect --json IMAGES >> "
        "LOG.jsonl, puis python -m anomaly drift LOG.jsonl --inspector REPO.",
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
    # costs of policies
    "costs": {"en": "What would each policy cost?", "fr": "Que coûterait chaque politique ?"},
    "cost_miss": {"en": "A missed defect costs", "fr": "Un défaut manqué coûte"},
    "cost_false_alarm": {"en": "A false alarm costs", "fr": "Une fausse alarme coûte"},
    "cost_review": {"en": "A review costs", "fr": "Une vérification coûte"},
    "cost_prevalence": {"en": "Defects in production (%)", "fr": "Défauts en production (%)"},
    "cost_carbon": {"en": "A tonne of CO₂e costs", "fr": "Une tonne de CO₂e coûte"},
    "cost_1000": {"en": "Cost of 1,000 parts", "fr": "Coût de 1 000 pièces"},
    "cost_interval": {"en": "95 % interval", "fr": "Intervalle à 95 %"},
    "cost_cheapest": {"en": "Cheapest in", "fr": "La moins chère dans"},
    "cost_missed": {"en": "Missed", "fr": "Manqués"},
    "cost_alarms": {"en": "False alarms", "fr": "Fausses alarmes"},
    "cost_reviews": {"en": "Reviews", "fr": "Vérifications"},
    "cost_cautious": {"en": "Cautious cost", "fr": "Coût prudent"},
    "cost_least": {"en": "costs least", "fr": "la moins chère"},
    "cost_lead": {
        "en": "{policy} costs least: {cost} ({low} – {high}) per 1,000 parts; next {next}, {more} more "
        "({least} – {most}).",
        "fr": "{policy} coûte le moins : {cost} ({low} – {high}) pour 1 000 pièces ; ensuite {next}, {more} de plus "
        "({least} – {most}).",
    },
    "cost_alike": {
        "en": "The same decisions: {policies}.",
        "fr": "Mêmes décisions : {policies}.",
    },
    "cost_lead_alone": {
        "en": "{policy} costs {cost} ({low} – {high}) per 1,000 parts.",
        "fr": "{policy} coûte {cost} ({low} – {high}) pour 1 000 pièces.",
    },
    "cost_not_clear": {
        "en": "So few parts do not tell the two apart.",
        "fr": "Si peu de pièces ne les départagent pas.",
    },
    "cost_how": {
        "en": "Counted on calibration parts, each judged by thresholds that were set without it. Intervals and how "
        "often a policy is the cheapest: {draws} draws of these counts, each policy by itself.",
        "fr": "Compté sur les pièces d'étalonnage, chacune jugée par des seuils réglés sans elle. Intervalles et "
        "fréquence de la moins chère : {draws} tirages de ces comptes, chaque politique à part.",
    },
    "cost_cautious_hint": {
        "en": "No miss among a few defects does not mean that none is ever missed: the cautious cost takes the misses "
        "at the most that the count supports with 95 % confidence (Clopper-Pearson).",
        "fr": "Aucun manque parmi quelques défauts ne veut pas dire jamais : le coût prudent prend les manques au plus "
        "que le compte soutient avec 95 % de confiance (Clopper-Pearson).",
    },
    "cost_no_carbon": {
        "en": "CO₂e is left out: the energy of an image or the grid is not known for every policy.",
        "fr": "Le CO₂e n'est pas compté : l'énergie d'une image ou le réseau n'est pas connu pour chaque politique.",
    },
    "cost_uncounted": {
        "en": "Not counted yet: {policies}. Release again with --manifest and --data, with the calibration pictures.",
        "fr": "Pas encore compté : {policies}. Publiez à nouveau avec --manifest et --data, avec les photos "
        "d'étalonnage.",
    },
    "cost_unknown": {
        "en": "What the policies of this revision cost is not known: it carries no counts on held-out parts. Release "
        "it again (python -m training.release) from runs with at least 5 good parts and 5 defects held out for "
        "calibration.",
        "fr": "Le coût des politiques de cette révision n'est pas connu : elle ne porte aucun compte sur des pièces "
        "mises de côté. Publiez-la à nouveau (python -m training.release) à partir d'entraînements avec au moins "
        "5 bonnes pièces et 5 défauts mis de côté pour l'étalonnage.",
    },
    "cost_waiting": {"en": "No inspector is loaded yet.", "fr": "Aucun inspecteur n'est encore chargé."},
    "cost_wrong": {
        "en": "“{name}” has to be a number of 0 or more.",
        "fr": "« {name} » doit être un nombre, 0 ou plus.",
    },
    "cost_wrong_share": {
        "en": "“{name}” has to be above 0 and below 100.",
        "fr": "« {name} » doit être au-dessus de 0 et au-dessous de 100.",
    },
    "cost_use": {"en": "Use {policy} as the policy", "fr": "Choisir {policy} comme politique"},
    "cost_use_none": {"en": "Use the cheapest policy", "fr": "Choisir la politique la moins chère"},
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
    # monitor
    "mon_period": {"en": "Period", "fr": "Période"},
    "mon_hour": {"en": "last hour", "fr": "dernière heure"},
    "mon_day": {"en": "last day", "fr": "dernier jour"},
    "mon_week": {"en": "last 7 days", "fr": "7 derniers jours"},
    "mon_all": {"en": "all", "fr": "tout"},
    "mon_refresh": {"en": "Refresh", "fr": "Actualiser"},
    "mon_empty": {"en": "Nothing has been inspected yet", "fr": "Rien n'a encore été inspecté"},
    "mon_empty_1": {
        "en": "Each inspection of the page and of the API will be counted here.",
        "fr": "Chaque inspection de la page et de l'API sera comptée ici.",
    },
    "mon_none": {"en": "Nothing in this period", "fr": "Rien pendant cette période"},
    "mon_none_1": {"en": "Choose a longer one.", "fr": "Choisissez-en une plus longue."},
    "mon_memory": {
        "en": "Counted in memory since the app was started, the latest {most} at most; a restart forgets them. Set "
        "VIGIE_LOG to a folder to keep a log. No picture is kept.",
        "fr": "Compté en mémoire depuis le démarrage de l'application, les {most} dernières au plus ; un redémarrage "
        "les oublie. Donnez un dossier à VIGIE_LOG pour tenir un journal. Aucune photo n'est gardée.",
    },
    "mon_log": {
        "en": "From the log in the folder “{folder}” (VIGIE_LOG), the latest {most} inspections at most.",
        "fr": "D'après le journal du dossier « {folder} » (VIGIE_LOG), les {most} dernières inspections au plus.",
    },
    "mon_count": {"en": "Inspections", "fr": "Inspections"},
    "mon_rate": {"en": "Not passed", "fr": "Non passées"},
    "mon_rate_of": {
        "en": "{defects} defective, {reviews} to review",
        "fr": "{defects} défectueuses, {reviews} à vérifier",
    },
    "mon_latency": {"en": "Time, median", "fr": "Durée, médiane"},
    "mon_p95": {"en": "95 % are within {ms} ms", "fr": "95 % en {ms} ms au plus"},
    "mon_energy": {"en": "Energy, mean", "fr": "Énergie, moyenne"},
    "mon_sum": {"en": "{wh} Wh in all", "fr": "{wh} Wh en tout"},
    "mon_unmeasured": {"en": "({count} not measured)", "fr": "({count} non mesurées)"},
    "mon_per_1000": {"en": "Energy per 1,000", "fr": "Énergie pour 1\u202f000"},
    "mon_queue": {"en": "Waiting now", "fr": "En attente"},
    "mon_plot_count": {"en": "Inspections over time", "fr": "Inspections dans le temps"},
    "mon_plot_rate": {"en": "Not passed, %", "fr": "Non passées, %"},
    "mon_plot_latency": {"en": "Time: median and 95 %", "fr": "Durée : médiane et 95 %"},
    "mon_plot_energy": {"en": "Mean energy", "fr": "Énergie moyenne"},
    "mon_top": {"en": "up to", "fr": "jusqu'à"},
    "mon_nothing": {"en": "nothing", "fr": "rien"},
    "mon_plot_label": {
        "en": "{title}, from {first} to {last}, {top}",
        "fr": "{title}, du {first} au {last}, {top}",
    },
    "mon_by": {"en": "By inspector, revision and policy", "fr": "Par inspecteur, révision et politique"},
    "mon_drift": {"en": "Drift", "fr": "Dérive"},
    "mon_drift_none": {
        "en": "No part has been watched for drift with {name} since the app was started.",
        "fr": "Aucune pièce n'a été suivie pour la dérive avec {name} depuis le démarrage de l'application.",
    },
    "mon_drift_still": {
        "en": "None of the {members} detectors of {name} that are watched has drifted; pictures so far: {parts}.",
        "fr": "Aucun des {members} détecteurs suivis de {name} n'a dérivé ; photos jusqu'ici : {parts}.",
    },
    "mon_drift_moved": {
        "en": "The scores of {moved} have drifted with {name}; pictures so far: {parts}.",
        "fr": "Les scores de {moved} ont dérivé avec {name} ; photos jusqu'ici : {parts}.",
    },
    "mon_drift_link": {"en": "Open the drift panel", "fr": "Ouvrir le panneau de dérive"},
    # what if
    "whatif": {"en": "What if?", "fr": "Et si ?"},
    "whatif_policy": {"en": "With the policy", "fr": "Avec la politique"},
    "whatif_reset": {"en": "Back to what was decided", "fr": "Revenir à ce qui a été décidé"},
    "whatif_waiting": {
        "en": "Inspect a part first: its votes are then decided again here, without another inspection.",
        "fr": "Inspectez d'abord une pièce : ses votes seront rejugés ici, sans nouvelle inspection.",
    },
    "whatif_line": {
        "en": "Calibrated line ({cut}): {value}. Scored: {score}.",
        "fr": "Limite étalonnée ({cut}) : {value}. Score : {score}.",
    },
    "whatif_real": {"en": "Decided", "fr": "Décidé"},
    "whatif_hypothetical": {"en": "Hypothetical", "fr": "Hypothétique"},
    "whatif_by": {"en": "policy {policy}", "fr": "politique {policy}"},
    "whatif_open": {"en": "NOT KNOWN", "fr": "INCONNU"},
    "whatif_nothing": {
        "en": "Nothing is changed yet: choose another policy, or move a detector's line.",
        "fr": "Rien n'est encore changé : choisissez une autre politique, ou déplacez la limite d'un détecteur.",
    },
    "whatif_same": {"en": "The same decision.", "fr": "La même décision."},
    "whatif_other": {"en": "Another decision.", "fr": "Une autre décision."},
    "whatif_needs_one": {
        "en": "Needs a new inspection: {members} was not asked.",
        "fr": "Demande une nouvelle inspection : {members} n'a pas été consulté.",
    },
    "whatif_needs": {
        "en": "Needs a new inspection: {members} were not asked.",
        "fr": "Demande une nouvelle inspection : {members} n'ont pas été consultés.",
    },
    "whatif_place": {"en": "Score and lines", "fr": "Score et limites"},
    "whatif_calibrated": {"en": "Calibrated", "fr": "Étalonnée"},
    "whatif_now": {"en": "Here", "fr": "Ici"},
    "whatif_p": {"en": "p-value at the line", "fr": "Valeur p à la limite"},
    "whatif_score": {"en": "score {score}", "fr": "score {score}"},
    "whatif_hint": {
        "en": "Dot: the score. Thin mark: the calibrated line. Thick mark: the line here (*: moved). A line takes all "
        "other lines of its detector along. Only this panel changes; the report and its download do not. One part is "
        "no reason to move a line: what a policy does is counted on held-out parts.",
        "fr": "Point : le score. Repère fin : la limite étalonnée. Repère épais : la limite d'ici (* : déplacée). Une "
        "limite entraîne toutes les autres de son détecteur. Seul ce panneau change, ni le rapport ni son "
        "téléchargement. Une pièce ne justifie pas de déplacer une limite : une politique se juge sur des pièces mises "
        "de côté.",
    },
    # links to the page
    "link_copy": {"en": "Copy a link to this choice", "fr": "Copier un lien vers ce choix"},
    "link_shown": {"en": "Link, pinned to the commit", "fr": "Lien, fixé au commit"},
    "link_inspector": {
        "en": "The link asks for the inspector “{name}”, which this app does not serve ({known}). The first one is "
        "chosen, with its defaults.",
        "fr": "Le lien demande l'inspecteur « {name} », que cette application ne propose pas ({known}). Le premier est "
        "choisi, avec ses valeurs par défaut.",
    },
    "link_revision": {
        "en": "The link asks for the revision “{name}”, which cannot be had; {default} is chosen. ({cause})",
        "fr": "Le lien demande la révision « {name} », introuvable ; {default} est choisie. ({cause})",
    },
    "link_policy": {
        "en": "The link asks for the policy “{name}”, which this revision does not have; {default} is chosen.",
        "fr": "Le lien demande la politique « {name} », que cette révision n'a pas ; {default} est choisie.",
    },
    # models
    "mod_members": {"en": "Detectors", "fr": "Détecteurs"},
    "mod_kind": {"en": "Kind", "fr": "Genre"},
    "mod_commit": {"en": "Commit", "fr": "Commit"},
    "mod_auroc": {"en": "AUROC", "fr": "AUROC"},
    "mod_au_pro": {"en": "AU-PRO", "fr": "AU-PRO"},
    "mod_energy": {"en": "Energy a picture", "fr": "Énergie par photo"},
    "mod_time": {"en": "Time, median", "fr": "Durée, médiane"},
    "mod_policies": {"en": "Policies", "fr": "Politiques"},
    "mod_default": {"en": "default", "fr": "par défaut"},
    "mod_found": {"en": "Defects found", "fr": "Défauts trouvés"},
    "mod_alarms": {"en": "False alarms", "fr": "Fausses alarmes"},
    "mod_review": {"en": "To review", "fr": "À vérifier"},
    "mod_policies_how": {
        "en": "On the test pictures of the release, with Clopper and Pearson's 95 % interval. A part to review does "
        "not pass: a defect there counts as found, a good part there is no false alarm.",
        "fr": "Sur les photos de test de la publication, avec l'intervalle à 95 % de Clopper et Pearson. Une pièce à "
        "vérifier ne passe pas : un défaut y compte comme trouvé, une bonne pièce n'y est pas une fausse alarme.",
    },
    "mod_no_metrics": {
        "en": "This revision carries no figures (metrics.json): release it again (python -m training.release).",
        "fr": "Cette révision ne porte aucun chiffre (metrics.json) : publiez-la à nouveau "
        "(python -m training.release).",
    },
    "mod_source": {
        "en": "Figures from metrics.json of the release: data “{data}”, split {split}, {pictures} test pictures, "
        "measured on {hardware}. Energy is estimated (CodeCarbon).",
        "fr": "Chiffres du metrics.json de la publication : données « {data} », partition {split}, {pictures} photos "
        "de test, mesurés sur {hardware}. L'énergie est estimée (CodeCarbon).",
    },
    "mod_front": {"en": "What an AUROC costs in energy", "fr": "Ce qu'une AUROC coûte en énergie"},
    "mod_front_best": {"en": "none is better for less", "fr": "aucun n'est meilleur pour moins"},
    "mod_front_none": {
        "en": "There are not two detectors or policies with both an energy and an AUROC to draw.",
        "fr": "Il n'y a pas deux détecteurs ou politiques avec une énergie et une AUROC à dessiner.",
    },
    "mod_front_label": {
        "en": "{count} points by energy and AUROC, as in the table beside it",
        "fr": "{count} points par énergie et AUROC, comme dans le tableau à côté",
    },
    "mod_number": {"en": "No.", "fr": "N°"},
    "mod_name": {"en": "Detector or policy", "fr": "Détecteur ou politique"},
    "mod_roc": {"en": "ROC and confusion of each detector", "fr": "ROC et confusion de chaque détecteur"},
    "mod_roc_how": {
        "en": "From the scores of the test pictures in votes.json; the dot is the threshold that metrics.json counts "
        "at.",
        "fr": "D'après les scores des photos de test dans votes.json ; le point est le seuil auquel metrics.json "
        "compte.",
    },
    "mod_no_votes": {
        "en": "This release carries no scores (votes.json), so no curve can be drawn: release it again with this "
        "version (python -m training.release).",
        "fr": "Cette publication ne porte aucun score (votes.json), donc aucune courbe ne peut être tracée : "
        "publiez-la à nouveau avec cette version (python -m training.release).",
    },
    "mod_roc_label": {
        "en": "ROC curve of {name}: AUROC {auroc}, {good} good parts, {defects} defects",
        "fr": "Courbe ROC de {name} : AUROC {auroc}, {good} bonnes pièces, {defects} défauts",
    },
    "mod_false": {"en": "false alarms", "fr": "fausses alarmes"},
    "mod_true": {"en": "found", "fr": "trouvés"},
    "mod_at": {"en": "at {threshold}", "fr": "à {threshold}"},
    "mod_is_good": {"en": "good", "fr": "bonne"},
    "mod_is_defect": {"en": "defect", "fr": "défaut"},
    "mod_says_good": {"en": "passed", "fr": "passées"},
    "mod_says_defect": {"en": "rejected", "fr": "rejetées"},
    "mod_history": {"en": "Revisions and what changed", "fr": "Révisions et ce qui a changé"},
    "mod_no_history": {"en": "No revision is known.", "fr": "Aucune révision n'est connue."},
    "mod_untagged": {"en": "no tag", "fr": "sans étiquette"},
    "mod_no_date": {"en": "date not known", "fr": "date inconnue"},
    "mod_first": {"en": "The first one.", "fr": "La première."},
    "mod_same": {
        "en": "Same detectors, policies and default as before.",
        "fr": "Mêmes détecteurs, politiques et choix par défaut qu'avant.",
    },
    "mod_added": {"en": "New detectors: {names}", "fr": "Nouveaux détecteurs : {names}"},
    "mod_removed": {"en": "Detectors gone: {names}", "fr": "Détecteurs retirés : {names}"},
    "mod_retrained": {"en": "Detectors at another commit: {names}", "fr": "Détecteurs à un autre commit : {names}"},
    "mod_new_policies": {"en": "New policies: {names}", "fr": "Nouvelles politiques : {names}"},
    "mod_gone_policies": {"en": "Policies gone: {names}", "fr": "Politiques retirées : {names}"},
    "mod_changed_policies": {"en": "Policies changed: {names}", "fr": "Politiques modifiées : {names}"},
    "mod_new_default": {
        "en": "Default policy: {after}, before {before}",
        "fr": "Politique par défaut : {after}, avant {before}",
    },
    "mod_cards": {"en": "Cards", "fr": "Fiches"},
    "mod_card": {"en": "Card of", "fr": "Fiche de"},
    "mod_card_inspector": {"en": "the inspector", "fr": "l'inspecteur"},
    "mod_no_card": {"en": "This release carries no card.", "fr": "Cette publication ne porte aucune fiche."},
    # many pictures
    "batch": {"en": "Batch", "fr": "Lot"},
    "batch_intro": {
        "en": "Many pictures at once: choose them, or ZIP archives of them. One that is no good does not stop the "
        "others.",
        "fr": "Plusieurs photos à la fois : choisissez-les, ou des archives ZIP de photos. Une photo inutilisable "
        "n'arrête pas les autres.",
    },
    "batch_limits": {
        "en": "Limits: {files} pictures, {each} MB each, {all} MB in all when unpacked; {formats}, ZIP. What is "
        "uploaded is deleted after an hour or two.",
        "fr": "Limites : {files} photos, {each} Mo chacune, {all} Mo en tout une fois décompressées ; {formats}, ZIP. "
        "Ce qui est envoyé est supprimé après une heure ou deux.",
    },
    "batch_with": {
        "en": "Inspected with what is chosen beside a single picture: revision {revision}, policy {policy}.",
        "fr": "Inspectées avec ce qui est choisi à côté d'une photo seule : révision {revision}, politique {policy}.",
    },
    "batch_files": {"en": "Pictures or ZIP archives", "fr": "Photos ou archives ZIP"},
    "batch_start": {"en": "Inspect all", "fr": "Tout inspecter"},
    "batch_cancel": {"en": "Stop", "fr": "Arrêter"},
    "batch_stopping": {"en": "Stopping after this picture …", "fr": "Arrêt après cette photo …"},
    "batch_empty": {
        "en": "No batch yet. Choose pictures, then press Inspect all.",
        "fr": "Aucun lot. Choisissez des photos, puis appuyez sur Tout inspecter.",
    },
    "batch_waiting": {
        "en": "Waiting for the inspector, or for another batch to end …",
        "fr": "En attente de l'inspecteur, ou de la fin d'un autre lot …",
    },
    "batch_running": {"en": "Inspecting: {done} of {total}.", "fr": "Inspection : {done} sur {total}."},
    "batch_left_s": {"en": "About {seconds} s left.", "fr": "Encore {seconds} s environ."},
    "batch_left_min": {"en": "About {minutes} min left.", "fr": "Encore {minutes} min environ."},
    "batch_done": {"en": "Done: {done} of {total}.", "fr": "Terminé : {done} sur {total}."},
    "batch_stopped": {
        "en": "Stopped by you after {done} of {total}. What was inspected stays here.",
        "fr": "Arrêté par vous après {done} sur {total}. Ce qui a été inspecté reste ici.",
    },
    "batch_broken": {
        "en": "The batch ended early: the queue is full or the connection was lost. Press Inspect all once more.",
        "fr": "Le lot s'est interrompu : file d'attente pleine ou connexion perdue. Appuyez de nouveau sur Tout "
        "inspecter.",
    },
    "batch_errors": {"en": "could not be inspected: {count}", "fr": "n'ont pas pu être inspectées : {count}"},
    "batch_refused": {"en": "Could not be inspected", "fr": "N'ont pas pu être inspectées"},
    "batch_show": {"en": "Show", "fr": "Afficher"},
    "batch_all": {"en": "all", "fr": "toutes"},
    "batch_gallery": {"en": "Inspected, the most suspicious first", "fr": "Inspectées, la plus suspecte d'abord"},
    "batch_iqr": {"en": "IQR", "fr": "EIQ"},
    "batch_hint": {
        "en": "Order: how far the most suspicious detector that counts is beyond its line (+) or short of it (−), in "
        "interquartile ranges (IQR) of its scores on good parts.",
        "fr": "Ordre : de combien le détecteur le plus suspicieux parmi ceux qui comptent dépasse sa limite (+) ou "
        "reste en deçà (−), en écarts interquartiles (EIQ) de ses scores sur de bonnes pièces.",
    },
    "batch_csv": {"en": "Reports (CSV)", "fr": "Rapports (CSV)"},
    "batch_jsonl": {"en": "Reports (JSONL)", "fr": "Rapports (JSONL)"},
    "batch_zip": {"en": "Annotated pictures (ZIP)", "fr": "Photos annotées (ZIP)"},
    # compare
    "cmp_energy_of": {"en": "Energy", "fr": "Énergie"},
    "cmp_first": {"en": "first", "fr": "premier"},
    "cmp_second": {"en": "second", "fr": "second"},
    "cmp_revision": {"en": "Revision, {side}", "fr": "Révision, {side} côté"},
    "cmp_policy": {"en": "Policy, {side}", "fr": "Politique, {side} côté"},
    "cmp_overlay": {"en": "The picture with the heatmap, {side}", "fr": "La photo et la carte, {side} côté"},
    "cmp_run": {"en": "Compare", "fr": "Comparer"},
    "cmp_running": {"en": "Inspecting twice …", "fr": "Deux inspections en cours …"},
    "cmp_empty": {
        "en": "One picture, two revisions or two policies: choose them and press Compare. The picture of Inspect is "
        "taken over.",
        "fr": "Une photo, deux révisions ou deux politiques : choisissez-les et appuyez sur Comparer. La photo de "
        "l'inspection est reprise.",
    },
    "cmp_half": {
        "en": "Only one side could be inspected; the other one says why.",
        "fr": "Un seul côté a pu être inspecté ; l'autre dit pourquoi.",
    },
    "cmp_agree": {"en": "The same decision.", "fr": "La même décision."},
    "cmp_differ": {"en": "The decisions differ.", "fr": "Les décisions diffèrent."},
    "cmp_votes_agree": {"en": "Every detector votes the same.", "fr": "Chaque détecteur vote de même."},
    "cmp_votes_differ": {"en": "Votes that differ: {members}.", "fr": "Votes qui diffèrent : {members}."},
    "cmp_time": {
        "en": "The second took {ms} ms; the energy of one is not known.",
        "fr": "Le second a pris {ms} ms ; l'énergie de l'un n'est pas connue.",
    },
    "cmp_energy": {
        "en": "Second against first: {ms} ms, {mj} mJ (estimated).",
        "fr": "Second face au premier : {ms} ms, {mj} mJ (estimé).",
    },
    "cmp_failed": {"en": "No inspection", "fr": "Pas d'inspection"},
    "cmp_votes": {"en": "What changed in the votes", "fr": "Ce qui a changé dans les votes"},
    "cmp_score": {"en": "Score", "fr": "Score"},
    "cmp_threshold": {"en": "Threshold", "fr": "Seuil"},
    "cmp_changes": {"en": "What differs", "fr": "Ce qui diffère"},
    "cmp_only": {"en": "only in the {side}", "fr": "seulement dans le {side}"},
    "cmp_none": {"en": "nothing", "fr": "rien"},
    "cmp_field_verdict": {"en": "vote", "fr": "vote"},
    "cmp_field_score": {"en": "score", "fr": "score"},
    "cmp_field_threshold": {"en": "threshold", "fr": "seuil"},
    "cmp_field_p_value": {"en": "p-value", "fr": "valeur p"},
    "cmp_field_counted": {"en": "whether it counts", "fr": "s'il compte"},
    "cmp_field_commit": {"en": "commit", "fr": "commit"},
    "cmp_hint": {
        "en": "Scores of two commits of a detector are in units of their own: compare each with its threshold. Each "
        "heatmap is on the fixed scale of its own commit; a side without that heatmap shows the picture alone. Time "
        "and energy are of one inspection each, and the first one may find less in memory.",
        "fr": "Les scores de deux commits d'un détecteur ont chacun leur unité : comparez chacun à son seuil. Chaque "
        "carte est à l'échelle fixe de son commit ; un côté sans cette carte montre la photo seule. Temps et énergie "
        "sont ceux d'une seule inspection, et la première trouve parfois moins en mémoire.",
    },
    # feedback
    "fb": {"en": "Is the verdict right?", "fr": "Le verdict est-il juste ?"},
    "fb_off": {
        "en": "Labels are not collected here. Whoever runs this app can switch that on with VIGIE_FEEDBACK, a folder "
        "for labelled pictures.",
        "fr": "Les avis ne sont pas recueillis ici. Qui exploite cette application peut l'activer avec "
        "VIGIE_FEEDBACK, un dossier pour les photos étiquetées.",
    },
    "fb_before": {
        "en": "A button stores this picture, what you say it is, and the report, so that detectors can learn from it. "
        "Not stored: who you are, and what the file says of camera and place. Without a press nothing is stored.",
        "fr": "Un bouton enregistre cette photo, ce que vous en dites et le rapport, pour que les détecteurs "
        "apprennent. Ne sont pas enregistrés : qui vous êtes, ni ce que le fichier dit de l'appareil et du lieu. "
        "Sans appui, rien n'est enregistré.",
    },
    "fb_repo": {
        "en": "It also goes to the dataset {repo} on the Hugging Face Hub.",
        "fr": "Cela va aussi dans le jeu de données {repo} sur le Hub de Hugging Face.",
    },
    "fb_unsure": {
        "en": "The detectors are unsure or disagree: here your label helps most.",
        "fr": "Les détecteurs hésitent ou se contredisent : c'est ici que votre avis aide le plus.",
    },
    "fb_type": {"en": "Type of defect, if it has one", "fr": "Type de défaut, s'il y en a un"},
    "fb_type_info": {"en": "Choose one, or type a new one", "fr": "Choisissez-en un, ou écrivez-en un nouveau"},
    "fb_any": {"en": "any defect", "fr": "un défaut quelconque"},
    "fb_good": {"en": "The part is good", "fr": "La pièce est bonne"},
    "fb_defect": {"en": "The part is defective", "fr": "La pièce est défectueuse"},
    "fb_right": {"en": "Right: {what}", "fr": "Juste : {what}"},
    "fb_wrong": {"en": "Wrong: {what}", "fr": "Faux : {what}"},
    "fb_stored": {
        "en": "Thank you. Stored as “{label}”; labelled pictures so far: {pictures}.",
        "fr": "Merci. Enregistré comme « {label} » ; photos étiquetées jusqu'ici : {pictures}.",
    },
    "fb_known": {
        "en": "Thank you. This picture was labelled “{label}” already; it counts once.",
        "fr": "Merci. Cette photo était déjà étiquetée « {label} » ; elle compte une fois.",
    },
    "fb_moved": {
        "en": "Thank you. Now labelled “{label}”; the earlier label is gone.",
        "fr": "Merci. Désormais étiquetée « {label} » ; l'étiquette précédente est retirée.",
    },
    "tab_inspect": {"en": "Inspect", "fr": "Inspecter"},
    "tab_batch": {"en": "Batch", "fr": "Lot"},
    "tab_compare": {"en": "Compare", "fr": "Comparer"},
    "tab_models": {"en": "Models", "fr": "Modèles"},
    "tab_monitor": {"en": "Monitor", "fr": "Suivi"},
}
