"""What a running app holds: inspectors by commit, what each revision last pointed to, one meter.

A revision is resolved for every request, so two people on two revisions never see each other's answer. When that fails
(no Hub, revision gone, disk full, corrupt file), the commit that served last goes on, with a warning in the report.
"""

import threading
import time
from collections import OrderedDict
from concurrent.futures import Future
from pathlib import Path

import numpy as np
from PIL import Image

from anomaly import hub, images, releases
from anomaly.drift import DriftSettings
from anomaly.drift_watch import DriftWatch
from anomaly.emissions import EmissionsMeter
from anomaly.errors import RegistryError, UnknownInspectorError, VigieError
from anomaly.figures import InspectorMetrics
from anomaly.inspector import Inspection, Inspector
from anomaly.loading import load_at
from anomaly.settings import Settings

_LIST_S = 60.0  # a list of revisions is this fresh: the Hub allows 500 calls in 5 minutes an address
_PAUSE_S = 20.0  # after a failure the last commit serves for this long without another try: a silent Hub costs 4 s


class Service:
    """Thread-safe. One for each process."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.meter = EmissionsMeter(self.settings.country, self.settings.cpu_power_w)
        self.drift = DriftWatch(
            DriftSettings(
                window=self.settings.drift_window,
                level=self.settings.drift_level,
                prevalence=self.settings.drift_prevalence,
            )
        )
        self._lock = threading.Lock()  # around _loaded and _loading
        self._loaded: OrderedDict[tuple[str, str], Inspector] = OrderedDict()  # by source and commit, latest use last
        self._loading: dict[tuple[str, str], Future[Inspector]] = {}
        self._places: dict[str, hub.Source] = {}
        self._served: dict[tuple[str, str], str] = {}  # source and revision -> the commit that served last
        self._failed: dict[tuple[str, str], tuple[float, str]] = {}  # source and revision -> when, why
        self._listed: dict[str, tuple[float, list[hub.Revision]]] = {}
        self._listing = {text: threading.Lock() for text in self.settings.inspectors}

    def inspect(
        self,
        image: str | Path | bytes | Image.Image | images.RgbImage,
        inspector: str | None = None,
        revision: str | None = None,
        policy: str | None = None,
    ) -> Inspection:
        """Reads a picture and decides on it.

        Args:
            image: a path, a file's bytes, a PIL image, or what `images.read` returned within `limits`.
            inspector: one of the configured sources; the first by default.
            revision: tag, branch or commit; the default one if empty.
            policy: name; the inspector's default if empty.

        Raises:
            ImageError, RegistryError, ModelLoadError, PolicyError: each says who can do what about it.
        """
        return self.inspect_and_show(image, inspector, revision, policy)[0]

    def inspect_and_show(
        self,
        image: str | Path | bytes | Image.Image | images.RgbImage,
        inspector: str | None = None,
        revision: str | None = None,
        policy: str | None = None,
    ) -> tuple[Inspection, images.RgbImage]:
        """As `inspect`, and the picture that was decided on."""
        loaded, name, warnings = self._find(inspector, revision)
        loaded.policy(policy)  # a wrong name is told before a big picture is decoded
        pixels = image if isinstance(image, np.ndarray) else images.read(image, self.limits(loaded))
        return loaded.inspect(pixels, policy, revision=name, warnings=warnings), pixels

    def limits(self, inspector: Inspector) -> images.ImageLimits:
        """Of a picture: those of the inspector, or of the deployment where they are smaller."""
        own = inspector.file.limits
        smaller = {
            "max_bytes": min(own.max_bytes, self.settings.max_bytes),
            "max_pixels": min(own.max_pixels, self.settings.max_pixels or own.max_pixels),
        }
        return own.model_copy(update=smaller)

    def inspector(self, inspector: str | None = None, revision: str | None = None) -> Inspector:
        """The loaded inspector behind a revision."""
        return self._find(inspector, revision)[0]

    def last(self, inspector: str | None = None, revision: str | None = None) -> Inspector:
        """As `inspector`, at the commit that the revision served last, if it did: the Hub is not asked again."""
        place = self._place(inspector)
        name = (revision or "").strip() or self.default_revision(inspector)
        known = self._served.get((place.text, name))
        return self._find(inspector, revision)[0] if known is None else self._load(place, known, name)

    def figures(self, inspector: str | None = None, revision: str | None = None) -> InspectorMetrics | None:
        """metrics.json of the revision, as it served last; None where it has none.

        Raises:
            RegistryError, ModelLoadError: it cannot be had, or is not right.
        """
        return releases.inspector_metrics(self._place(inspector), self.last(inspector, revision).commit)

    def revisions(self, inspector: str | None = None) -> list[hub.Revision]:
        """Tags first; asked for at most once a minute, and what was known when that fails."""
        place = self._place(inspector)
        with self._listing[place.text]:
            at, known = self._listed.get(place.text, (0.0, []))
            if known and time.monotonic() - at < _LIST_S:
                return list(known)
            try:
                known = hub.list_revisions(place)
            except RegistryError:
                if not known:
                    raise
            self._listed[place.text] = (time.monotonic(), known)
            return list(known)

    def default_revision(self, inspector: str | None = None) -> str:
        """The latest tag; without any tag, main."""
        tags = [revision.name for revision in self.revisions(inspector) if revision.kind == "tag"]
        return tags[0] if tags else "main"

    def _place(self, inspector: str | None) -> hub.Source:
        text = inspector or self.settings.inspectors[0]
        if text not in self.settings.inspectors:
            raise UnknownInspectorError(f"unknown inspector {text!r}; this app serves {list(self.settings.inspectors)}")
        if text not in self._places:
            self._places[text] = hub.parse_source(text)
        return self._places[text]

    def _find(self, inspector: str | None, revision: str | None) -> tuple[Inspector, str, list[str]]:
        """The inspector, the name of its revision, and warnings."""
        place = self._place(inspector)
        name = (revision or "").strip() or self.default_revision(inspector)
        key = (place.text, name)
        known = self._served.get(key)
        failed_at, reason = self._failed.get(key, (0.0, ""))
        if known is None or not reason or time.monotonic() - failed_at >= _PAUSE_S:
            try:
                commit = hub.resolve(place, name)
                loaded = self._load(place, commit, name)
            except VigieError as error:
                if known is None:
                    raise
                reason = str(error)
                self._failed[key] = (time.monotonic(), reason)
            else:
                self._served[key] = commit
                self._failed.pop(key, None)
                return loaded, name, []
        warning = f"{reason}. {name} is served as it was last known: commit {known}."
        return self._load(place, known, name), name, [warning]

    def _load(self, place: hub.Source, commit: str, name: str) -> Inspector:
        """The inspector at a commit. A second request for it waits for the first one's result; other commits go on."""
        key = (place.text, commit)
        with self._lock:
            if (loaded := self._loaded.get(key)) is not None:
                self._loaded.move_to_end(key)
                return loaded
            loading = self._loading.get(key)
            if mine := loading is None:
                loading = self._loading[key] = Future()
        if mine:
            try:
                backend = self.settings.chosen_backend()
                found = load_at(place, commit, name, meter=self.meter, device=self._device(), backend=backend)
                loading.set_result(found)
            except BaseException as error:
                loading.set_exception(error)
            with self._lock:
                del self._loading[key]
                if loading.exception() is None:
                    self._loaded[key] = loading.result()
                while len(self._loaded) > self.settings.loaded_inspectors:
                    self._loaded.popitem(last=False)
        return loading.result()

    def _device(self) -> str:
        if self.settings.device != "auto":
            return self.settings.device
        import torch

        return "cuda" if torch.cuda.is_available() else "cpu"
