"""What a running app holds: inspectors by commit, what each revision last pointed to, one meter.

A revision is resolved for every request, so two people on two revisions never see each other's answer. When the Hub
does not answer, or the revision is gone, the commit it last pointed to goes on serving, with a warning in the report.
"""

import threading
import time
from collections import OrderedDict
from pathlib import Path

from PIL import Image

from anomaly import hub, images
from anomaly.emissions import EmissionsMeter
from anomaly.errors import HubUnreachableError, RegistryError, RepoGatedError, RepoNotFoundError, RevisionNotFoundError
from anomaly.inspector import Inspection, Inspector, load_at
from anomaly.settings import Settings

_LIST_S = 60.0  # a list of revisions is this fresh: the Hub allows 500 calls in 5 minutes an address


class Service:
    """Thread-safe. One for each process."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.meter = EmissionsMeter(self.settings.country, self.settings.cpu_power_w)
        self._lock = threading.Lock()
        self._loaded: OrderedDict[tuple[str, str], Inspector] = OrderedDict()
        self._loading: dict[tuple[str, str], threading.Lock] = {}
        self._resolved: dict[tuple[str, str], str] = {}
        self._listed: dict[str, tuple[float, list[hub.Revision]]] = {}

    def warm_up(self) -> None:
        """Probes the hardware for the meter and loads the first inspector's default revision."""
        self.meter.warm_up()
        self.inspector()

    def inspect(
        self,
        image: str | Path | bytes | Image.Image,
        inspector: str | None = None,
        revision: str | None = None,
        policy: str | None = None,
    ) -> Inspection:
        """Reads a picture and decides on it.

        Args:
            image: a path, a file's bytes or a PIL image.
            inspector: one of the configured sources; the first by default.
            revision: tag, branch or commit; the default one if empty.
            policy: name; the inspector's default if empty.

        Raises:
            ImageError, RegistryError, ModelLoadError, PolicyError: each says who can do what about it.
        """
        loaded, name, warnings = self._find(inspector, revision)
        limits = loaded.file.limits.model_copy(update={"max_bytes": self.settings.max_bytes})
        if self.settings.max_pixels is not None:
            limits = limits.model_copy(update={"max_pixels": min(limits.max_pixels, self.settings.max_pixels)})
        loaded.policy(policy)  # a wrong name is told before a big picture is decoded
        return loaded.inspect(images.read(image, limits), policy, revision=name, warnings=warnings)

    def inspector(self, inspector: str | None = None, revision: str | None = None) -> Inspector:
        """The loaded inspector behind a revision."""
        return self._find(inspector, revision)[0]

    def revisions(self, inspector: str | None = None) -> list[hub.Revision]:
        """Tags first; asked for at most once a minute, and what was known when the Hub does not answer."""
        place = self._place(inspector)
        with self._lock:
            at, known = self._listed.get(place.text, (0.0, []))
        if known and time.monotonic() - at < _LIST_S:
            return known
        try:
            known = hub.list_revisions(place)
        except HubUnreachableError:
            if not known:
                raise
        with self._lock:
            self._listed[place.text] = (time.monotonic(), known)
        return known

    def default_revision(self, inspector: str | None = None) -> str:
        """The latest tag; without any tag, main."""
        tags = [revision.name for revision in self.revisions(inspector) if revision.kind == "tag"]
        return tags[0] if tags else "main"

    def _place(self, inspector: str | None) -> hub.Source:
        text = inspector or self.settings.inspectors[0]
        if text not in self.settings.inspectors:
            raise RegistryError(f"unknown inspector {text!r}; this app serves {list(self.settings.inspectors)}")
        return hub.parse_source(text)

    def _find(self, inspector: str | None, revision: str | None) -> tuple[Inspector, str, list[str]]:
        place = self._place(inspector)
        name = revision or self.default_revision(inspector)
        commit, warnings = self._resolve(place, name)
        key = (place.text, commit)
        with self._lock:
            loading = self._loading.setdefault(key, threading.Lock())
        with loading:  # the second request for a revision waits instead of loading it again; other revisions go on
            with self._lock:
                loaded = self._loaded.get(key)
            if loaded is None:
                loaded = load_at(place, commit, name, meter=self.meter, device=self._device())
        with self._lock:
            self._loaded[key] = loaded
            self._loaded.move_to_end(key)
            while len(self._loaded) > self.settings.loaded_inspectors:
                self._loaded.popitem(last=False)
        return loaded, name, warnings

    def _resolve(self, place: hub.Source, name: str) -> tuple[str, list[str]]:
        key = (place.text, name)
        try:
            commit = hub.resolve(place, name)
        except (HubUnreachableError, RevisionNotFoundError, RepoNotFoundError, RepoGatedError) as error:
            known = self._resolved.get(key)
            if known is None:
                raise
            return known, [f"{error} Serving {name} as it was last known: commit {known[:12]}."]
        self._resolved[key] = commit
        return commit, []

    def _device(self) -> str:
        if self.settings.device != "auto":
            return self.settings.device
        import torch

        return "cuda" if torch.cuda.is_available() else "cpu"
