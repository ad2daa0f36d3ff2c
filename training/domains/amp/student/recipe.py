"""The family `amp`: a capture's network is trained to alias less, and to sound the same."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from training.domains.amp.captures import parse_capture
from training.domains.amp.exports import leaving, stream
from training.domains.amp.signal import measures
from training.domains.amp.signal.nmr import AUDIBLE, decibels
from training.domains.amp.signal.tones import next_prime
from training.domains.amp.student import recurrent
from training.domains.amp.student.config import AmpSettings
from training.domains.amp.student.groups import parameter_groups
from training.domains.amp.student.material import Samples, Shape, heard
from training.domains.amp.student.objective import Criterion, least_length
from training.domains.amp.student.pair import Pair
from training.domains.amp.student.targets import Targets
from training.recipe import Loss, Room, Stepped

TRAINING, VALIDATION = 0, 1
TERMS = ("esr", "nmr", "dc")


class AmpRecipe(Stepped):
    family, title, manifest, settings_type = "amp", "Anti-aliased capture", "amp", AmpSettings
    settings: AmpSettings
    provers = leaving.PROVERS
    dtype_policy = "float32"
    dtype_reason = (
        "aliases are smaller than bfloat16's rounding errors (an NMR of -29 dB becomes +1, one of -18 becomes +12), "
        "and float32 is 118 dB from float64."
    )

    def __init__(self, settings: AmpSettings):
        super().__init__(settings)
        self._shape: Shape | None = None
        self._criterion: Criterion | None = None
        self._targets: Targets | None = None
        self._recurrent = False

    @property
    def nano(self) -> bool:
        """Whether the student is a smaller network than the capture's."""
        return self.settings.student.size == "nano"

    @property
    def starts_trained(self) -> bool:  # type: ignore[override]
        """The student begins as the capture, unless it is a smaller one."""
        return not self.nano

    # -- data ------------------------------------------------------------------------------------------------------

    def encoders(self):
        from training.domains.amp.families import encoders

        return encoders()

    def fit_constants(self, rows):
        return {
            "capture": np.array(rows[0].records["capture_path"]["content"]),
            "rate": np.array(rows[0].values["rate"], np.int64),
        }

    def dataset(self, rows, training):
        content, rate = rows[0].records["capture_path"]["content"], int(rows[0].values["rate"])
        return Samples(rows, self._shape_of(parse_capture(np.array(content).tobytes(), self.item, rate)),
                       self.settings, training)  # fmt: skip

    def _shape_of(self, capture) -> Shape:
        before = max(network.receptive_field for network in capture.networks)
        rate = capture.sample_rate
        length = max(self.settings.material.length, next_prime(least_length(rate)))
        return Shape(rate, before or self.settings.lstm.warmup, length)

    # -- training --------------------------------------------------------------------------------------------------

    def build(self, constants):
        capture = parse_capture(np.asarray(constants["capture"]).tobytes(), self.item, int(constants["rate"]))
        pair = Pair(capture, self.nano)
        self._shape = self._shape_of(capture)
        self._recurrent = pair.recurrent
        return pair

    def _prepared(self, device: torch.device) -> tuple[Shape, Criterion, Targets]:
        assert self._shape is not None  # the engine builds the model first
        if self._criterion is None or self._criterion.taps.device != device:
            self._criterion = Criterion(self._shape.rate, self.settings.loss).to(device)
            self._targets = Targets(self._shape, self.settings.material.oversampling)
        return self._shape, self._criterion, self._targets

    def counts(self, batch):
        return dict.fromkeys(TERMS, float(len(batch["tone"]) + len(batch["number"])))

    def losses(self, model, batch, progress):
        shape, criterion, targets = self._prepared(batch["sound"].device)
        x = heard(batch, shape)
        sums: dict[str, Loss] = {}
        for number, (student, teacher) in enumerate(model.both()):
            target = targets.of(teacher, number, x, batch, TRAINING)
            y = student.training_pass(x[:, shape.before - student.receptive_field :])
            sums = _added(sums, criterion(y, criterion.reference(target)))
        return sums

    @property
    def own_step(self):  # type: ignore[override]
        """Several updates along a sequence, for a network that has no finite receptive field."""
        return self._own_step if self._recurrent else None

    def _own_step(self, context, batches, counts, progress):
        device = context.device
        shape, criterion, targets = self._prepared(device)
        heard_ones = [heard(batch, shape) for batch in batches]
        wanted = [
            torch.stack(
                [targets.of(teacher, n, x, batch, TRAINING) for n, (_, teacher) in enumerate(context.model.both())]
            )
            for x, batch in zip(heard_ones, batches, strict=True)
        ]
        window = max(self.settings.lstm.window, least_length(shape.rate))
        return recurrent.step(context, heard_ones, wanted, counts, criterion, shape, window)

    def validate(self, model, batch):
        shape, criterion, targets = self._prepared(batch["sound"].device)
        x, tones = heard(batch, shape), len(batch["tone"])
        sums: dict[str, Any] = {}

        def add(name: str, values: torch.Tensor) -> None:
            total, count = sums.get(name, (torch.zeros((), dtype=torch.float64, device=x.device), 0.0))
            sums[name] = (total + values.double().sum(), count + float(values.numel()))

        for number, (student, teacher) in enumerate(model.both()):
            target = targets.of(teacher, number, x, batch, VALIDATION)
            y = student.training_pass(x[:, max(0, shape.before - student.receptive_field) :])[:, -shape.length :]
            reference = criterion.reference(target)
            for name, loss in criterion(y, reference).items():
                sums[name] = (sums.get(name, (0.0,))[0] + loss.total, sums.get(name, (0, 0.0))[1] + float(len(y)))
            ratio = criterion.ear.ratio(
                *(criterion.ear.magnitudes(sound) for sound in (y, target)),
                criterion.ear.mask(criterion.ear.magnitudes(target)),
            )
            esr = measures.esr(y, target)
            if tones:
                decibel = decibels(ratio[:tones])
                add("nmr_power", ratio[:tones])
                add("excess_db", (decibel - AUDIBLE).clamp(min=0))
                add("inaudible", (decibel < AUDIBLE).float())
                add("hesr", measures.hesr(y[:tones], target[:tones], batch["tone"][:, 0].long()))
            if tones < len(x):
                add("di_nmr_db", decibels(ratio[tones:]))
                add("di_esr", esr[tones:])
        return sums

    def summarise(self, means):
        loss = self.settings.loss
        weights = {"esr": loss.esr, "nmr": loss.nmr, "dc": loss.dc}
        out = {"val_loss": sum(weight * means[name] for name, weight in weights.items())}
        worst = []
        if "nmr_power" in means:
            out |= {
                "val_nmr_mean_db": _db(means["nmr_power"]),
                "val_excess_db": means["excess_db"],
                "val_inaudible": means["inaudible"],
                "val_hesr_db": _db(means["hesr"]),
            }
            worst.append(out["val_hesr_db"])
        if "di_esr" in means:
            out |= {"val_di_nmr_db": means["di_nmr_db"], "val_di_esr_db": _db(means["di_esr"])}
            worst.append(out["val_di_esr_db"])
        return out | {"val_esr_db": max(worst)}

    def parameter_groups(self, model):
        return parameter_groups(model, self.settings)

    def saved(self, model):
        return [name for name in model.state_dict() if name.startswith("students.")]

    def weights(self, model):
        return {name: value for name, value in model.state_dict().items() if name.startswith("students.")}

    def room(self, model):
        weights = sum(parameter.numel() for parameter in model.students.parameters())
        return Room(exports=(64 << 20) + 200 * weights)  # golden files and sounds; a weight takes 20 characters

    # -- evaluation ------------------------------------------------------------------------------------------------

    def evaluate(self, context):
        from training.domains.amp.evaluation.judging import judge

        return judge(self, context)

    def samples(self, model, held_out, folder, seed):
        from training.domains.amp.exports.samples import write_samples

        return write_samples(model.teachers[-1], model.students[-1], held_out, folder)

    # -- export ----------------------------------------------------------------------------------------------------

    def graphs(self, model):
        return stream.graphs(list(model.rest().students))

    def artefacts(self, model):
        from training.domains.amp.evaluation.worse import checked

        found = checked(model)
        capture = model.original if found.worse else model.capture
        figures = {**found.figures, "student": self.settings.student.size} if self.nano else found.figures
        return leaving.artefacts(capture, list(model.students), list(model.teachers), figures, found.worse)


def _added(sums: Mapping[str, Loss], more: Mapping[str, Loss]) -> dict[str, Loss]:
    return {
        name: Loss(sums[name].total + loss.total, loss.coefficient) if name in sums else loss
        for name, loss in more.items()
    }


def _db(power: float) -> float:
    return 10 * math.log10(max(float(power), 1e-30))
