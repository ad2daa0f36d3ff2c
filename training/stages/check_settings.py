"""Checks the settings that a command changes before hours are spent on the data of its trainings."""

from __future__ import annotations

from collections.abc import Sequence

from training.errors import UsageError
from training.registry import recipe_type, settings_layers

UNNAMED = ("full", "demo")  # which one a training uses is known from its data, if the command names none


def require_settings(family: str, preset: str | None, assignments: Sequence[str]) -> None:
    """Raise UsageError, as `train` would, if the assignments KEY=VALUE fit no preset that the training may use."""
    from training.config import build, override_layer

    kind, first = recipe_type(family).settings_type, None
    for name in (preset,) if preset else UNNAMED:
        try:
            build(kind, *settings_layers(family, name), override_layer(assignments))
        except UsageError as error:
            first = first or error
        else:
            return
    if first is not None:
        raise UsageError(f"{family}: {first}") from None
