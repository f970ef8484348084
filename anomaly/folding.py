"""What detectors become where only inference is left: trunks shared, and batch norm folded into the convolution before
it (Jacob et al. 2018, arXiv 1712.05877, section 3.2). The detectors given, and so what is stored, stay as they are.

Which batch norm follows which convolution is not read from names: a picture of noise is sent through, and who gets
whose output is noted. A network that answers otherwise afterwards is used unfolded.
"""

import copy
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import NoReturn, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from anomaly.backbones import Trunk
from anomaly.detectors.base import IMAGE, Detector

M = TypeVar("M", bound=nn.Module)

_PROBE = 128  # side of the picture of noise: the least that an autoencoder of seven stages takes
_TOLERANCE = 1e-2  # of the largest number: far above rounding, also that of TF32, and below a batch norm gone astray


@torch.no_grad()
def for_inference(detectors: Sequence[Detector]) -> list[Detector]:
    """The same detectors, ready to vote and not to be trained or saved any more.

    Trunks with the same weights become one module, also where one stops earlier than the other; the scores stay within
    1e-5 relative. Tensors are shared with the detectors given, but for those of the folded convolutions.
    """
    trunks = _shared([detector.trunk for detector in detectors if detector.trunk is not None])
    folded = {trunk: _folded(trunk, lambda t: list(t(_noise(t)).values())) for trunk in trunks.values()}
    return [
        _folded(detector, _outputs)
        if detector.trunk is None
        else _copy(detector, {detector.trunk: folded[trunks[detector.trunk]]})
        for detector in detectors
    ]


def _shared(trunks: Sequence[Trunk]) -> dict[Trunk, Trunk]:
    """For each trunk the one that takes its place: equal but for what comes behind the layers asked for."""
    kept: list[Trunk] = []
    places: dict[Trunk, Trunk] = {}
    for trunk in sorted(trunks, key=lambda each: max(each.config.layers, default=0), reverse=True):
        place = next((deeper for deeper in kept if _begins(deeper, trunk)), trunk)
        places[trunk] = place
        if place is trunk:
            kept.append(trunk)
    return places


def _begins(deeper: Trunk, trunk: Trunk) -> bool:
    """Whether `trunk` is the first part of `deeper`, byte by byte."""
    if trunk.config.model_copy(update={"layers": deeper.config.layers}) != deeper.config:
        return False
    if trunk.config == deeper.config:
        return trunk.fingerprint() == deeper.fingerprint()
    first, second = ({**dict(t.named_parameters()), **dict(t.named_buffers())} for t in (trunk, deeper))
    return first.keys() <= second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def _folded(module: M, run: Callable[[M], Sequence[Tensor]]) -> M:
    """A copy without batch norm, or the module itself where there is none to fold.

    Args:
        module: in evaluation mode.
        run: what the module answers to a picture of noise.
    """
    if not any(isinstance(part, nn.BatchNorm2d) for part in module.modules()):
        return module
    if isinstance(module, Trunk):
        module.fingerprint()  # of the weights as they are stored; the copy keeps it
    try:
        expected, pairs = _watched(module, run)
    except (AssertionError, RuntimeError, ValueError):  # made for one size of picture, and so left as it is
        return module
    ready = _copy(module, {})
    for conv, norm in pairs:
        first, second = module.get_submodule(conv), module.get_submodule(norm)
        assert isinstance(first, nn.Conv2d)
        assert isinstance(second, nn.BatchNorm2d)
        ready.set_submodule(conv, _padded(fuse_conv_bn_eval(first, second)))
        ready.set_submodule(norm, second.get_submodule("act") if hasattr(second, "act") else nn.Identity())
    ready.register_state_dict_pre_hook(_refuse)  # type: ignore[no-untyped-call]
    same = zip(run(ready), expected, strict=True)
    return ready if all(_close(found, wanted) for found, wanted in same) else module


def _watched(module: M, run: Callable[[M], Sequence[Tensor]]) -> tuple[Sequence[Tensor], list[tuple[str, str]]]:
    """What the module answers, and the names of each convolution and the batch norm that alone gets its output."""
    from timm.layers import BatchNormAct2d

    outputs: dict[int, tuple[str, Tensor]] = {}  # by id; kept, so that no other tensor gets the id
    fed: dict[str, set[str]] = defaultdict(set)
    feeding: dict[str, set[str]] = defaultdict(set)

    def note_output(name: str, output: Tensor) -> None:
        outputs[id(output)] = (name, output)

    def note_input(name: str, given: Tensor) -> None:
        conv = outputs[id(given)][0] if id(given) in outputs else ""
        fed[conv].add(name)
        feeding[name].add(conv)

    hooks = []
    for name, part in module.named_modules():
        if isinstance(part, nn.Conv2d):
            hooks.append(part.register_forward_hook(lambda _m, _i, output, name=name: note_output(name, output)))
        elif type(part) in (nn.BatchNorm2d, BatchNormAct2d) and part.running_mean is not None and not part.training:
            hooks.append(part.register_forward_pre_hook(lambda _m, given, name=name: note_input(name, given[0])))
    try:
        answer = run(module)
    finally:
        for hook in hooks:
            hook.remove()
    return answer, [
        (conv, norm)
        for norm, convs in feeding.items()
        for conv in convs
        if conv and len(convs) == 1 and len(fed[conv]) == 1
    ]


def _padded(conv: nn.Conv2d) -> nn.Module:
    """timm's TensorFlow-like convolution of stride 2 without a padded copy of its input, any other one as it is."""
    from timm.layers import Conv2dSame

    side = conv.kernel_size[0]
    if type(conv) is not Conv2dSame or conv.stride != (2, 2) or conv.dilation != (1, 1):
        return conv
    return SameConv(conv) if conv.kernel_size == (side, side) and side % 2 == 1 and side > 1 else conv


class SameConv(nn.Module):
    """A `Conv2dSame` of stride 2 and odd kernel. On even sides it pads one pixel less before than behind; a kernel with
    a first row and column of zeros and equal padding gives the same sums, and no larger copy of the maps is made.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        side = conv.kernel_size[0] + 1
        self.odd = conv
        self.even = nn.Conv2d(
            conv.in_channels, conv.out_channels, side, 2, side // 2 - 1, groups=conv.groups, device="meta"
        )
        self.even.weight = nn.Parameter(F.pad(conv.weight, (1, 0, 1, 0)), requires_grad=False)
        self.even.bias = conv.bias

    def forward(self, maps: Tensor) -> Tensor:
        even = maps.shape[-2] % 2 == 0 and maps.shape[-1] % 2 == 0
        answer: Tensor = (self.even if even else self.odd)(maps)
        return answer


def _copy(module: M, instead: dict[nn.Module, nn.Module]) -> M:
    """The module with the same tensors, not with copies of them, and with some of its parts exchanged."""
    memo: dict[int, object] = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    return copy.deepcopy(module, memo | {id(old): new for old, new in instead.items()})


def _outputs(detector: Detector) -> list[Tensor]:
    output = detector.predict_from({IMAGE: _noise(detector)}, (_PROBE, _PROBE))
    logits = [] if output.class_logits is None else [output.class_logits.flatten()]
    return [torch.cat([output.scores, *logits])]


def _noise(module: nn.Module) -> Tensor:
    noise = torch.rand(1, 3, _PROBE, _PROBE, generator=torch.Generator().manual_seed(0))
    return noise.to(next(module.parameters()).device)


def _close(found: Tensor, wanted: Tensor) -> bool:
    return bool(((found - wanted).abs() <= _TOLERANCE * wanted.abs().max()).all())


def _refuse(*_: object) -> NoReturn:
    raise ValueError("batch norm is folded in here, for inference: save the detector that this one was made from")
