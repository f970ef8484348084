"""Reports put together by hand, for tests of what is shown."""

from typing import Any

from anomaly.emissions import Emissions
from anomaly.report import MemberVote, Report


def make_vote(member: str, *, score: float | None, threshold: float = 5.0, **changes: Any) -> MemberVote:
    """The row of a member with that score; without one it failed."""
    fields: dict[str, Any] = {
        "member": member,
        "kind": "autoencoder",
        "repo": f"acme/{member}",
        "commit": "c" * 40,
        "verdict": "failed" if score is None else "defect" if score >= threshold else "ok",
        "score": score,
        "threshold_name": "far",
        "threshold": threshold,
        "p_value": None if score is None else 0.04,
        "class_shares": None,
        "duration_ms": 12.5,
        "energy_share_mj": 80.0,
        "error": "it crashed: RuntimeError: out of memory" if score is None else None,
    }
    return MemberVote(**fields | changes)


def make_emissions(**changes: Any) -> Emissions:
    fields: dict[str, Any] = {
        "energy_mj": 155.0,
        "cpu_mj": 45.0,
        "ram_mj": 110.0,
        "co2eq_ug": 15.9,
        "backend": "rapl",
        "country": "FRA",
        "g_per_kwh": 44.0,
        "duration_ms": 20.0,
        "running_mean_mj": 160.0,
        "inspections": 3,
        "wh_per_1000": 0.0444,
        "note": None,
    }
    return Emissions(**fields | changes)


def make_report(**changes: Any) -> Report:
    fields: dict[str, Any] = {
        "decision": "ok",
        "reason": {"en": "All is well.", "fr": "Tout va bien."},
        "category": "cable",
        "inspector": "acme/cable-inspector",
        "revision": "v1",
        "commit": "a" * 40,
        "policy": "majority",
        "image_width": 8,
        "image_height": 8,
        "image_sha256": "0" * 64,
        "votes": (),
        "emissions": make_emissions(),
        "duration_ms": 21.0,
        "created_at": "2026-01-01T00:00:00.000+00:00",
        "version": "0.1.0",
    }
    return Report(**fields | changes)
