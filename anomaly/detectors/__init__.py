"""The detectors this version knows. `kind` in a model's config.json is looked up here, never imported."""

from anomaly.detectors.autoencoder import Autoencoder, AutoencoderConfig
from anomaly.detectors.base import Boxes, Detector, DetectorConfig, DetectorOutput
from anomaly.detectors.baseline_cnn import BaselineCNN, BaselineCNNConfig
from anomaly.detectors.classical import Classical, ClassicalConfig
from anomaly.detectors.classifier import Classifier, ClassifierConfig
from anomaly.detectors.localiser import Localiser, LocaliserConfig
from anomaly.detectors.mahalanobis import Mahalanobis, MahalanobisConfig
from anomaly.detectors.patch_knn import PatchKNN, PatchKNNConfig

DETECTORS: dict[str, type[Detector]] = {
    "autoencoder": Autoencoder,
    "baseline_cnn": BaselineCNN,
    "classical": Classical,
    "classifier": Classifier,
    "localiser": Localiser,
    "mahalanobis": Mahalanobis,
    "patch_knn": PatchKNN,
}

__all__ = [
    "DETECTORS",
    "Autoencoder",
    "AutoencoderConfig",
    "BaselineCNN",
    "BaselineCNNConfig",
    "Boxes",
    "Classical",
    "ClassicalConfig",
    "Classifier",
    "ClassifierConfig",
    "Detector",
    "DetectorConfig",
    "DetectorOutput",
    "Localiser",
    "LocaliserConfig",
    "Mahalanobis",
    "MahalanobisConfig",
    "PatchKNN",
    "PatchKNNConfig",
]
