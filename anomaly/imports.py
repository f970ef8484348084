"""First imports of large libraries, without what they need for nothing here: most of a start is imports."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import Any

_DYNAMO, _UTILS = "torch._dynamo", "torch._dynamo.utils"


@contextmanager
def importing(library: str) -> Iterator[None]:
    """Around the first import of a large library: looking for garbage in what is half imported takes a seventh of a
    start. What there is at the end is never looked through again (gc.freeze), so a later import leaves that alone.
    """
    if library in sys.modules:
        yield
        return
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if library in sys.modules:
            gc.freeze()
        if was_on:
            gc.enable()


@contextmanager
def without_dynamo() -> Iterator[None]:
    """Around `import timm`: keeps out torch._dynamo, the tracer of torch.compile, a fifth of a start.

    Two things ask for it while they are imported. torchvision takes `is_compile_supported`, which roi_align calls on a
    GPU only: it gets one that imports torch._dynamo then. timm marks functions of NaFlexViT that are not to be traced:
    they stay as they are, unmarked. Whoever asks for anything else gets the real one.
    """
    if _DYNAMO in sys.modules:
        yield
        return
    instead = {_DYNAMO: ModuleType(_DYNAMO), _UTILS: ModuleType(_UTILS)}

    def gone() -> None:
        for name, module in instead.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]

    def real(of: str, name: str) -> Any:
        # asked by `inspect` and by the import system itself; the path is what a module further in is looked for by
        if name.startswith("__") and (of, name) != (_DYNAMO, "__path__"):
            raise AttributeError(name)
        gone()
        return getattr(import_module(of), name)

    def is_compile_supported(device: str) -> bool:
        return bool(real(_UTILS, "is_compile_supported")(device))

    vars(instead[_DYNAMO]).update(disable=lambda function, *_, **__: function, __getattr__=partial(real, _DYNAMO))
    vars(instead[_UTILS]).update(is_compile_supported=is_compile_supported, __getattr__=partial(real, _UTILS))
    sys.modules.update(instead)
    try:
        yield
    finally:
        gone()
