"""The words of the panels below a verdict: drift, cost, whatif, link and fb (feedback), by their prefixes."""

from anomaly.policy import Text

PANEL_TEXTS: dict[str, Text] = {
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
    "cost_here": {
        "en": "The part that is shown: {policy}, the cheapest at these costs, would decide {decision} (it was {real}, "
        "by {by}).",
        "fr": "La pièce affichée : {policy}, la moins chère à ces coûts, déciderait {decision} (décidé : {real}, par "
        "{by}).",
    },
    "cost_here_needs": {
        "en": "The part that is shown: {policy}, the cheapest at these costs, needs votes that were not asked for "
        "({members}). Inspect again with it.",
        "fr": "La pièce affichée : {policy}, la moins chère à ces coûts, a besoin de votes qui n'ont pas été demandés "
        "({members}). Inspectez à nouveau avec elle.",
    },
    "cost_use": {"en": "Use {policy} as the policy", "fr": "Choisir {policy} comme politique"},
    "cost_use_none": {"en": "Use the cheapest policy", "fr": "Choisir la politique la moins chère"},
    # provenance
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
    "link_whatif": {
        "en": "For What if? the link asks for the policy “{name}”, which this revision does not have; it is left out.",
        "fr": "Pour Et si ?, le lien demande la politique « {name} », que cette révision n'a pas ; elle est laissée de "
        "côté.",
    },
    "link_member": {
        "en": "The link moves a threshold of “{name}”, which is no detector of this revision ({known}): left out.",
        "fr": "Le lien déplace un seuil de « {name} », qui n'est pas un détecteur de cette révision ({known}) ; il est "
        "laissé de côté.",
    },
    "link_line_wrong": {
        "en": "The link's threshold “{part}” cannot be read: detector:number is expected, such as classifier:0.5. It "
        "is left out.",
        "fr": "Le seuil « {part} » du lien est illisible : on attend détecteur:nombre, comme classifier:0.5. Il est "
        "laissé de côté.",
    },
    "link_lines_long": {
        "en": "The link's thresholds (“{part} …”) are longer than {most} characters; they are left out.",
        "fr": "Les seuils du lien (« {part} … ») dépassent {most} caractères ; ils sont laissés de côté.",
    },
    "link_line_twice": {
        "en": "The link moves the threshold of {name} more than once; “{part}” is left out.",
        "fr": "Le lien déplace plus d'une fois le seuil de {name} ; « {part} » est laissé de côté.",
    },
    "link_line_range": {
        "en": "The link puts the threshold of {name} at {line}; for this part it can be from {low} to {high}. It is "
        "where it was calibrated.",
        "fr": "Le lien met le seuil de {name} à {line} ; pour cette pièce, il peut aller de {low} à {high}. Il est à "
        "sa place étalonnée.",
    },
    "link_line_none": {
        "en": "The link moves the threshold of {name}, which has no vote that the policy {policy} counts here; it is "
        "left out.",
        "fr": "Le lien déplace le seuil de {name}, qui n'a pas ici de vote que la politique {policy} compte ; il est "
        "laissé de côté.",
    },
    "link_waits": {
        "en": "The link sets thresholds or a policy in What if?: inspect a part to see them.",
        "fr": "Le lien règle des seuils ou une politique dans Et si ? : inspectez une pièce pour les voir.",
    },
    # models
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
    "fb_mark": {"en": "Mark where the defect is (optional)", "fr": "Marquer où est le défaut (facultatif)"},
    "fb_region": {"en": "Paint over the defect", "fr": "Peignez sur le défaut"},
    "fb_skip": {"en": "Skip", "fr": "Passer"},
    "fb_off_title": {"en": "Labels are not collected", "fr": "Les avis ne sont pas recueillis"},
    "fb_none": {"en": "No part waits for you", "fr": "Aucune pièce ne vous attend"},
    "fb_comes": {
        "en": "Here come the parts of this visit, from Inspect and Batch, whose decision is review or on which "
        "detectors that count disagree. Nobody else sees them; they are gone when you leave the page.",
        "fr": "Ici viennent les pièces de cette visite, d'Inspecter et de Lot, dont la décision est à vérifier ou sur "
        "lesquelles les détecteurs qui comptent se contredisent. Personne d'autre ne les voit ; elles disparaissent "
        "quand vous quittez la page.",
    },
    "fb_waiting": {"en": "Parts that wait for you: {parts}", "fr": "Pièces qui vous attendent : {parts}"},
    "fb_order": {
        "en": "Reviews first, then those with a detector nearest to its threshold. A skipped part comes back when it "
        "is inspected again.",
        "fr": "D'abord celles à vérifier, puis celles dont un détecteur est le plus près de son seuil. Une pièce "
        "passée revient quand elle est inspectée de nouveau.",
    },
    "fb_nearest": {
        "en": "Nearest to its threshold: {member}, {distance} IQR",
        "fr": "Le plus près de son seuil : {member}, {distance} EIQ",
    },
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
}
