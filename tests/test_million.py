"""The cost of a million images: arithmetic from what was measured, and a page that says what was not."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import million

PRICES = json.loads((million.HERE / "prices.json").read_text())


def measured(**more: Any) -> dict[str, Any]:
    return {
        "ms": 36.0, "energy_mj": 720.0, "images": 5, "inspector": "s", "commit": "a" * 40, "policy": "majority",
        "members": ["m"], "hardware": "a CPU", "cores": 2, "threads": 2, "load_before": 0.1, "versions": {"torch": "t"},
    } | more  # fmt: skip


def test_hours_energy_and_money_follow_from_one_image() -> None:
    assert million.cost(measured(), 1, 0.5, 100) == pytest.approx({"hours": 10, "kwh": 0.2, "kg": 0.02, "usd": 5})


def test_ten_nodes_take_a_tenth_of_the_time_and_the_same_energy_and_money() -> None:
    one, ten = (million.cost(measured(), nodes, 0.5, 100) for nodes in (1, 10))
    assert ten == one | {"hours": pytest.approx(1)}


def test_what_is_not_known_is_no_number() -> None:
    found = million.cost(measured(energy_mj=None), 1, None, 100)
    assert (found["kwh"], found["kg"], found["usd"]) == (None, None, None)
    assert million.cost(measured(), 1, 0.5, None)["kg"] is None


def test_a_row_that_was_not_measured_says_so_and_a_gpu_without_a_price_has_none() -> None:
    nothing = million.section({}, PRICES, 56.0, "FRA")
    assert nothing.count("not measured here") == 3
    here = million.section({"cpu": measured(), "cuda": measured(hardware="a CPU, NVIDIA H200")}, PRICES, 56.0, "FRA")
    assert "not measured here" not in here
    assert "| one GPU | a CPU, NVIDIA H200 | 10.00 | 0.20 | 0.01 | - |" in here
    assert "busy" not in here
    assert "busy with other programs (load 3.0 on 2 cores)" in million.section(
        {"cpu": measured(load_before=3.0)}, PRICES, 56.0, "FRA"
    )


def test_only_the_place_between_the_marks_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page, found = tmp_path / "page.md", tmp_path / "measured.json"
    page.write_text(f"before\n{million.BEGIN} -->\nold\n{million.END}\nafter\n")
    found.write_text(json.dumps({"cpu": measured()}))
    words = ["million.py", "--page", str(page), "--measured", str(found), "--country", "FRA"]
    for _ in range(2):
        monkeypatch.setattr(sys, "argv", words)
        million.main()
        text = page.read_text()
        assert text.startswith(f"before\n{million.BEGIN} -->\n| on | priced as |")
        assert text.endswith(f"{million.END}\nafter\n")
        assert "old" not in text
        assert "| one CPU node | Hugging Face Space, CPU Basic (2 vCPU, 16 GB) | 10.00 | 0.20 |" in text
