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


MVTEC = ["carpet", "grid", "leather", "tile", "wood", "bottle", "cable", "capsule", "hazelnut", "metal_nut", "pill"]
MVTEC += ["screw", "toothbrush", "transistor", "zipper"]

# Method and trunk -> image AUROC, pixel AUROC of every category of MVTEC, in thousandths.
_README: dict[tuple[str, str], tuple[tuple[int, ...], tuple[int, ...]]] = {
    ("PatchCore", "Wide ResNet-50"): (
        (984, 959, 1000, 1000, 989, 1000, 990, 982, 1000, 994, 924, 960, 933, 1000, 982),
        (988, 968, 991, 961, 934, 984, 988, 988, 987, 989, 980, 989, 988, 981, 983),
    ),
    ("PatchCore", "ResNet-18"): (
        (970, 947, 1000, 997, 997, 1000, 986, 965, 1000, 991, 916, 943, 931, 996, 953),
        (986, 955, 990, 943, 933, 981, 984, 986, 986, 986, 974, 991, 988, 974, 983),
    ),
    ("PaDiM", "Wide ResNet-50"): (
        (995, 942, 1000, 974, 993, 999, 878, 927, 964, 989, 939, 845, 942, 976, 882),
        (991, 970, 993, 955, 957, 985, 970, 988, 985, 982, 966, 988, 991, 976, 986),
    ),
    ("PaDiM", "ResNet-18"): (
        (945, 857, 982, 950, 976, 994, 844, 901, 750, 961, 863, 759, 889, 920, 780),
        (984, 918, 994, 934, 947, 983, 965, 984, 978, 970, 957, 978, 988, 968, 979),
    ),
}
# Method -> image AUROC and AU-PRO, on mvtec_transistor.
_HERE = {"PatchCore 1 %": (0.990, 0.937), "PaDiM": (0.933, 0.920), "DFM": (0.961, 0.784)}


def _of_readme(category: str) -> tuple[Published, ...]:
    place = MVTEC.index(category)
    return tuple(
        Published(
            method=method,
            trunk=trunk,
            image_auroc=image[place] / 1000,
            pixel_auroc=pixel[place] / 1000,
            source=f"anomalib, README of {method} (github.com/openvinotoolkit/anomalib), seed 42",
            conditions="original pictures of full size; another trunk",
        )
        for (method, trunk), (image, pixel) in _README.items()
    )


def _measured() -> tuple[Published, ...]:
    return tuple(
        Published(
            method=method,
            trunk="MobileNetV2",
            image_auroc=image_auroc,
            au_pro=au_pro,
            source="anomalib 2.7, measured for this project",
            conditions="pictures of 256 px; MobileNetV2 trained on ImageNet; 2 CPU cores",
        )
        for method, (image_auroc, au_pro) in _HERE.items()
    )


PUBLISHED: dict[str, tuple[Published, ...]] = {f"mvtec_{category}": _of_readme(category) for category in MVTEC}
PUBLISHED["mvtec_transistor"] += _measured()


def published(data: str, category: str) -> tuple[Published, ...]:
    """What is known for that data set; () for nothing.

    Args:
        data: its name: of the folder, or org/name@revision.
        category: of it.
    """
    name = data.strip("/").rsplit("/", maxsplit=1)[-1].split("@")[0].lower()
    of_mvtec = (f"mvtec_{category}",) if "mvtec" in name else ()  # else a transistor may be anybody's
    return next((PUBLISHED[key] for key in (name, category, *of_mvtec) if key in PUBLISHED), ())
