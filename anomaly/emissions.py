"""Energy and CO2e of an inspection or a training run, as CodeCarbon 3.3 estimates them (github.com/mlco2/codecarbon).

Every figure is an estimate. Without a hardware counter (virtual machines, Spaces) CodeCarbon knows no consumption: it
multiplies a rated power of the CPU by 0.1 + 0.9 load^3 and adds a constant for the memory. It sees the whole machine,
not this process; it does not see a GPU that another process uses for us (ZeroGPU), nor screen, network or cooling.
"""

import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from anomaly.errors import VigieError

_MJ_PER_KWH = 3.6e9
_UG_PER_KG = 1e9
_WH_PER_KWH = 1e3
_G_PER_KG = 1e3
_UNAVAILABLE = "unavailable: "

# CPU load is counted in ticks of 10 ms and enters cubed, so a load that jumps between 0 and 1 reads too high. Measured
# with one busy thread of two at 8 W: 5 to 8 W over 5 or 20 ms, 1.7 to 2.7 W over 100 ms, 1.7 W over 300 ms.
_COARSE_BELOW_MS = 200
_COARSE = "coarse: CPU load is counted in 10 ms ticks, so the CPU's part of so short a time tends to read too high"


class Emissions(BaseModel):
    """What one inspection is estimated to have cost. None means not known, never nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    energy_mj: float | None = None  # millijoule; None = below resolution or unavailable
    cpu_mj: float | None = None
    ram_mj: float | None = None
    gpu_mj: float | None = None
    co2eq_ug: float | None = None  # microgram CO2e
    backend: str  # how the CPU's power was obtained
    cpu_power_w: float | None = None  # mean over this inspection
    ram_power_w: float | None = None
    country: str  # ISO 3166 alpha-3
    g_per_kwh: float | None  # CodeCarbon's figure for the country; None = it has none, or could not be asked
    duration_ms: float  # of the measured block
    running_mean_mj: float | None  # over all inspections since launch that CodeCarbon took a reading of
    inspections: int  # how many the mean stands on
    wh_per_1000: float | None  # Wh for 1,000 images at that mean
    note: str | None  # in words: "below resolution", "coarse: ..." or why there is no estimate ("unavailable: ...")
    label: Literal["estimated"] = "estimated"


@dataclass(slots=True)
class Measurement:
    """Filled when the measured block ends."""

    emissions: Emissions | None = None


@dataclass(slots=True)
class TrainingEmissions:
    """What a training run is estimated to have cost; filled when the measured block ends."""

    country: str  # ISO 3166 alpha-3
    g_per_kwh: float | None = None
    backend: str = "none"
    hardware: str = "unknown"  # CPU and GPU model
    grams_co2eq: float | None = None
    energy_wh: float | None = None
    duration_s: float = 0.0
    note: str | None = None  # why there is no estimate ("unavailable: ...")


class EmissionsMeter:
    """One tracker for the life of the app, one measurement at a time.

    CodeCarbon gives a task that overlaps another nothing, zero or its neighbour's energy, so `measure` lets one thread
    in after the other. Whoever runs models inside it has serialised the models as well.
    """

    def __init__(self, country: str = "USA", cpu_power_w: float | None = None) -> None:
        """Only remembers its arguments.

        Args:
            country: ISO 3166 alpha-3 code of the country whose electricity is used.
            cpu_power_w: Rated power of the CPU under full load, where it is known better than CodeCarbon's table does.
        """
        self.country = country
        self._cpu_power_w = cpu_power_w
        self._lane = threading.RLock()  # re-entrant so that a nested measure() is an error, not a deadlock
        self._measuring = False
        self._tracker: Any = None
        self._g_per_kwh: float | None = None
        self._backend = "none"
        self._unavailable: str | None = None
        self._total_mj = 0.0
        self._inspections = 0

    def warm_up(self) -> None:
        """Probes the hardware (1.5 to 3 s, once in a process), so that the first inspection does not pay for it.

        If CodeCarbon fails, that is remembered and becomes the note of every measurement.

        Raises:
            VigieError: The country is unknown or the power makes no sense.
        """
        with self._lane:
            if self._tracker is not None or self._unavailable is not None:
                return
            try:
                self._g_per_kwh = _grid_g_per_kwh(self.country)
                tracker = _new_tracker(self.country, self._cpu_power_w)
                tracker.start_task()
                tracker.stop_task()
                tracker._tasks.clear()
                self._backend = _backend(tracker, self._cpu_power_w)
                self._tracker = tracker
            except VigieError:
                raise
            except Exception as error:  # whatever happens in CodeCarbon, parts are still inspected
                self._unavailable = f"{_UNAVAILABLE}{error!r}"

    def begin_warm_up(self) -> None:
        """Begins `warm_up` in the background: most of it is waiting for processes that look at the CPU.

        An error is kept for the next `warm_up` or `measure`, which runs into it again.
        """

        def probe() -> None:
            with suppress(VigieError):
                self.warm_up()

        threading.Thread(target=probe, daemon=True).start()

    @contextmanager
    def measure(self) -> Iterator[Measurement]:
        """Measures the block; waits while another thread is in one. Costs about 1 ms.

        A failure in CodeCarbon ends as a note in the emissions. An exception of the block passes through, and the block
        does not count in the running mean.

        Yields:
            A measurement whose `emissions` is None until the block has ended.

        Raises:
            VigieError: As in warm_up, before the block is entered.
            RuntimeError: Called inside a block that is being measured.
        """
        measurement = Measurement()
        with self._lane:
            if self._measuring:
                raise RuntimeError("measure() was called inside a measured block; CodeCarbon measures one at a time")
            self.warm_up()
            problem = self._start()
            completed = False
            self._measuring = True
            started = time.perf_counter()
            try:
                yield measurement
                completed = True
            finally:
                duration_ms = (time.perf_counter() - started) * 1e3
                self._measuring = False
                measurement.emissions = self._stop(duration_ms, completed, problem)

    def _start(self) -> str | None:
        if self._unavailable is not None:
            return self._unavailable
        try:
            self._tracker.start_task()
        except Exception as error:
            return self._give_up(error)
        return None

    def _stop(self, duration_ms: float, completed: bool, problem: str | None) -> Emissions:
        """Reads the tracker, counts a completed block in the mean, and never raises for CodeCarbon's sake."""
        figures: dict[str, float | None] = {}
        note = problem
        if problem is None:
            try:
                figures, total_mj = _figures(self._tracker)
            except Exception as error:
                note = self._give_up(error)
            else:
                if completed:
                    # A counter that did not tick counts as zero here: what it missed is in another reading, and leaving
                    # such inspections out would make the mean too high.
                    self._total_mj += total_mj
                    self._inspections += 1
                if figures["energy_mj"] is None:
                    note = "below resolution"
                elif self._backend.startswith("cpu_load") and duration_ms < _COARSE_BELOW_MS:
                    note = _COARSE
        mean_mj = _positive(self._total_mj / self._inspections) if self._inspections else None
        return Emissions(
            **figures,
            backend=self._backend,
            country=self.country,
            g_per_kwh=self._g_per_kwh,
            duration_ms=duration_ms,
            running_mean_mj=mean_mj,
            inspections=self._inspections,
            wh_per_1000=None if mean_mj is None else 1000 * mean_mj / _MJ_PER_KWH * _WH_PER_KWH,
            note=note,
        )

    def _give_up(self, error: Exception) -> str:
        """Drops a tracker that may be stuck in a half-open task; the next measurement gets a new one (5 ms)."""
        self._tracker.stop()  # ends its threads; CodeCarbon lets no exception out of it
        self._tracker = None
        return f"{_UNAVAILABLE}{error!r}"


@contextmanager
def measure_training(country: str = "USA", cpu_power_w: float | None = None) -> Iterator[TrainingEmissions]:
    """Measures a whole training run, sampling every second; a failure in CodeCarbon never costs the run.

    Args:
        country: ISO 3166 alpha-3 code of the country whose electricity is used.
        cpu_power_w: Rated power of the CPU under full load, where it is known better than CodeCarbon's table does.

    Yields:
        The emissions, which are filled when the block has ended, also when it raised.

    Raises:
        VigieError: The country is unknown or the power makes no sense; before the block is entered.
    """
    run = TrainingEmissions(country=country)
    tracker = None
    try:
        run.g_per_kwh = _grid_g_per_kwh(country)
        tracker = _new_tracker(country, cpu_power_w)
        tracker.start()
        run.backend = _backend(tracker, cpu_power_w)
        hardware = tracker.get_detected_hardware()
        run.hardware = " + ".join(filter(None, [hardware["cpu_model"], hardware["gpu_model"]])) or "unknown"
    except VigieError:
        raise
    except Exception as error:
        run.note = f"{_UNAVAILABLE}{error!r}"
    started = time.perf_counter()
    try:
        yield run
    finally:
        run.duration_s = time.perf_counter() - started
        if run.note is None:
            _finish_training(tracker, run)


def shares(total_mj: float | None, durations_ms: Mapping[str, float]) -> dict[str, float | None]:
    """Splits the energy of an inspection among its members by their time: a share, not a measurement.

    Two members that ran equally long get the same, even if one used a single core and the other all of them.

    Args:
        total_mj: Energy of the inspection, None if there is no estimate.
        durations_ms: Time of each member.

    Returns:
        Millijoules of each member, adding up to the total; None where there is no estimate or no time.
    """
    whole_ms = sum(durations_ms.values())
    return {
        member: total_mj * ms / whole_ms if total_mj is not None and ms > 0 else None
        for member, ms in durations_ms.items()
    }


def _figures(tracker: Any) -> tuple[dict[str, float | None], float]:
    """Ends the task. Gives its figures in our units, None instead of zero, and its energy in mJ with zeros."""
    data = tracker.stop_task()
    tracker._tasks.clear()  # CodeCarbon keeps every task for a file that we do not write: 2.4 KB each
    if data is None:
        raise RuntimeError("CodeCarbon gave no reading")
    figures = {
        "cpu_mj": _positive(data.cpu_energy * _MJ_PER_KWH),
        "ram_mj": _positive(data.ram_energy * _MJ_PER_KWH),
        "gpu_mj": _positive(data.gpu_energy * _MJ_PER_KWH),
        "cpu_power_w": _positive(tracker._cpu_power.W),  # data.cpu_power is a mean since launch, not of this task
        "ram_power_w": _positive(tracker._ram_power.W),
    }
    # A counter that did not tick (RAPL every 1 ms, NVML every 20 to 100 ms) leaves a sum that lacks its largest part.
    tracked = ["cpu_mj", "ram_mj", "gpu_mj"] if data.gpu_count else ["cpu_mj", "ram_mj"]
    whole = all(figures[part] is not None for part in tracked)
    figures["energy_mj"] = _positive(data.energy_consumed * _MJ_PER_KWH) if whole else None
    figures["co2eq_ug"] = _positive(data.emissions * _UG_PER_KG) if whole else None
    return figures, data.energy_consumed * _MJ_PER_KWH


def _finish_training(tracker: Any, run: TrainingEmissions) -> None:
    try:
        tracker.stop()
        total = tracker.final_emissions_data
        run.energy_wh = _positive(total.energy_consumed * _WH_PER_KWH)
        run.grams_co2eq = _positive(total.emissions * _G_PER_KG)
    except Exception as error:
        run.note = f"{_UNAVAILABLE}{error!r}"


def _positive(value: float) -> float | None:
    return value if value > 0 else None


def _grid_g_per_kwh(country: str) -> float | None:
    """Asks the function that the tracker asks; for a country without data that one would quietly take the world's."""
    from codecarbon import __version__ as version
    from codecarbon.core.emissions import Emissions as Factors
    from codecarbon.core.units import Energy
    from codecarbon.external.geography import GeoMetadata
    from codecarbon.input import DataSource

    _silence()
    known = DataSource().get_global_energy_mix_data()
    if country not in known:
        raise VigieError(
            f"unknown country {country!r}; CodeCarbon {version} knows {len(known)} by their ISO 3166 alpha-3 code in "
            "capitals, such as 'FRA', 'DEU' or 'USA'"
        )
    one_kwh = Energy.from_energy(kWh=1)
    kilograms: float = Factors(DataSource()).get_country_emissions(one_kwh, GeoMetadata(country_iso_code=country))
    return _positive(round(kilograms * _G_PER_KG, 6))  # the data hold a 0 for the Central African Republic


def _new_tracker(country: str, cpu_power_w: float | None) -> Any:
    """Sets whatever decides the figures or could open a connection, so that neither CODECARBON_* variables nor a
    .codecarbon.config does: with a token there, even the offline tracker calls a server for each reading.
    """
    if cpu_power_w is not None and not cpu_power_w > 0:
        raise VigieError(f"cpu_power_w is {cpu_power_w}; expected watts above 0, or None to let CodeCarbon find out")
    from codecarbon import OfflineEmissionsTracker

    _silence()
    return OfflineEmissionsTracker(
        country_iso_code=country,
        region=None,
        cloud_provider=None,
        cloud_region=None,
        tracking_mode="machine",  # "process" reads zero for most tasks below 10 ms
        measure_power_secs=15,
        force_cpu_power=cpu_power_w,
        force_ram_power=None,
        force_mode_cpu_load=False,
        force_carbon_intensity_g_co2e_kwh=None,
        pue=1.0,
        allow_multiple_runs=True,  # otherwise a lock file and signal handlers
        output_methods=[],
        output_handlers=[],
        output_dir=".",  # must exist; nothing is written
        emissions_endpoint=None,
        electricitymaps_api_token="",  # not None, which makes it look for the token under an older name
        log_level="critical",
    )


def _silence() -> None:
    """Keeps CodeCarbon off stderr; its log_level comes into force only when its constructor has already logged."""
    logging.getLogger("codecarbon").setLevel(logging.CRITICAL)


def _backend(tracker: Any, cpu_power_w: float | None) -> str:
    """Says in words where the CPU's power comes from, by the hardware that the tracker has set up."""
    cpu = next((part for part in tracker._hardware if hasattr(part, "_mode")), None)
    if cpu is None:  # Apple and Raspberry chips have classes of their own, and measure
        return " + ".join(sorted({type(part).__name__ for part in tracker._hardware}))
    if cpu._mode not in ("cpu_load", "constant"):
        return str(cpu._mode).removeprefix("intel_")  # rapl, power_gadget, windows_emi
    if cpu_power_w is not None:
        rated = f"{cpu_power_w:g} W given"
    elif _is_in_tdp_table(cpu._model):
        rated = f"{cpu._tdp:g} W by TDP table"
    else:
        rated = f"{cpu._tdp:g} W assumed, CPU not in TDP table"
    return f"cpu_load ({rated}, x load)" if cpu._mode == "cpu_load" else f"constant power ({rated}, x 0.5)"


def _is_in_tdp_table(model: str) -> bool:
    """CodeCarbon takes 4 W a thread for a CPU that it does not know, and does not tell."""
    from codecarbon.core import cpu
    from codecarbon.core.hardware_cache import get_cached_tdp

    return bool(model) and get_cached_tdp(cpu)._get_cpu_power_from_registry(model) is not None
