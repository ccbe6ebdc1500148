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


def setting(default: Any, meaning: str, unit: str = "") -> Any:
    """A setting of a section."""
    return Field(default=default, description=meaning, json_schema_extra={"unit": unit})


class Section(BaseModel):
    """A frozen group of settings; unknown names are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)


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
