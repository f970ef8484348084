"""Frozen trunks: timm CNNs (features_only) and transformers ViTs (DINOv2, DINOv3). Weights and preprocessing travel
together: whatever gives the weights also gives mean, std and input size."""

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Json, JsonValue, ValidationError
from torch import Tensor, nn

from anomaly.errors import ModelLoadError
from anomaly.imports import importing, without_dynamo

VIT_TYPES = ("dinov2", "dinov2_with_registers", "dinov3_vit")


class TrunkConfig(BaseModel):
    """Enough to build the network without its weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    library: Literal["timm", "transformers"]
    architecture: str  # a timm model name, or a transformers model type out of VIT_TYPES
    arguments: dict[str, JsonValue] = {}  # timm: keyword arguments; transformers: the model's config
    layers: tuple[int, ...]  # that can be asked for; timm: stages, 0 = stride 2; transformers: blocks, 1 = the first


class _Metadata(BaseModel):
    """What a safetensors file says of its own weights. Other keys (licence, origin) are left alone."""

    library: Literal["timm", "transformers"] = "timm"
    architecture: str
    model_args: Json[dict[str, JsonValue]] = {}
    mean: Json[tuple[float, float, float]]
    std: Json[tuple[float, float, float]]
    input_size: Json[int | tuple[int, int] | tuple[int, int, int]]  # side, (height, width) or (3, height, width)


@dataclass(frozen=True, slots=True)
class Pretrained:
    """Weights of a whole network and the preprocessing that belongs to them."""

    library: Literal["timm", "transformers"]
    architecture: str
    arguments: dict[str, JsonValue]
    state: dict[str, Tensor]  # without the classification layer
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    input_size: tuple[int, int]  # (height, width) that the weights were trained at
    source: str  # a file's name with its sha256, or repo@commit


class Trunk(nn.Module):
    """A frozen network that returns feature maps.

    Several detectors may stand on one trunk and take different layers of it; a pass stops at the deepest one asked for.
    """

    def __init__(self, config: TrunkConfig) -> None:
        super().__init__()
        self.config = config
        self.net: Any = _build(config)
        self.eval().requires_grad_(False)
        self._fingerprint: str | None = None
        # another backend (`runners`): images and layers -> maps, None for what it was not made for
        self.runner: Callable[[Tensor, Sequence[int]], dict[int, Tensor] | None] | None = None

    def forward(self, images: Tensor, layers: Collection[int] | None = None) -> dict[int, Tensor]:
        """Runs the network.

        Args:
            images: float32 (B, 3, H, W), normalised.
            layers: which of `config.layers` to return; all by default.

        Returns:
            A map (B, C, h, w) for each layer.
        """
        wanted = sorted(self.config.layers if layers is None else layers)
        if self.runner is not None and (maps := self.runner(images, wanted)) is not None:
            return maps
        return self.maps(images, wanted)

    def maps(self, images: Tensor, wanted: Sequence[int]) -> dict[int, Tensor]:
        """As `forward`, in torch."""
        if self.config.library == "transformers":
            return _vit_maps(self.net, images, wanted)
        maps = self.net.model.forward_intermediates(images, indices=wanted, stop_early=True, intermediates_only=True)
        return dict(zip(wanted, maps, strict=True))

    def train(self, mode: bool = True) -> "Trunk":
        """Stays in evaluation mode: it is frozen."""
        return super().train(False)

    def fingerprint(self) -> str:
        """sha256 over config and every tensor's bytes: equal means byte-identical. Computed once."""
        if self._fingerprint is None:
            digest = hashlib.sha256(self.config.model_dump_json().encode())
            for name, value in sorted(self.state_dict().items()):
                digest.update(name.encode())
                digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
            self._fingerprint = digest.hexdigest()
        return self._fingerprint


def _build(config: TrunkConfig) -> nn.Module:
    if min(config.layers, default=0) < 0:  # timm would count from the end
        raise ModelLoadError(f"layer {min(config.layers)} of {config.architecture}: layers count from 0")
    if config.library == "timm":
        # feature_cls="getter" drops the blocks behind the last stage asked for; timm's own default for the
        # EfficientNet family computes them and throws them away
        net: nn.Module = timm_model(
            config.architecture,
            config.arguments,
            features_only=True,
            feature_cls="getter",
            out_indices=list(config.layers),
        )
        return net
    if config.architecture not in VIT_TYPES:
        raise ModelLoadError(
            f"unknown transformers trunk {config.architecture!r}; this version knows {list(VIT_TYPES)}"
        )
    from transformers import AutoConfig, AutoModel

    vit: Any = AutoModel.from_config(AutoConfig.for_model(config.architecture, **config.arguments))
    blocks = vit.config.num_hidden_layers
    if unknown := [layer for layer in config.layers if not 1 <= layer <= blocks]:
        raise ModelLoadError(f"{config.architecture} has blocks 1 to {blocks}, not {unknown[0]}")
    return vit  # type: ignore[no-any-return]


def timm_model(architecture: str, arguments: Mapping[str, JsonValue], **extra: Any) -> Any:
    """An untrained timm network; `extra` are timm keyword arguments. Raises ModelLoadError for what timm refuses."""
    with importing("timm"), without_dynamo():
        import timm

    if not timm.is_model(architecture):
        raise ModelLoadError(f"unknown timm architecture {architecture!r}; `timm.list_models()` lists the known ones")
    try:
        return timm.create_model(architecture, pretrained=False, **extra, **arguments)
    except (RuntimeError, TypeError, ValueError, AssertionError, IndexError) as error:
        raise ModelLoadError(f"timm cannot build {architecture!r} with {extra | dict(arguments)}: {error}") from error


def _vit_maps(net: Any, images: Tensor, layers: Sequence[int]) -> dict[int, Tensor]:
    """As `output_hidden_states` of transformers gives them, which would run every block."""
    patch = net.config.patch_size
    height, width = images.shape[-2] // patch, images.shape[-1] // patch
    third = net.config.model_type == "dinov3_vit"
    blocks, norm = (net.model.layer, net.norm) if third else (net.encoder.layer, net.layernorm)
    places = {"position_embeddings": net.rope_embeddings(images)} if third else {}
    tokens = net.embeddings(images)
    maps = {}
    for number, block in enumerate(blocks[: max(layers)], start=1):
        tokens = block(tokens, **places)
        if number in layers:
            state = norm(tokens) if number == len(blocks) else tokens  # the last one behind its layer norm
            # class and register tokens come first, whatever their number
            maps[number] = state[:, -height * width :].mT.reshape(len(images), -1, height, width)
    return maps


def make_trunk(pretrained: Pretrained, layers: tuple[int, ...] | None = None) -> Trunk:
    """Cuts a trunk out of whole weights.

    Args:
        pretrained: the weights.
        layers: which maps it can return; by default those of `default_layers`.

    Raises:
        ModelLoadError: when a tensor the trunk needs is missing or has another shape.
    """
    if layers is None:
        layers = default_layers(pretrained)
    trunk = Trunk(
        TrunkConfig(
            library=pretrained.library,
            architecture=pretrained.architecture,
            arguments=pretrained.arguments,
            layers=layers,
        )
    )
    prefix = "model." if pretrained.library == "timm" else ""  # timm wraps the network it cuts
    wanted = trunk.net.state_dict()
    missing = [name for name in wanted if name.removeprefix(prefix) not in pretrained.state]
    if missing:
        raise ModelLoadError(
            f"{pretrained.source} has no tensor {missing[0].removeprefix(prefix)!r} ({len(missing)} missing)"
        )
    try:
        trunk.net.load_state_dict({name: pretrained.state[name.removeprefix(prefix)] for name in wanted}, strict=True)
    except RuntimeError as error:
        raise ModelLoadError(f"{pretrained.source} does not fit {pretrained.architecture}: {error}") from error
    return trunk


def default_layers(pretrained: Pretrained) -> tuple[int, ...]:
    """Strides 8, 16 and 32 of a CNN, the last block of a ViT."""
    if pretrained.library == "transformers":
        depth = pretrained.arguments.get("num_hidden_layers")
        if not isinstance(depth, int):
            raise ModelLoadError(f"{pretrained.source}: its config does not give num_hidden_layers")
        return (depth,)
    return _layers_of_stride(pretrained.architecture, pretrained.arguments, (8, 16, 32))


def patch_layers(config: TrunkConfig) -> tuple[int, ...]:
    """The layers whose grid is fine enough for patches: strides 8 and 16 of a CNN (as PatchCore), all of a ViT."""
    if config.library == "transformers":
        return config.layers
    fine = _layers_of_stride(config.architecture, config.arguments, (8, 16))
    return tuple(layer for layer in config.layers if layer in fine)


def whole_patches(trunk: Trunk, side: int) -> int:
    """The side in pixels, rounded down to whole patches of a ViT: its map would leave out the rest. A CNN takes any."""
    if trunk.config.library == "timm":
        return side
    patch: int = trunk.net.config.patch_size
    return max(patch, side // patch * patch)


def _layers_of_stride(
    architecture: str, arguments: Mapping[str, JsonValue], strides: tuple[int, ...]
) -> tuple[int, ...]:
    reductions = timm_model(architecture, arguments, features_only=True, feature_cls="getter").feature_info.reduction()
    layers = tuple(index for index, stride in enumerate(reductions) if stride in strides)
    if not layers:
        raise ModelLoadError(f"{architecture} has no stage of stride {strides}, its strides are {reductions}")
    return layers


def read_weights(path: Path) -> Pretrained:
    """Reads a local safetensors file whose own metadata says what it is.

    Metadata keys: `architecture`, `model_args` (JSON), `mean`, `std` (JSON lists), `input_size`, optional
    `library` (default timm). A classification layer in the file is left out.

    Raises:
        ModelLoadError: the file is not safetensors, lacks a key, or does not fit its architecture.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ModelLoadError(f"weights {path}: cannot be read as safetensors ({error})") from error
    source = f"{path.name} (sha256 {hashlib.sha256(path.read_bytes()).hexdigest()[:16]})"
    try:
        fields = _Metadata.model_validate(metadata)
    except ValidationError as error:
        raise ModelLoadError(
            f"weights {path}: the metadata must give architecture, mean, std and input_size; wrong or missing: {error}"
        ) from error
    size = fields.input_size
    pretrained = Pretrained(
        library=fields.library,
        architecture=fields.architecture,
        arguments=fields.model_args,
        state=state,
        mean=fields.mean,
        std=fields.std,
        input_size=(size, size) if isinstance(size, int) else (size[-2], size[-1]),
        source=source,
    )
    return _checked(pretrained) if fields.library == "timm" else pretrained


def write_weights(path: Path, pretrained: Pretrained) -> None:
    """Writes what `read_weights` reads."""
    from safetensors.torch import save_file

    metadata = {
        "format": "pt",
        "library": pretrained.library,
        "architecture": pretrained.architecture,
        "model_args": json.dumps(pretrained.arguments),
        "mean": json.dumps(pretrained.mean),
        "std": json.dumps(pretrained.std),
        "input_size": json.dumps(pretrained.input_size),
    }
    save_file({name: value.contiguous() for name, value in pretrained.state.items()}, path, metadata=metadata)


def hub_id(name: str) -> str:
    """The Hub repo behind a trunk's name: a timm model name, or a repo id as it is.

    Raises:
        ModelLoadError: for a name that is neither.
    """
    if "/" in name:
        return name
    import timm

    if not timm.is_model(name):
        raise ModelLoadError(f"unknown backbone {name!r}: give a timm model name, a Hub repo id, or --weights FILE")
    repo = timm.get_pretrained_cfg(name).hf_hub_id
    if not repo:
        raise ModelLoadError(f"timm has no pretrained weights for {name!r}: give --weights FILE or another name")
    return str(repo)


def read_folder(folder: Path, source: str) -> Pretrained:
    """Reads a downloaded timm or transformers repo: config.json and model.safetensors.

    Args:
        folder: where the files of one commit lie.
        source: `repo@commit`, for messages and cards.

    Raises:
        ModelLoadError: for files that are missing, corrupt or of a model this version does not know.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        config = json.loads((folder / "config.json").read_text())
        if "model_type" in config:
            return _transformers(folder, config["model_type"], source)
        cfg = config["pretrained_cfg"]
        height, width = cfg["input_size"][-2:]
        arguments = config.get("model_args") or {}
        arguments.pop("num_classes", None)  # timm may write it down; here networks are built without that layer
        return _checked(
            Pretrained(
                library="timm",
                architecture=config["architecture"],
                arguments=arguments,
                state=load_file(folder / "model.safetensors"),
                mean=tuple(cfg["mean"]),
                std=tuple(cfg["std"]),
                input_size=(height, width),
                source=source,
            )
        )
    except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
        what = f"{type(error).__name__}: {error}"
        raise ModelLoadError(f"backbone {source}: not a timm or transformers model ({what})") from error


def _transformers(folder: Path, kind: str, source: str) -> Pretrained:
    if kind not in VIT_TYPES:
        raise ModelLoadError(f"backbone {source}: model type {kind!r}; this version knows {list(VIT_TYPES)}")
    preprocessing = json.loads((folder / "preprocessor_config.json").read_text())
    from transformers import AutoModel

    # on the Hub tensors have other names than in transformers' modules (attention.query is q_proj): it has to read them
    try:
        model, info = AutoModel.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True, dtype=torch.float32
        )
    except RuntimeError as error:
        raise ModelLoadError(f"backbone {source}: {error}") from error
    if missing := sorted(info["missing_keys"]):  # transformers would leave them at random
        raise ModelLoadError(f"{source} lacks tensor {missing[0]!r} of {kind} ({len(missing)} in all)")
    arguments = json.loads(model.config.to_json_string(use_diff=True))
    for name in ("model_type", "transformers_version", "architectures", "dtype"):
        arguments.pop(name, None)
    arguments["num_hidden_layers"] = model.config.num_hidden_layers
    size = preprocessing.get("crop_size") or preprocessing["size"]
    sides = (size.get("height") or size["shortest_edge"], size.get("width") or size["shortest_edge"])
    patch = model.config.patch_size
    return Pretrained(
        library="transformers",
        architecture=kind,
        arguments=arguments,
        state=model.state_dict(),
        mean=tuple(preprocessing["image_mean"]),
        std=tuple(preprocessing["image_std"]),
        input_size=(sides[0] // patch * patch, sides[1] // patch * patch),
        source=source,
    )


def _checked(given: Pretrained) -> Pretrained:
    """timm weights without their classification layer, held against the whole network without it."""
    try:
        network = timm_model(given.architecture, given.arguments, num_classes=0)
    except ModelLoadError as error:
        raise ModelLoadError(f"{given.source}: {error}") from error
    heads = network.pretrained_cfg.get("classifier") or ()
    prefixes = tuple(f"{head}." for head in ([heads] if isinstance(heads, str) else heads))
    state = {name: value for name, value in given.state.items() if not name.startswith(prefixes)}
    whole = network.state_dict()
    missing = sorted(set(whole) - set(state))
    extra = sorted(set(state) - set(whole))
    wrong = sorted(name for name in set(whole) & set(state) if whole[name].shape != state[name].shape)
    for names, what in ((missing, "lacks"), (extra, "has an unknown"), (wrong, "has a wrong shape for")):
        if names:
            raise ModelLoadError(
                f"{given.source} {what} tensor {names[0]!r} of {given.architecture} ({len(names)} in all)"
            )
    return replace(given, state=state)
