"""What the autoencoder is trained on: squared error, difference of features, structural similarity."""

import torch
from torch import Tensor
from torch.nn import functional as F

from anomaly.detectors.autoencoder import Perceptual


def reconstruction_loss(
    images: Tensor, reconstructions: Tensor, perceptual: Perceptual | None = None, ssim: float = 0.0
) -> Tensor:
    """Mean squared error + weight * mean difference of features + ssim * (1 - SSIM).

    Args:
        images: float32 (B, 3, H, W) in [0, 1].
        reconstructions: as many, with gradient; float16 under autocast.
        perceptual: compares features; its config has the weight.
        ssim: weight of the structural similarity, 0 for none.

    Returns:
        A scalar, >= 0, 0 where both are equal.
    """
    reconstructions = reconstructions.float()
    loss = F.mse_loss(reconstructions, images)
    if perceptual is not None:
        loss = loss + perceptual.config.weight * perceptual(images, reconstructions).mean()
    if ssim:
        loss = loss + ssim * (1 - structural_similarity(images, reconstructions))
    return loss


def structural_similarity(images: Tensor, others: Tensor) -> Tensor:
    """SSIM (Wang et al. 2004, doi 10.1109/TIP.2003.819861) of float32 (B, 3, H, W) in [0, 1]: a scalar, 1 if equal.

    Windows of 11 px, Gaussian with sigma 1.5, as in the paper; per channel, not of the luminance; pictures mirrored at
    the border, which the paper leaves out.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure  # 5 s to import

    with torch.autocast(images.device.type, enabled=False):  # E[x^2] - E[x]^2 cancels in float16
        similarity = structural_similarity_index_measure(others, images, data_range=1.0)
    assert isinstance(similarity, Tensor)  # a tuple only where more than the mean is asked for
    return similarity
