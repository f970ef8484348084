"""A released inspector, loaded: every member at the commit that inspector.json names, checked."""

import torch
from pydantic import ValidationError

from anomaly import hub
from anomaly.backends import TORCH, Backend
from anomaly.cores import keep_freed_memory, use_given_cores
from anomaly.emissions import EmissionsMeter
from anomaly.errors import ModelLoadError, VigieError
from anomaly.inspector import INSPECTOR_FILE, Inspector, InspectorFile, Member, MemberRef
from anomaly.model_repo import MODEL_FILES, file_sha256, load_detector
from anomaly.policy_check import problems


def load_inspector(
    source: str,
    revision: str | None = None,
    *,
    meter: EmissionsMeter | None = None,
    device: str = "cpu",
    backend: Backend = TORCH,
) -> Inspector:
    """Loads a released inspector: every member at the commit it names, checked.

    Args:
        source: a Hub repo id or a local folder in the Hub's cache layout.
        revision: tag, branch or commit; `main` by default.
        meter: shared by all inspectors of a process.
        device: of torch.
        backend: that runs trunks and networks.

    Raises:
        RegistryError: it cannot be had, of the kind that tells why.
        ModelLoadError: a file of it is not right.
        PolicyError: one of its policies is not possible.
    """
    place = hub.parse_source(source)
    return load_at(place, hub.resolve(place, revision), revision or "main", meter=meter, device=device, backend=backend)


def load_at(
    place: hub.Source,
    commit: str,
    revision: str,
    *,
    meter: EmissionsMeter | None = None,
    device: str = "cpu",
    backend: Backend = TORCH,
) -> Inspector:
    """`load_inspector` for a revision that was resolved already."""
    use_given_cores()
    keep_freed_memory()
    if device.startswith("cuda"):
        if not torch.cuda.is_available():
            raise VigieError(f"device {device!r}: torch sees no CUDA here; VIGIE_DEVICE=auto takes what there is")
        torch.backends.cudnn.allow_tf32 = False  # torch's default for convolutions; thresholds were calibrated in fp32
    meter = meter or EmissionsMeter()
    meter.begin_warm_up()  # looks at the hardware while the members load
    folder = hub.download(place, commit, [INSPECTOR_FILE])
    try:
        file = InspectorFile.model_validate_json((folder / INSPECTOR_FILE).read_bytes())
    except ValidationError as error:
        raise ModelLoadError(
            f"{place.repo_id}@{commit[:12]}: {INSPECTOR_FILE}: {problems(error, InspectorFile)}"
        ) from error
    members = [_load_member(place, ref, file.category, device) for ref in file.members]
    return Inspector(
        file,
        members,
        source=place.text,
        revision=revision,
        commit=commit,
        meter=meter,
        device=device,
        backend=backend,
    )


def _load_member(place: hub.Source, ref: MemberRef, category: str, device: str) -> Member:
    folder = hub.download(place.sibling(ref.repo), ref.commit, MODEL_FILES)
    found = file_sha256(folder / "model.safetensors")
    if found != ref.sha256:
        raise ModelLoadError(
            f"{ref.repo}@{ref.commit[:12]}: model.safetensors is corrupt or was exchanged: its sha256 is "
            f"{found[:16]}, the inspector was released with {ref.sha256[:16]}"
        )
    loaded = load_detector(folder, device=device, sha256=found)
    if category not in loaded.calibrations.categories:
        known = sorted(loaded.calibrations.categories)
        raise ModelLoadError(f"{ref.repo}@{ref.commit[:12]}: not calibrated for {category!r}, only for {known}")
    try:
        detector = loaded.detector.select(category)
    except ValueError as error:
        raise ModelLoadError(f"{ref.repo}@{ref.commit[:12]}: {error}") from error
    return Member(ref, detector, loaded.calibrations.categories[category])
