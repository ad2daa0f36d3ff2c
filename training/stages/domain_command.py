"""Runs a command of a domain."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from training.domain import Command, Domain, Job

if TYPE_CHECKING:
    from training.workspace import Workspace


def run_command(
    domain: Domain, command: Command, workspace: Workspace, given: Mapping[str, Any], device: str, words: Sequence[str]
) -> None:
    """`given`: the command's options by attribute. Those that the domain has too change the settings under which a
    model is loaded. Raises what the command raises."""
    from training.stages.trained import load_trained

    shared = {option.attribute for option in domain.options}
    places = {name: value for name, value in given.items() if name in shared}
    module, _, name = command.run.partition(":")
    job = Job(workspace, {**given, "device": device})
    load = partial(load_trained, workspace=workspace, options=places)
    getattr(importlib.import_module(module), name)(job, words, load)
