"""Trunks: weights come with their preprocessing, from a file or a repo's folder, and stay frozen."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from anomaly.backbones import (
    VIT_TYPES,
    Pretrained,
    Trunk,
    TrunkConfig,
    default_layers,
    hub_id,
    make_trunk,
    patch_layers,
    read_folder,
    read_weights,
    timm_model,
    whole_patches,
    write_weights,
)
from anomaly.errors import ModelLoadError

REAL = Path(__file__).resolve().parents[2] / "shared/weights/mobilenetv2_100.same_pad.imagenet.safetensors"
TINY_VIT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
SOURCE = "org/model@0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def pretrained() -> Pretrained:
    """All of a small network, as its maker would write it."""
    torch.manual_seed(3)
    return Pretrained(
        library="timm",
        architecture="test_efficientnet",
        arguments={"pad_type": "same"},
        state=timm_model("test_efficientnet", {"pad_type": "same"}, num_classes=0).state_dict(),
        mean=(0.4, 0.5, 0.6),
        std=(0.2, 0.25, 0.3),
        input_size=(96, 128),
        source="a test",
    )


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


# --- the trunk ------------------------------------------------------------------------------------------------------


def test_a_pass_with_fewer_layers_gives_the_maps_of_a_full_pass(images: Tensor) -> None:
    trunk = tiny.tiny_trunk()
    everything = trunk(images)
    assert {layer: tuple(value.shape[-2:]) for layer, value in everything.items()} == {
        2: (8, 12),
        3: (4, 6),
        4: (2, 3),
    }
    for layers in ((2,), (3,), (4,), (2, 3), (4, 2)):
        some = trunk(images, layers)
        assert sorted(some) == sorted(layers)
        assert all(torch.equal(some[layer], everything[layer]) for layer in layers)


def test_a_pass_stops_at_the_deepest_layer_that_is_asked_for(images: Tensor) -> None:
    trunk = tiny.tiny_trunk()
    ran: list[str] = []
    for name in ("layer2", "layer3", "layer4"):
        getattr(trunk.net.model, name).register_forward_hook(lambda *_, name=name: ran.append(name))
    trunk(images, (3,))
    assert ran == ["layer2", "layer3"]


def test_a_trunk_stays_frozen_in_evaluation_mode_whatever_its_owner_does(images: Tensor) -> None:
    detector = tiny.tiny_detectors()["mahalanobis"]
    assert detector.trunk is not None
    before = detector.trunk(images)
    detector.train()
    assert detector.training
    assert not any(module.training for module in detector.trunk.modules())
    assert not any(parameter.requires_grad for parameter in detector.trunk.parameters())
    after = detector.trunk(images)
    assert all(torch.equal(after[layer], value) and not after[layer].requires_grad for layer, value in before.items())


def test_fingerprints_are_equal_exactly_when_every_byte_is() -> None:
    first, twin = tiny.tiny_trunk(), tiny.tiny_trunk()
    assert first.fingerprint() == twin.fingerprint()
    tensors = list(first.state_dict())
    seen = {first.fingerprint()}
    for name in (tensors[0], "net.model.bn1.running_var", "net.model.bn1.num_batches_tracked", tensors[-1]):
        changed = tiny.tiny_trunk()
        bits = changed.state_dict()[name].view(-1).view(torch.uint8)
        bits[0] ^= 1  # the last digit of one number
        seen.add(changed.fingerprint())
    seen.add(tiny.tiny_trunk(tiny.TRUNK.model_copy(update={"layers": (2, 3)})).fingerprint())
    seen.add(tiny.tiny_trunk(seed=1).fingerprint())
    assert len(seen) == 7


def test_a_fingerprint_survives_saving_and_loading(tmp_path: Path) -> None:
    trunk = tiny.tiny_trunk()
    save_file(trunk.state_dict(), tmp_path / "trunk.safetensors")
    again = tiny.tiny_trunk(seed=9)
    again.load_state_dict(load_file(tmp_path / "trunk.safetensors"))
    assert again.fingerprint() == trunk.fingerprint()


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (TrunkConfig(library="timm", architecture="nonesuch", layers=(1,)), "unknown timm architecture 'nonesuch'"),
        (TrunkConfig(library="timm", architecture="test_resnet", layers=(1, 9)), "timm cannot build 'test_resnet'"),
        (
            TrunkConfig(library="timm", architecture="test_resnet", arguments={"surplus": 1}, layers=(1,)),
            "timm cannot build 'test_resnet'",
        ),
        (TrunkConfig(library="timm", architecture="test_resnet", layers=(-1, 2)), "layer -1 of test_resnet"),
        (TrunkConfig(library="transformers", architecture="bert", layers=(1,)), "unknown transformers trunk 'bert'"),
        (
            TrunkConfig(library="transformers", architecture="dinov2", arguments=TINY_VIT, layers=(2, 3)),
            "1 to 2, not 3",
        ),
    ],
)
def test_a_trunk_that_cannot_be_built_is_refused_in_one_line(config: TrunkConfig, words: str) -> None:
    with pytest.raises(ModelLoadError, match=words) as caught:
        Trunk(config)
    assert "\n" not in str(caught.value)


# --- weights in one file --------------------------------------------------------------------------------------------


def test_written_weights_are_read_as_they_were(pretrained: Pretrained, tmp_path: Path) -> None:
    write_weights(tmp_path / "w.safetensors", pretrained)
    found = read_weights(tmp_path / "w.safetensors")
    assert found.state.keys() == pretrained.state.keys()
    assert all(torch.equal(found.state[name], value) for name, value in pretrained.state.items())
    assert replace(found, state={}, source="") == replace(pretrained, state={}, source="")
    assert found.source.startswith("w.safetensors (sha256 ")


def test_a_classification_layer_in_the_file_is_left_out(pretrained: Pretrained, tmp_path: Path) -> None:
    whole = replace(pretrained, state=timm_model("test_efficientnet", pretrained.arguments).state_dict())
    assert "classifier.weight" in whole.state
    write_weights(tmp_path / "w.safetensors", whole)
    assert read_weights(tmp_path / "w.safetensors").state.keys() == pretrained.state.keys()


@pytest.mark.parametrize("key", ["architecture", "mean", "std", "input_size"])
def test_a_missing_metadata_key_is_named(pretrained: Pretrained, tmp_path: Path, key: str) -> None:
    path = metadata_changed(pretrained, tmp_path, {key: None})
    assert key in refusal(path)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("mean", "[0.5]", "mean"),
        ("std", "grey", "std"),
        ("input_size", '"large"', "input_size"),
        ("model_args", "[]", "model_args"),
        ("library", "torchvision", "library"),
        ("architecture", "nonesuch", "unknown timm architecture 'nonesuch'"),
        ("architecture", "test_resnet", "timm cannot build 'test_resnet'"),  # it knows no pad_type
        ("architecture", "test_efficientnet_ln", "test_efficientnet_ln"),
        ("model_args", '{"surplus": 1}', "surplus"),
    ],
)
def test_metadata_that_does_not_fit_the_weights_is_refused_with_its_key(
    pretrained: Pretrained, tmp_path: Path, key: str, value: str, words: str
) -> None:
    assert words in refusal(metadata_changed(pretrained, tmp_path, {key: value}))


@pytest.mark.parametrize(("text", "size"), [("224", (224, 224)), ("[96, 64]", (96, 64)), ("[3, 96, 64]", (96, 64))])
def test_the_input_size_may_be_a_side_or_a_shape(
    pretrained: Pretrained, tmp_path: Path, text: str, size: tuple[int, int]
) -> None:
    assert read_weights(metadata_changed(pretrained, tmp_path, {"input_size": text})).input_size == size


def test_other_metadata_is_left_alone(pretrained: Pretrained, tmp_path: Path) -> None:
    assert read_weights(metadata_changed(pretrained, tmp_path, {"license": "apache-2.0", "library": None})).mean


@pytest.mark.parametrize("content", [None, b"", b"not safetensors at all"], ids=["missing", "empty", "text"])
def test_what_is_no_safetensors_file_is_refused_with_its_path(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "w.safetensors"
    if content is not None:
        path.write_bytes(content)
    assert "cannot be read as safetensors" in refusal(path)


def test_a_tensor_too_many_or_of_another_shape_is_named(pretrained: Pretrained, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    write_weights(path, replace(pretrained, state=pretrained.state | {"surplus": torch.zeros(1)}))
    assert "has an unknown tensor 'surplus'" in refusal(path)
    write_weights(path, replace(pretrained, state=pretrained.state | {"bn1.weight": torch.zeros(1)}))
    assert "has a wrong shape for tensor 'bn1.weight'" in refusal(path)


def test_a_trunk_cut_out_of_weights_gives_the_maps_of_the_whole_network(pretrained: Pretrained, images: Tensor) -> None:
    trunk = make_trunk(pretrained)
    assert trunk.config.layers == default_layers(pretrained) == (2, 3, 4)  # strides 8, 16, 32
    assert patch_layers(trunk.config) == (2, 3)
    network = timm_model("test_efficientnet", {"pad_type": "same"}, num_classes=0).eval()
    network.load_state_dict(pretrained.state)
    with torch.no_grad():
        maps = network.forward_intermediates(images, intermediates_only=True)
    assert all(torch.equal(trunk(images)[layer], maps[layer]) for layer in (2, 3, 4))


def test_a_trunk_of_weights_that_lack_a_tensor_is_refused(pretrained: Pretrained) -> None:
    state = {name: value for name, value in pretrained.state.items() if name != "conv_stem.weight"}
    with pytest.raises(ModelLoadError, match=r"a test has no tensor 'conv_stem.weight' \(1 missing\)"):
        make_trunk(replace(pretrained, state=state))


@pytest.mark.skipif(not REAL.is_file(), reason=f"{REAL} is not there")
def test_the_shared_imagenet_weights_make_a_trunk() -> None:
    with safe_open(REAL, framework="pt") as file:
        metadata = file.metadata()
    pretrained = read_weights(REAL)
    assert (pretrained.architecture, pretrained.arguments) == ("mobilenetv2_100", {"pad_type": "same"})
    assert (list(pretrained.mean), list(pretrained.std)) == (
        json.loads(metadata["mean"]),
        json.loads(metadata["std"]),
    )
    assert pretrained.input_size == (224, 224)
    trunk = make_trunk(pretrained)
    maps = trunk(tiny.good_images(1, size=(96, 96)))
    assert {layer: tuple(value.shape) for layer, value in maps.items()} == {
        2: (1, 32, 12, 12),
        3: (1, 96, 6, 6),
        4: (1, 320, 3, 3),
    }
    assert all(value.isfinite().all() and value.std() > 0 for value in maps.values())


# --- a repo's folder ------------------------------------------------------------------------------------------------


def test_a_timm_repo_is_read_as_timm_writes_it(tmp_path: Path, images: Tensor) -> None:
    from timm.models import save_for_hf

    torch.manual_seed(5)
    network = timm_model("test_resnet", {}, num_classes=7).eval()
    save_for_hf(network, str(tmp_path), safe_serialization=True)
    pretrained = read_folder(tmp_path, SOURCE)
    cfg = network.pretrained_cfg
    assert (pretrained.library, pretrained.architecture, pretrained.source) == ("timm", "test_resnet", SOURCE)
    assert (pretrained.mean, pretrained.std) == (tuple(cfg["mean"]), tuple(cfg["std"]))
    assert pretrained.input_size == tuple(cfg["input_size"][-2:])
    assert not [name for name in pretrained.state if name.startswith("fc.")]
    trunk = make_trunk(pretrained)
    with torch.no_grad():
        maps = network.forward_intermediates(images, intermediates_only=True)
    assert all(torch.equal(trunk(images)[layer], maps[layer]) for layer in trunk.config.layers)


@pytest.mark.parametrize("kind", VIT_TYPES)
def test_a_transformers_repo_gives_the_hidden_states_of_its_own_model(kind: str, tmp_path: Path) -> None:
    model = vit_repo(tmp_path, kind)
    pretrained = read_folder(tmp_path, SOURCE)
    assert (pretrained.library, pretrained.architecture) == ("transformers", kind)
    assert (pretrained.mean, pretrained.std, pretrained.input_size) == ((0.4, 0.5, 0.6), (0.2, 0.25, 0.3), (32, 48))
    assert default_layers(pretrained) == (2,)
    assert str(tmp_path) not in json.dumps(pretrained.arguments)  # it travels to the Hub
    trunk = make_trunk(pretrained, (1, 2))
    assert patch_layers(trunk.config) == (1, 2)
    images = torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    maps = trunk(images)
    with torch.no_grad():
        own = model(pixel_values=images, output_hidden_states=True)
    assert not torch.equal(own.hidden_states[1], own.hidden_states[2])
    for layer, tokens in ((1, own.hidden_states[1]), (2, own.last_hidden_state)):
        assert maps[layer].shape == (2, 32, 4, 6)
        for row in range(4):
            for column in range(6):
                token = tokens[:, -24 + 6 * row + column]  # 24 patches in rows, at the end
                assert torch.equal(maps[layer][:, :, row, column], token)
    assert torch.equal(trunk(images, (1,))[1], maps[1])


@pytest.mark.parametrize("kind", VIT_TYPES)
def test_the_blocks_behind_the_deepest_one_asked_for_are_not_run(kind: str, tmp_path: Path) -> None:
    vit_repo(tmp_path, kind)
    trunk = make_trunk(read_folder(tmp_path, SOURCE), (1, 2))
    blocks = next(part for part in trunk.modules() if isinstance(part, torch.nn.ModuleList))
    run: list[int] = []
    for number, block in enumerate(blocks, start=1):
        block.register_forward_hook(lambda *_, number=number: run.append(number))
    trunk(torch.zeros(1, 3, 32, 48), (1,))
    assert run == [1]
    trunk(torch.zeros(1, 3, 32, 48), (2,))
    assert run == [1, 1, 2]


def test_a_vits_pictures_are_cut_to_whole_patches_and_a_cnns_are_left_alone(tmp_path: Path) -> None:
    vit_repo(tmp_path, "dinov2")
    trunk = make_trunk(read_folder(tmp_path, SOURCE))
    assert [whole_patches(trunk, side) for side in (64, 70, 71, 72, 3)] == [64, 64, 64, 72, 8]
    assert whole_patches(tiny.tiny_trunk(), 71) == 71


def test_a_transformers_trunk_round_trips_through_a_weights_file(tmp_path: Path) -> None:
    vit_repo(tmp_path, "dinov2")
    trunk = make_trunk(read_folder(tmp_path, SOURCE))
    write_weights(tmp_path / "w.safetensors", read_folder(tmp_path, SOURCE))
    assert make_trunk(read_weights(tmp_path / "w.safetensors")).fingerprint() == trunk.fingerprint()


def test_the_weights_beside_a_classifier_are_read_like_the_bare_ones(tmp_path: Path) -> None:
    from transformers import Dinov2ForImageClassification

    bare = vit_repo(tmp_path, "dinov2")
    classifier = Dinov2ForImageClassification(bare.config)
    classifier.dinov2.load_state_dict(bare.state_dict())
    expected = make_trunk(read_folder(tmp_path, SOURCE))
    classifier.save_pretrained(tmp_path)
    found = make_trunk(read_folder(tmp_path, SOURCE))
    assert all(torch.equal(a, b) for a, b in zip(found.parameters(), expected.parameters(), strict=True))


@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json", "model.safetensors"])
def test_a_transformers_repo_without_one_of_its_files_is_refused(tmp_path: Path, file: str) -> None:
    vit_repo(tmp_path, "dinov2")
    (tmp_path / file).unlink()
    with pytest.raises(ModelLoadError, match=f"(?s){SOURCE}.*{file}"):
        read_folder(tmp_path, SOURCE)


def test_a_pickle_in_a_transformers_repo_does_not_stand_in_for_its_weights(tmp_path: Path) -> None:
    model = vit_repo(tmp_path, "dinov2")
    os.remove(tmp_path / "model.safetensors")
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelLoadError, match=r"model\.safetensors"):
        read_folder(tmp_path, SOURCE)


def test_transformers_weights_that_lack_a_tensor_are_refused_with_its_name(tmp_path: Path) -> None:
    vit_repo(tmp_path, "dinov2")
    state = load_file(tmp_path / "model.safetensors")
    del state["embeddings.cls_token"]
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelLoadError, match=r"lacks tensor 'embeddings.cls_token' of dinov2 \(1 in all\)"):
        read_folder(tmp_path, SOURCE)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{}", "pretrained_cfg"),
        ("[]", "not a timm or transformers model"),
        ("{", "not a timm or transformers model"),
        ('{"model_type": "bert"}', "model type 'bert'; this version knows"),
        ('{"architecture": "nonesuch", "pretrained_cfg": {"input_size": [3, 8, 8], "mean": [0], "std": [1]}}', SOURCE),
    ],
)
def test_a_repo_of_another_kind_is_refused_with_its_name(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "config.json").write_text(content)
    save_file({"x": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(ModelLoadError) as caught:
        read_folder(tmp_path, SOURCE)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_name_leads_to_its_hub_repo() -> None:
    assert hub_id("facebook/dinov2-small") == "facebook/dinov2-small"
    assert hub_id("test_resnet") == "timm/test_resnet.r160_in1k"
    with pytest.raises(ModelLoadError, match="unknown backbone 'nonesuch'"):
        hub_id("nonesuch")


# --- builders -------------------------------------------------------------------------------------------------------


def metadata_changed(pretrained: Pretrained, folder: Path, changes: dict[str, str | None]) -> Path:
    path = folder / "w.safetensors"
    write_weights(path, pretrained)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() | changes
    save_file(pretrained.state, path, metadata={key: value for key, value in metadata.items() if value is not None})
    return path


def refusal(path: Path) -> str:
    with pytest.raises(ModelLoadError) as caught:
        read_weights(path)
    message = str(caught.value)
    assert path.name in message
    assert "\n" not in message
    return message


def vit_repo(folder: Path, kind: str) -> Any:
    """Two blocks with random weights, saved as transformers saves what goes to the Hub; 8x8 patches."""
    from transformers import AutoConfig, AutoModel

    torch.manual_seed(0)
    config = AutoConfig.for_model(
        kind,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        patch_size=8,
        image_size=32,
    )
    model = AutoModel.from_config(config).eval()
    model.save_pretrained(folder)
    preprocessing = {
        "image_mean": [0.4, 0.5, 0.6],
        "image_std": [0.2, 0.25, 0.3],
        "size": {"shortest_edge": 64},
        "crop_size": {"height": 38, "width": 50},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessing))
    return model
