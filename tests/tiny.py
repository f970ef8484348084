"""Tiny real detectors on 64x64 pictures, one or more of each kind, and an inspector of them that lives in memory.

The networks have random weights; batch norm, Gaussians and the patch memory have the statistics of pictures.
Everything is seeded: two calls give byte-identical detectors.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from anomaly.backbones import Trunk, TrunkConfig
from anomaly.calibration import Calibration, HeatmapScale, calibrate
from anomaly.detectors import (
    Autoencoder,
    AutoencoderConfig,
    BaselineCNN,
    BaselineCNNConfig,
    Classical,
    ClassicalConfig,
    Classifier,
    ClassifierConfig,
    Detector,
    Localiser,
    LocaliserConfig,
    Mahalanobis,
    MahalanobisConfig,
    PatchKNN,
    PatchKNNConfig,
)
from anomaly.detectors.autoencoder import PerceptualConfig
from anomaly.detectors.base import prepare
from anomaly.detectors.classical import HeadName
from anomaly.detectors.mahalanobis import pooled_features
from anomaly.detectors.patches import patch_features
from anomaly.emissions import EmissionsMeter
from anomaly.images import RgbImage
from anomaly.inspector import Inspector, InspectorFile, Member, MemberRef
from anomaly.policy import Policy, Rule
from training import train_classical

SIDE = 64  # pixels of a picture, and of what the detectors look at
CLASSES = ("good", "bent", "cut")
FITTED = ("mahalanobis", "mahalanobis_global", "patch_knn")  # these know what good looks like
TRUNK = TrunkConfig(library="timm", architecture="test_resnet", layers=(2, 3, 4))  # strides 8, 16, 32


def good_images(count: int, seed: int = 0, size: tuple[int, int] = (SIDE, SIDE)) -> Tensor:
    """Coloured waves with a little noise: float32 (count, 3, H, W), multiples of 1/255."""
    rng = np.random.default_rng(seed)
    y, x = np.linspace(0, 1, size[0])[:, None], np.linspace(0, 1, size[1])[None]
    phase = rng.uniform(-0.3, 0.3, (count, 1, 1, 1))
    colour = np.arange(3).reshape(1, 3, 1, 1)
    waves = 0.5 + 0.3 * np.sin(2 * math.pi * (2 * x + y) + phase + colour)
    pixels = np.rint(255 * np.clip(waves + rng.normal(0, 0.02, waves.shape), 0, 1))
    return torch.from_numpy(pixels.astype(np.float32)) / 255


def corrupted(images: Tensor) -> Tensor:
    """The same pictures with a checkerboard over a quarter of each side."""
    height, width = images.shape[-2], images.shape[-1]
    spoiled = images.clone()
    patch = spoiled[:, :, height // 4 : height // 2, width // 4 : width // 2]
    rows, columns = torch.arange(patch.shape[-2])[:, None], torch.arange(patch.shape[-1])[None]
    patch[:] = ((rows // 2 + columns // 2) % 2).float()
    return spoiled


def labelled_images(seed: int = 0, each: int = 8) -> tuple[Tensor, list[str]]:
    """`each` of every one of CLASSES: good, bent = corrupted, cut = without the lower half."""
    good, bent, cut = (good_images(each, seed=1000 + 3 * seed + index) for index in range(3))
    cut[:, :, SIDE // 2 :] = 0
    return torch.cat([good, corrupted(bent), cut]), [name for name in CLASSES for _ in range(each)]


def as_picture(image: Tensor) -> RgbImage:
    """float (3, H, W) in [0, 1] -> uint8 (H, W, 3), what `images.read` returns."""
    return np.ascontiguousarray((image * 255).round().byte().permute(1, 2, 0).numpy())


def tiny_trunk(config: TrunkConfig = TRUNK, seed: int = 0) -> Trunk:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Trunk(config)


@torch.no_grad()
def tiny_detectors() -> dict[str, Detector]:
    """By the names that members of an inspector have; in evaluation mode."""
    size = (SIDE, SIDE)
    with torch.random.fork_rng():
        torch.manual_seed(6)  # with it Grad-CAM finds something in every picture
        networks: dict[str, Detector] = {
            "autoencoder": Autoencoder(AutoencoderConfig(input_size=size, width=4)),
            "baseline_cnn": BaselineCNN(BaselineCNNConfig(input_size=size, classes=CLASSES, width=0.05)),
            "classifier": Classifier(
                ClassifierConfig(input_size=size, classes=CLASSES, architecture="test_efficientnet")
            ),
        }
        for network in networks.values():
            settle(network)
        trunk = tiny_trunk()
    position = MahalanobisConfig(input_size=size, trunk=TRUNK, use_layers=(2, 3))
    pooled = MahalanobisConfig(input_size=size, trunk=TRUNK, use_layers=(3, 4), pooling="global")
    patches = PatchKNNConfig(input_size=size, trunk=TRUNK, use_layers=(2, 3))
    good = good_images(40)
    detectors = networks | {
        "mahalanobis": fit_gaussian(position, trunk, good, channels=24),
        "mahalanobis_global": fit_gaussian(pooled, trunk, good, channels=24),
        "patch_knn": fill_memory(patches, trunk, good[:8]),
        "classical": fit_classical("forest", trunk, CLASSES),
        "localiser": tiny_localiser(),
    }
    return {name: detector.eval().requires_grad_(False) for name, detector in detectors.items()}


def perceptual_autoencoder() -> Autoencoder:
    """One that compares maps of a trunk as well."""
    config = TRUNK.model_copy(update={"layers": (2, 3)})
    perceptual = PerceptualConfig(input_size=(64, 64), trunk=config, use_layers=(2, 3), weight=0.1)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = Autoencoder(AutoencoderConfig(input_size=(64, 64), width=4, perceptual=perceptual))
        settle(network)
    return network.eval().requires_grad_(False)


def settle(network: Detector) -> None:
    """Gives batch norm the statistics of pictures; as built, a deep narrow network answers the same to any picture."""
    network.train()
    for seed in range(20):
        good = good_images(8, seed=100 + seed)
        network.predict(torch.cat([good, corrupted(good)]))


def fit_gaussian(config: MahalanobisConfig, trunk: Trunk, good: Tensor, channels: int) -> Mahalanobis:
    """The Gaussian of `channels` random channels, its covariance shrunk by a tenth."""
    maps = trunk(prepare(good, config), config.use_layers)
    vectors, _ = pooled_features([maps[layer] for layer in config.use_layers], config.pooling)  # (N, P, C)
    chosen = torch.randperm(vectors.shape[-1], generator=torch.Generator().manual_seed(0))[:channels].sort().values
    mean = vectors[:, :, chosen].mean(dim=0)
    deviation = vectors[:, :, chosen] - mean
    covariance = torch.einsum("npd,npe->pde", deviation, deviation) / len(good)
    covariance = 0.9 * covariance + 0.1 * deviation.square().mean() * torch.eye(channels)
    return Mahalanobis(config, trunk, mean, whiten(covariance), chosen)


def whiten(covariance: Tensor) -> Tensor:
    """(P, d, d) -> W with W^T W = inverse covariance."""
    lower = torch.linalg.cholesky(covariance)
    return torch.linalg.solve_triangular(lower, torch.eye(lower.shape[-1], dtype=lower.dtype), upper=False)


def fill_memory(config: PatchKNNConfig, trunk: Trunk, good: Tensor) -> PatchKNN:
    """Every fourth patch."""
    maps = trunk(prepare(good, config), config.use_layers)
    patches = patch_features([maps[layer] for layer in config.use_layers])
    return PatchKNN(config, trunk, patches.flatten(2).transpose(1, 2).flatten(0, 1)[::4].contiguous())


@torch.no_grad()
def tiny_localiser() -> Localiser:
    """It marks something in every picture; what, is at random."""
    with torch.random.fork_rng():
        torch.manual_seed(8)
        config = LocaliserConfig(
            input_size=(SIDE, SIDE),
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
            labels=CLASSES[1:],
            architecture="test_resnet",
            layers=(2, 3, 4),
            channels=32,
            convolutions=1,
        )
        localiser = Localiser(config)
        settle(localiser)
    return localiser.eval().requires_grad_(False)


@torch.no_grad()
def fit_classical(head: HeadName, trunk: Trunk, classes: tuple[str, ...]) -> Classical:
    """On `labelled_images`."""
    images, labels = labelled_images()
    config = ClassicalConfig(
        input_size=(SIDE, SIDE), trunk=TRUNK, use_layers=(3, 4), pooling=("mean", "max"), classes=classes, head=head
    )
    args = train_classical.Args(data=Path(), category="", out=Path(), head=head, trees=16)
    vectors = train_classical.pooled([trunk(prepare(images, config))[layer] for layer in (3, 4)], config.pooling)
    detector, _ = train_classical.fit(config, trunk, vectors[None], labels, args)
    return detector.eval().requires_grad_(False)


@torch.no_grad()
def tiny_calibration(detector: Detector) -> Calibration:
    """From 20 good pictures and 4 corrupted ones that nothing was fitted on."""
    good, spoiled = detector.predict(good_images(20, seed=1)), detector.predict(corrupted(good_images(4, seed=2)))
    scale = None
    if good.heatmaps is not None:
        low, high = (float(good.heatmaps.quantile(q)) for q in (0.5, 0.999))
        scale = HeatmapScale(low=low, high=high, images=20)
    scores = good.scores.tolist(), spoiled.scores.tolist()
    return calibrate(*scores, split_hash="0" * 16, far=0.05, heatmap=scale)


def tiny_inspector(detectors: Mapping[str, Detector], meter: EmissionsMeter) -> Inspector:
    """Every detector a member; the policies `any` and `majority` need all of them."""
    names = tuple(detectors)
    refs = [MemberRef(name=name, repo=f"test/{name}", commit="0" * 40, sha256="0" * 64) for name in names]
    policies = tuple(
        Policy(
            name=kind,
            description={"en": kind, "fr": kind},
            rule=Rule(kind=kind, members=names, threshold="far"),
            required=names,
        )
        for kind in ("any", "majority")
    )
    file = InspectorFile(
        category="waves", labels=CLASSES, members=tuple(refs), policies=policies, default_policy="majority"
    )
    members = [
        Member(ref, detector, tiny_calibration(detector))
        for ref, detector in zip(refs, detectors.values(), strict=True)
    ]
    return Inspector(file, members, source="memory", revision="main", commit="0" * 40, meter=meter)


def largest_allocation(work: Callable[[], object]) -> int:
    """Bytes of the largest tensor, intermediate ones within torch's own functions included, that `work` allocates."""
    with torch.no_grad(), torch.profiler.profile(profile_memory=True, acc_events=True) as profile:
        work()
    return max(event.self_cpu_memory_usage for event in profile.events())
