"""What a deployment may set, by environment variables that begin with VIGIE_ (pydantic-settings)."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from anomaly.backends import Backend, BackendName, Precision
from anomaly.errors import VigieError

STARTER = Path(__file__).resolve().parent.parent / "starter"


class Settings(BaseSettings):
    """The descriptions below are the table in the README."""

    model_config = SettingsConfigDict(env_prefix="VIGIE_", frozen=True, extra="ignore")

    inspectors: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(str(STARTER),), min_length=1, description="Hub repo ids or folders, separated by commas"
    )
    country: str = Field(default="USA", description="ISO 3166 alpha-3 code of the country whose electricity is used")
    cpu_power_w: float | None = Field(default=None, gt=0, description="rated CPU power where it is known, in watts")
    max_pixels: int | None = Field(default=None, gt=0, description="limit on a picture's pixels, under the inspector's")
    max_bytes: int = Field(default=50_000_000, gt=0, description="limit on an uploaded file, in bytes")
    batch_files: int = Field(default=200, gt=0, description="limit on the pictures of one batch")
    batch_bytes: int = Field(
        default=200_000_000, gt=0, description="limit on the pictures of one batch together, in bytes when unpacked"
    )
    loaded_inspectors: int = Field(default=3, gt=0, description="how many revisions stay in memory")
    drift_window: int = Field(default=100, ge=10, description="latest parts that the drift panel compares")
    drift_level: float = Field(
        default=0.01, gt=0, lt=1, description="probability that a drift alarm of one detector is ever false"
    )
    drift_prevalence: float = Field(default=0.05, ge=0, lt=0.5, description="share of defects that is no drift")
    log: Path | None = Field(default=None, description="folder that every inspection is logged in; none by default")
    log_pictures: bool = Field(default=False, description="keep every inspected picture beside the log")
    log_max_bytes: int = Field(default=10_000_000, gt=0, description="a file of the log is followed by a new one")
    log_files: int = Field(default=10, gt=0, description="files of the log that are kept; the oldest goes first")
    feedback: Path | None = Field(default=None, description="folder for pictures that people label; none by default")
    feedback_repo: str | None = Field(default=None, description="Hub dataset that this folder is committed to")
    feedback_most: int = Field(default=10_000, gt=0, description="labelled pictures that are taken in all")
    device: str = Field(default="auto", description="cpu, cuda, or auto: cuda where there is one")
    backend: BackendName = Field(
        default="torch", description="torch, compile, onnx or openvino: what runs trunks and networks"
    )
    precision: Precision = Field(
        default="fp32", description="fp32, bf16 or int8 weights, of trunks and networks; scores move with the last two"
    )
    cache: Path | None = Field(default=None, description="folder of ONNX exports; by default beside the Hub's cache")

    def chosen_backend(self) -> Backend:
        """Raises VigieError where it does not have that precision."""
        return Backend(self.backend, self.precision, self.cache)

    @model_validator(mode="after")
    def _backend_has_it(self) -> Self:
        try:
            self.chosen_backend()
        except VigieError as error:
            raise ValueError(str(error)) from error
        return self

    @model_validator(mode="after")
    def _folder_first(self) -> Self:
        if self.feedback_repo is not None and self.feedback is None:
            raise ValueError("VIGIE_FEEDBACK_REPO needs VIGIE_FEEDBACK as well, the folder that is committed to it")
        return self

    @field_validator("inspectors", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value
