"""First imports: without garbage collection, and without torch._dynamo until somebody needs it."""

import gc
import subprocess
import sys

import pytest

from anomaly.imports import importing, without_dynamo


def test_garbage_is_looked_for_again_behind_an_import(monkeypatch: pytest.MonkeyPatch) -> None:
    frozen = gc.get_freeze_count()
    with importing("made_up"):
        assert not gc.isenabled()
    assert gc.isenabled()
    assert gc.get_freeze_count() == frozen  # it was not imported
    gc.disable()
    try:
        with importing("made_up"):
            monkeypatch.setitem(sys.modules, "made_up", gc)
        assert not gc.isenabled()  # as it was
        assert gc.get_freeze_count() > frozen
    finally:
        gc.unfreeze()
        gc.enable()


def test_what_is_imported_already_freezes_nothing() -> None:
    """Else whatever went in a circle would never be freed, revision after revision."""
    frozen = gc.get_freeze_count()
    with importing("torch"):
        assert gc.isenabled()
    assert gc.get_freeze_count() == frozen


LATER = """
import sys
import torch
from anomaly.backbones import timm_model
timm_model("mobilenetv2_050", {}, features_only=True, feature_cls="getter", out_indices=[1])
assert not [name for name in sys.modules if name.startswith(("torch._dynamo", "sympy"))]
from torchvision.ops import roi_align
box = torch.tensor([[0.0, 0, 0, 2, 2]])
assert torch.equal(roi_align(torch.ones(1, 1, 4, 4), box, 2), torch.ones(1, 1, 2, 2))
assert "torch._dynamo" not in sys.modules
kept = sys.modules["torchvision.ops.roi_align"].is_compile_supported
answer = kept("cpu")
import torch._dynamo
assert torch._dynamo.__file__
assert answer == torch._dynamo.utils.is_compile_supported("cpu")
assert torch.compile(lambda x: x + 1, backend="eager")(torch.ones(1)) == 2
"""
MEANWHILE = """
import sys
from anomaly.imports import without_dynamo
import torch
with without_dynamo():
    assert sys.modules["torch._dynamo"].disable(print) is print
    {}
assert sys.modules["torch._dynamo"].__file__
"""


def test_a_trunk_comes_without_the_tracer_which_is_there_when_it_is_needed() -> None:
    subprocess.run([sys.executable, "-c", LATER], check=True)


@pytest.mark.parametrize(
    "asked",
    ["from torch._dynamo.utils import counters", "import torch._dynamo.config", "torch._dynamo.explain(print)"],
)
def test_who_asks_the_tracer_for_something_else_gets_the_real_one(asked: str) -> None:
    subprocess.run([sys.executable, "-c", MEANWHILE.format(asked)], check=True)


def test_an_import_that_fails_leaves_no_stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("torch._dynamo")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ImportError), without_dynamo():
        import timm.no_such_module  # noqa: F401
    assert "torch._dynamo" not in sys.modules
