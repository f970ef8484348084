"""The words of the tabs Batch, Compare, Models and Monitor, by their prefixes batch, cmp, mod and mon."""

from anomaly.policy import Text

TAB_TEXTS: dict[str, Text] = {
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
        "fr": "{defects} en défaut, {reviews} à vérifier",
    },
    "mon_latency": {"en": "Time, median", "fr": "Durée, médiane"},
    "mon_p95": {"en": "95 % are within {ms} ms", "fr": "95 % en {ms} ms au plus"},
    "mon_energy": {"en": "Energy, mean", "fr": "Énergie, moyenne"},
    "mon_sum": {"en": "{wh} Wh in all", "fr": "{wh} Wh en tout"},
    "mon_unmeasured": {"en": "({count} not measured)", "fr": "({count} sans mesure)"},
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
    "tab_feedback": {"en": "Feedback", "fr": "Avis"},
}
