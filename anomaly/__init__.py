"""Vigie: industrial defect inspection that is shared as a link.

from anomaly import load_inspector, read_image

inspection = load_inspector("starter").inspect(read_image("part.png"))
print(inspection.report.decision)
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.3.0"

if TYPE_CHECKING:
    from anomaly.errors import VigieError
    from anomaly.images import read as read_image
    from anomaly.inspector import Inspection, Inspector
    from anomaly.loading import load_inspector
    from anomaly.report import Report

__all__ = ["Inspection", "Inspector", "Report", "VigieError", "__version__", "load_inspector", "read_image"]

_HOME = {
    "Inspection": ("anomaly.inspector", "Inspection"),
    "Inspector": ("anomaly.inspector", "Inspector"),
    "Report": ("anomaly.report", "Report"),
    "VigieError": ("anomaly.errors", "VigieError"),
    "load_inspector": ("anomaly.loading", "load_inspector"),
    "read_image": ("anomaly.images", "read"),
}


def __getattr__(name: str) -> Any:
    """Imports on first use, so that `import anomaly` costs nothing."""
    if name not in _HOME:
        raise AttributeError(f"module 'anomaly' has no attribute {name!r}")
    from importlib import import_module

    from anomaly.imports import importing

    module, attribute = _HOME[name]
    with importing("torch"):
        return getattr(import_module(module), attribute)
