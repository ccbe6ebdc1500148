"""What sections of settings are made of: frozen, typed, with a default, a unit and a meaning for every setting."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from reidray.config import Settings

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
NotNegative = Annotated[float, Field(ge=0.0)]
Count = Annotated[int, Field(ge=1)]
CountOrZero = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Part = Annotated[float, Field(gt=0.0, lt=1.0)]
Epochs = Count | Part
"""A number of epochs, or below 1 a share of train.epochs, so that a longer run keeps its shape."""
FirstEpoch = CountOrZero | Part
"""An epoch, counted from 0, or a share of train.epochs that are before it."""


def epochs_of(value: float, epochs: int) -> int:
    """Epochs, from a setting that is `Epochs` or `FirstEpoch`; a share is rounded, and no share is no epoch."""
    return max(1, round(value * epochs)) if 0 < value < 1 else int(value)


def setting(default: Any, meaning: str, unit: str = "") -> Any:
    """A setting of a section."""
    return Field(default=default, description=meaning, json_schema_extra={"unit": unit})


def epochs_setting(default: float, meaning: str) -> Any:
    """A setting that is `Epochs` or `FirstEpoch`; a run keeps the number that it had in the beginning."""
    unit = "epochs, or below 1 a share of them"
    return Field(default=default, description=meaning, json_schema_extra={"unit": unit, "counts_epochs": True})


class Section(BaseModel):
    """A frozen group of settings; unknown names are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    def counted_epochs(self, epochs: int) -> dict[str, int]:
        """What shares of a run of so many epochs are in numbers of epochs, by setting; what is no share is left out."""
        found = {}
        for name, field in type(self).model_fields.items():
            extra = field.json_schema_extra
            value = getattr(self, name)
            if isinstance(extra, dict) and extra.get("counts_epochs") and 0 < value < 1:
                found[name] = epochs_of(value, epochs)
        return found


class MethodSection(Section):
    """The settings of one method, in a section of the method's name."""

    def check(self, settings: Settings) -> None:
        """See whether the settings of the run fit this method; called for the chosen method alone.

        Raises:
          ValueError: one sentence that says which settings do not fit and what to do.
        """

    @property
    def has_stages(self) -> bool:
        """Whether the method's own schedule says how many epochs there are, and not train.epochs."""
        return False

    @property
    def unread(self) -> tuple[str, ...]:
        """Settings of this section that the others leave without effect."""
        return ()

    @property
    def needs_all_rows(self) -> str | None:
        """What of the method needs all rows of a memory on every worker, and how to do without it; None: nothing.

        With it run.replica=sharded is refused, and run.replica=auto keeps all rows on every worker.
        """
        return None
