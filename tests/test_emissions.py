"""What is said about the energy of an inspection: an estimate, never 0, never at the cost of the inspection."""

import json
import math
import os
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from anomaly import emissions
from anomaly.emissions import Emissions, EmissionsMeter, measure_training, shares
from anomaly.errors import VigieError

QUEBEC_G_PER_KWH = 3.9  # where CodeCarbon's online tracker puts whoever it cannot find


def spin(milliseconds: float) -> None:
    end = time.perf_counter() + milliseconds / 1e3
    while time.perf_counter() < end:
        pass


def measured(meter: EmissionsMeter, work: Callable[[], object]) -> Emissions:
    with meter.measure() as measurement:
        assert measurement.emissions is None
        work()
    assert measurement.emissions is not None
    return measurement.emissions


@pytest.fixture(scope="module")
def warm_meter() -> EmissionsMeter:
    meter = EmissionsMeter(country="FRA")
    meter.warm_up()
    return meter


@pytest.fixture
def meter(warm_meter: EmissionsMeter) -> EmissionsMeter:
    fresh = EmissionsMeter(country="FRA")
    fresh.warm_up()  # 5 ms: CodeCarbon remembers the hardware that warm_meter made it look for
    return fresh


@pytest.fixture
def counter(meter: EmissionsMeter, tmp_path: Path) -> Path:
    """Gives the tracker a CPU with an energy counter (RAPL), which is a file of microjoules."""
    from codecarbon.external.hardware import CPU

    domain = tmp_path / "intel-rapl" / "intel-rapl:0"
    domain.mkdir(parents=True)
    (domain / "name").write_text("package-0\n")
    (domain / "max_energy_range_uj").write_text("262143328850\n")
    (domain / "energy_uj").write_text("1000000\n")
    ram = meter._tracker._hardware[0]
    meter._tracker._hardware = [ram, CPU(".", "intel_rapl", "a CPU", 65, rapl_dir=str(tmp_path / "intel-rapl"))]
    meter._backend = emissions._backend(meter._tracker, None)
    return domain / "energy_uj"


# One inspection


def test_an_inspection_gets_an_estimate_that_adds_up(meter: EmissionsMeter) -> None:
    found = measured(meter, lambda: spin(120))
    assert found.label == "estimated"
    assert found.energy_mj is not None
    assert found.energy_mj == pytest.approx(sum(part or 0 for part in (found.cpu_mj, found.ram_mj, found.gpu_mj)))
    assert 120 <= found.duration_ms < 1000
    assert found.ram_mj == pytest.approx(found.ram_power_w * found.duration_ms, rel=0.3)
    assert found.cpu_mj == pytest.approx(found.cpu_power_w * found.duration_ms, rel=0.3)
    assert Emissions.model_validate_json(found.model_dump_json()) == found


def test_the_estimate_is_frozen_and_knows_no_other_field(meter: EmissionsMeter) -> None:
    found = measured(meter, lambda: None)
    with pytest.raises(ValidationError):
        found.energy_mj = 0.0  # type: ignore[misc]
    with pytest.raises(ValidationError):
        Emissions.model_validate({**found.model_dump(), "co2": 1})


@pytest.mark.parametrize("country", ["FRA", "USA", "DEU"])
def test_the_stated_intensity_is_the_one_that_was_used(country: str, warm_meter: EmissionsMeter) -> None:
    found = measured(EmissionsMeter(country=country), lambda: spin(5))
    kwh, grams = found.energy_mj / 3.6e9, found.co2eq_ug / 1e6
    assert found.country == country
    assert found.g_per_kwh == pytest.approx(grams / kwh, rel=1e-6)
    assert found.g_per_kwh > 10 * QUEBEC_G_PER_KWH


def test_energy_grows_with_the_work(meter: EmissionsMeter) -> None:
    short, long = (measured(meter, lambda ms=ms: spin(ms)).energy_mj for ms in (100, 400))
    assert 2 < long / short < 8


def test_a_given_cpu_power_is_used_and_named(warm_meter: EmissionsMeter) -> None:
    found = measured(EmissionsMeter(country="FRA", cpu_power_w=45.5), lambda: spin(120))
    assert found.backend == "cpu_load (45.5 W given, x load)"
    assert 4.5 < found.cpu_power_w < 45.6  # CodeCarbon takes a tenth of it for an idle CPU


def test_the_backend_is_the_trackers_own(meter: EmissionsMeter) -> None:
    cpu = next(part for part in meter._tracker._hardware if type(part).__name__ == "CPU")
    backend = measured(meter, lambda: None).backend
    if cpu._mode == "cpu_load":
        assert f"{cpu._tdp:g} W" in backend
    assert backend.startswith(cpu._mode.removeprefix("intel_"))


def test_a_cpu_that_the_table_lacks_is_said_to_be_assumed() -> None:
    assert emissions._is_in_tdp_table("Intel(R) Core(TM) i7-7700 CPU @ 3.60GHz")
    assert not emissions._is_in_tdp_table("a CPU that nobody ever sold")


def test_a_short_inspection_under_cpu_load_is_called_coarse(meter: EmissionsMeter) -> None:
    if not meter._backend.startswith("cpu_load"):
        pytest.skip("this machine has an energy counter")
    assert measured(meter, lambda: spin(10)).note.startswith("coarse: ")
    assert measured(meter, lambda: spin(250)).note is None


def test_a_counter_that_ticked_is_read(meter: EmissionsMeter, counter: Path) -> None:
    found = measured(meter, lambda: counter.write_text("1005000\n"))
    assert found.backend == "rapl"
    assert found.cpu_mj == pytest.approx(5.0)
    assert found.energy_mj == pytest.approx(5.0 + found.ram_mj)
    assert found.note is None


def test_a_counter_that_stood_still_means_below_resolution_and_not_zero(meter: EmissionsMeter, counter: Path) -> None:
    found = measured(meter, lambda: None)
    assert (found.energy_mj, found.cpu_mj, found.co2eq_ug) == (None, None, None)
    assert found.note == "below resolution"
    assert found.ram_mj > 0


# The running mean


def test_the_mean_stands_on_every_inspection_since_launch(meter: EmissionsMeter) -> None:
    found = [measured(meter, lambda: spin(10)) for _ in range(5)]
    assert [one.inspections for one in found] == [1, 2, 3, 4, 5]
    mean_mj = math.fsum(one.energy_mj for one in found) / 5
    assert found[-1].running_mean_mj == pytest.approx(mean_mj)
    assert found[-1].wh_per_1000 == pytest.approx(1000 * mean_mj / 1000 / 3600)


def test_inspections_below_resolution_count_or_the_mean_would_be_too_high(meter: EmissionsMeter, counter: Path) -> None:
    ticked = measured(meter, lambda: counter.write_text("1005000\n"))
    still = measured(meter, lambda: None)
    assert still.inspections == 2
    assert still.running_mean_mj == pytest.approx((ticked.energy_mj + still.ram_mj) / 2)


def test_a_failed_inspection_raises_its_own_error_and_does_not_count(meter: EmissionsMeter) -> None:
    first = measured(meter, lambda: spin(5))
    with pytest.raises(ZeroDivisionError), meter.measure() as failed:
        _ = 1 / 0
    assert failed.emissions.energy_mj > 0
    assert (failed.emissions.inspections, failed.emissions.running_mean_mj) == (1, first.running_mean_mj)
    assert measured(meter, lambda: spin(5)).inspections == 2


# One at a time


def test_threads_are_measured_one_after_the_other(meter: EmissionsMeter) -> None:
    found: list[Emissions] = []
    spans: list[tuple[float, float]] = []

    def inspect() -> None:
        with meter.measure() as measurement:
            started = time.perf_counter()
            time.sleep(0.02)
            spans.append((started, time.perf_counter()))
        found.append(measurement.emissions)

    threads = [threading.Thread(target=inspect) for _ in range(4)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wall_ms = (time.perf_counter() - started) * 1e3

    assert len(found) == 4
    assert all(end <= begin for (_, end), (begin, _) in zip(sorted(spans), sorted(spans)[1:], strict=False))
    assert sum(one.duration_ms for one in found) <= wall_ms
    for one in found:
        assert one.duration_ms >= 20
        assert one.ram_mj == pytest.approx(one.ram_power_w * one.duration_ms, rel=0.5)
    assert sorted(one.inspections for one in found) == [1, 2, 3, 4]


def test_a_measurement_inside_a_measurement_is_an_error_and_no_deadlock(meter: EmissionsMeter) -> None:
    with pytest.raises(RuntimeError, match="inside a measured block"), meter.measure(), meter.measure():
        pass
    assert measured(meter, lambda: spin(5)).energy_mj > 0


def test_warming_up_twice_or_from_many_threads_makes_one_tracker(meter: EmissionsMeter) -> None:
    tracker = meter._tracker
    meter.warm_up()
    assert meter._tracker is tracker

    cold = EmissionsMeter(country="FRA")
    seen: list[Any] = []
    threads = [threading.Thread(target=lambda: (cold.warm_up(), seen.append(cold._tracker))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 4
    assert len(set(map(id, seen))) == 1


def test_memory_stays_flat_over_500_inspections(meter: EmissionsMeter) -> None:
    threads = threading.active_count()
    tracemalloc.start()
    try:
        for _ in range(50):
            measured(meter, lambda: None)
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(500):
            measured(meter, lambda: None)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 200_000  # 500 unpruned tasks take 1,200,000
    assert not meter._tracker._tasks
    assert threading.active_count() <= threads + 1


# Trouble


@pytest.mark.parametrize("country", ["XXX", "FR", "fra", "France", ""])
def test_an_unknown_country_is_refused_by_name(country: str) -> None:
    meter = EmissionsMeter(country=country)
    message = f"unknown country {country!r}; CodeCarbon .* knows .* ISO 3166 alpha-3"
    with pytest.raises(VigieError, match=message):
        meter.warm_up()
    with pytest.raises(VigieError, match=message), meter.measure():
        pytest.fail("the block was entered")
    with pytest.raises(VigieError, match=message), measure_training(country):
        pytest.fail("the block was entered")


@pytest.mark.parametrize("watts", [0, -5.0, float("nan")])
def test_a_cpu_power_that_makes_no_sense_is_refused(watts: float) -> None:
    with pytest.raises(VigieError, match=f"cpu_power_w is {watts}; expected watts above 0"):
        EmissionsMeter(cpu_power_w=watts).warm_up()


@pytest.mark.parametrize("method", ["start_task", "stop_task"])
def test_a_failure_in_codecarbon_becomes_a_note_and_the_next_inspection_is_measured(
    method: str, meter: EmissionsMeter
) -> None:
    def fail() -> None:
        raise OSError("the sensor is gone")

    setattr(meter._tracker, method, fail)
    found = measured(meter, lambda: spin(5))
    assert found.note == "unavailable: OSError('the sensor is gone')"
    assert (found.energy_mj, found.co2eq_ug, found.running_mean_mj, found.inspections) == (None, None, None, 0)
    assert found.duration_ms >= 5
    assert measured(meter, lambda: spin(5)).energy_mj > 0


def test_a_failure_in_codecarbon_does_not_hide_the_inspections_own(meter: EmissionsMeter) -> None:
    meter._tracker.stop_task = None
    with pytest.raises(ZeroDivisionError), meter.measure() as measurement:
        _ = 1 / 0
    assert measurement.emissions.note.startswith("unavailable: TypeError")


def test_without_codecarbon_parts_are_still_inspected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "codecarbon", None)  # what Python does for a package that cannot be imported
    meter = EmissionsMeter(country="FRA")
    meter.warm_up()
    found = measured(meter, lambda: None)
    assert found.note.startswith("unavailable: ModuleNotFoundError")
    assert (found.energy_mj, found.g_per_kwh, found.backend) == (None, None, "none")
    with measure_training("FRA") as run:
        pass
    assert run.note.startswith("unavailable: ModuleNotFoundError")


# Training


def test_a_training_run_is_measured_as_a_whole(warm_meter: EmissionsMeter) -> None:
    with measure_training("DEU", cpu_power_w=30) as run:
        spin(300)
    assert 0.3 <= run.duration_s < 2
    seconds = run.energy_wh * 3600 / 30  # what it would have lasted at the CPU's full power
    assert 0.01 < seconds < 10
    assert run.grams_co2eq == pytest.approx(run.energy_wh / 1000 * run.g_per_kwh)
    assert (run.country, run.backend, run.note) == ("DEU", "cpu_load (30 W given, x load)", None)
    assert run.hardware == warm_meter._tracker.get_detected_hardware()["cpu_model"] or "+" in run.hardware


def test_a_training_run_that_fails_raises_its_own_error_and_is_measured(warm_meter: EmissionsMeter) -> None:
    with pytest.raises(KeyboardInterrupt), measure_training("DEU") as run:
        raise KeyboardInterrupt
    assert run.energy_wh > 0


# Shares


def test_energy_is_shared_by_time() -> None:
    found = shares(12.0, {"autoencoder": 10.0, "patch_knn": 30.0})
    assert found == {"autoencoder": 3.0, "patch_knn": 9.0}


@pytest.mark.parametrize(
    ("total_mj", "durations_ms", "expected"),
    [
        (None, {"a": 1.0, "b": 3.0}, {"a": None, "b": None}),
        (8.0, {"a": 0.0, "b": 3.0}, {"a": None, "b": 8.0}),
        (8.0, {"a": 0.0}, {"a": None}),
        (8.0, {}, {}),
    ],
)
def test_a_share_of_nothing_is_unknown_and_not_zero(
    total_mj: float | None, durations_ms: dict[str, float], expected: dict[str, float | None]
) -> None:
    assert shares(total_mj, durations_ms) == expected


# What must not happen


WATCH = """
import os, sys

SPEAKING = ["connect", "sendto", "sendmsg", "getaddrinfo", "gethostbyname", "gethostbyaddr", "getnameinfo"]

def watch(event, args):
    if event.startswith("socket.") and event.removeprefix("socket.") in SPEAKING:
        with open(os.environ["WATCH_LOG"], "a") as log:
            log.write(f"{event} {args[1:]}\\n")

sys.addaudithook(watch)
"""

PROGRAM = """
import json, os, signal, socket, time
handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
from anomaly.emissions import EmissionsMeter, measure_training
import sys
loaded = "codecarbon" in sys.modules
meter = EmissionsMeter(country="USA")
started = time.perf_counter()
meter.warm_up()
warm_up_s = time.perf_counter() - started
for _ in range(3):
    started = time.perf_counter()
    with meter.measure() as measurement:
        pass
    measure_s = time.perf_counter() - started
with measure_training("FRA") as run:
    time.sleep(1.2)
connections = os.path.exists(os.environ["WATCH_LOG"]) and open(os.environ["WATCH_LOG"]).read()
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
    probe.connect(("127.0.0.1", 9))
print(json.dumps({
    "handlers_kept": handlers == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
    "loaded_at_import": loaded, "warm_up_s": warm_up_s, "measure_s": measure_s, "connections": connections,
    "watched": os.path.exists(os.environ["WATCH_LOG"]), "g_per_kwh": measurement.emissions.g_per_kwh,
    "ratio": measurement.emissions.co2eq_ug / measurement.emissions.energy_mj, "training_wh": run.energy_wh,
    "ram_power_w": measurement.emissions.ram_power_w,
}))
"""


def test_it_opens_no_connection_writes_no_file_says_nothing_and_leaves_signals_alone(
    tmp_path: Path, warm_meter: EmissionsMeter
) -> None:
    """Runs in a process of its own, in which everything is set that could tempt CodeCarbon to do so."""
    folders = {name: tmp_path / name for name in ("cwd", "tmp", "home", "site")}
    for folder in folders.values():
        folder.mkdir()
    (folders["site"] / "sitecustomize.py").write_text(WATCH)  # the processes that CodeCarbon starts are watched, too
    tempting = {
        "ELECTRICITYMAPS_API_TOKEN": "token",
        "CO2_SIGNAL_API_TOKEN": "token",
        "EMISSIONS_ENDPOINT": "http://127.0.0.1:9/emissions",
        "SAVE_TO_API": "true",
        "OUTPUT_METHODS": "csv,api",
        "ALLOW_MULTIPLE_RUNS": "false",
        "COUNTRY_ISO_CODE": "DEU",
        "REGION": "california",
        "CLOUD_PROVIDER": "gcp",
        "CLOUD_REGION": "us-east1",
        "FORCE_CARBON_INTENSITY_G_CO2E_KWH": "1000",
        "PUE": "2",
        "LOG_LEVEL": "debug",
        "OUTPUT_DIR": "/nowhere",
    }
    environment = {
        **os.environ,
        **{f"CODECARBON_{name}": value for name, value in tempting.items()},
        "HOME": str(folders["home"]),
        "TMPDIR": str(folders["tmp"]),
        "PYTHONPATH": os.pathsep.join([str(folders["site"]), str(Path(emissions.__file__).parents[1])]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "WATCH_LOG": str(tmp_path / "connections"),
    }
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=folders["cwd"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.stderr == ""
    found = json.loads(ended.stdout)
    assert found["connections"] is False
    assert found["watched"]  # the watch does see a connection where there is one
    assert found["handlers_kept"]
    assert not found["loaded_at_import"]
    assert found["g_per_kwh"] == measured(EmissionsMeter(country="USA"), lambda: None).g_per_kwh  # as without variables
    assert found["ram_power_w"] == measured(warm_meter, lambda: None).ram_power_w
    assert found["ratio"] == pytest.approx(found["g_per_kwh"] / 3.6e9 * 1e6, rel=1e-6)
    assert found["measure_s"] < found["warm_up_s"] / 5
    assert found["training_wh"] > 0
    for name in ("cwd", "tmp", "home"):
        assert list(folders[name].rglob("*")) == []


def test_a_warm_up_in_the_background_leaves_its_error_to_the_first_measurement() -> None:
    meter = EmissionsMeter("XYZ")
    meter.begin_warm_up()
    with pytest.raises(VigieError, match="unknown country 'XYZ'"), meter.measure():
        pass
