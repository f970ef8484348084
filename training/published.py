"""Figures that others have published for data sets people report on here, each with its source. Nothing else."""

from pydantic import BaseModel, ConfigDict


class Published(BaseModel):
    """One row of somebody else's table."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str
    trunk: str
    image_auroc: float | None = None
    pixel_auroc: float | None = None
    au_pro: float | None = None
    source: str
    conditions: str  # what is not as it is here


_ANOMALIB = "anomalib, README of {} (github.com/openvinotoolkit/anomalib), seed 42"
_FULL_SIZE = "original pictures of 1024 px; another trunk"
_SAME = "pictures of 256 px; MobileNetV2 trained on ImageNet; 2 CPU cores"
_MEASURED = "anomalib 2.7, measured for this project"

PUBLISHED: dict[str, tuple[Published, ...]] = {
    "mvtec_transistor": (
        Published(
            method="PatchCore",
            trunk="Wide ResNet-50",
            image_auroc=1.000,
            pixel_auroc=0.981,
            source=_ANOMALIB.format("PatchCore"),
            conditions=_FULL_SIZE,
        ),
        Published(
            method="PatchCore",
            trunk="ResNet-18",
            image_auroc=0.996,
            pixel_auroc=0.974,
            source=_ANOMALIB.format("PatchCore"),
            conditions=_FULL_SIZE,
        ),
        Published(
            method="PaDiM",
            trunk="Wide ResNet-50",
            image_auroc=0.976,
            pixel_auroc=0.976,
            source=_ANOMALIB.format("PaDiM"),
            conditions=_FULL_SIZE,
        ),
        Published(
            method="PaDiM",
            trunk="ResNet-18",
            image_auroc=0.920,
            pixel_auroc=0.968,
            source=_ANOMALIB.format("PaDiM"),
            conditions=_FULL_SIZE,
        ),
        Published(
            method="PatchCore 1 %",
            trunk="MobileNetV2",
            image_auroc=0.990,
            au_pro=0.937,
            source=_MEASURED,
            conditions=_SAME,
        ),
        Published(
            method="PaDiM", trunk="MobileNetV2", image_auroc=0.933, au_pro=0.920, source=_MEASURED, conditions=_SAME
        ),
        Published(
            method="DFM", trunk="MobileNetV2", image_auroc=0.961, au_pro=0.784, source=_MEASURED, conditions=_SAME
        ),
    ),
}


def published(data: str, category: str) -> tuple[Published, ...]:
    """What is known for that data set; () for nothing.

    Args:
        data: its name: of the folder, or org/name@revision.
        category: of it.
    """
    name = data.strip("/").rsplit("/", maxsplit=1)[-1].split("@")[0].lower()
    of_mvtec = (f"mvtec_{category}",) if "mvtec" in name else ()  # else a transistor may be anybody's
    return next((PUBLISHED[key] for key in (name, category, *of_mvtec) if key in PUBLISHED), ())
