"""The rules that exported files carry, read as an application reads them, are those of the grammar and the decoder."""

from __future__ import annotations

import json
import operator

import numpy as np
import pytest

from training.domains.music.midi import rules, tokens
from training.domains.music.midi.grammar import Grammar
from training.domains.music.midi_generator.graphs import vocabulary


class Reader:
    """A sequence's state, kept as the texts in a file's metadata say."""

    def __init__(self, table: str, words: str):
        self.rules, self.blocks = json.loads(table), json.loads(words)
        self.stage, self.registers = self.rules["start"], dict(self.rules["registers"])

    def kind_and_value(self, token: int) -> tuple[str, int]:
        return next((kind, token - first) for kind, (first, n) in self.blocks.items() if first <= token < first + n)

    def may(self, token: int) -> bool:
        kind, value = self.kind_and_value(token)
        if kind not in self.rules["stages"][self.stage]:
            return False
        return not any(
            stage in ("*", self.stage) and kind in kinds and self._holds(condition, value)
            for stage, kinds, condition in self.rules["forbidden"]
        )

    def _holds(self, condition: list, value: int) -> bool:
        name, register, *rest = condition
        now = self.registers[register]
        if name == "digits are":
            return self.registers[rest[0]] * rest[1] + value == now
        if name == "value is":
            return value == now
        compare = {"below": (now, rest[0]), "above": (rest[0], now), "value below": (value, now + rest[0])}[name]
        return operator.lt(*compare)

    def advance(self, token: int) -> None:
        kind, value = self.kind_and_value(token)
        self.stage = self.rules["stages"][self.stage][kind]
        for name, register, *rest in self.rules["entering"].get(self.stage, ()):
            if name == "set":
                self.registers[register] = rest[0]
            elif name == "add":
                self.registers[register] += rest[0]
            elif name == "value":
                self.registers[register] = value
            elif name == "digits":
                self.registers[register] = self.registers[rest[0]] * rest[1] + value
            elif name == "differs" and value != self.registers[register]:
                self.registers |= dict.fromkeys(rest[0], -1)


@pytest.mark.parametrize(("unisons", "empty_bars"), [(True, None), (False, 2)])
def test_the_rules_in_a_file_allow_the_same_ids_as_the_grammar(unisons, empty_bars):
    written = rules.metadata(unisons=unisons, empty_bars=empty_bars)
    seen = set()
    for seed in range(4):
        random = np.random.default_rng(seed)
        grammar, reader = Grammar(1, unisons=unisons, empty_bars=empty_bars), None
        reader = Reader(written["grammar_rules"], vocabulary())
        for step in range(250):
            mask = grammar.mask()[0]
            np.testing.assert_array_equal([reader.may(token) for token in range(tokens.VOCABULARY)], mask)
            seen.add(reader.stage)
            weights = mask * random.random(tokens.VOCABULARY)
            weights[tokens.BAR] *= 3  # also several empty bars in a row
            weights[tokens.EOS] *= 5 * (step > 200)
            token = int(weights.argmax())
            grammar.advance(np.array([token]))
            reader.advance(token)
    assert seen == set(json.loads(written["grammar_rules"])["stages"])


def test_the_decoders_table_gives_the_notes_that_decode_gives():
    table = rules.decoding()
    ids = [tokens.BOS, tokens.BAR, tokens.TEMPO + 7, tokens.TEMPO + 3, tokens.POSITION + 32, tokens.INSTRUMENT + 2,
           60, tokens.VELOCITY + 9, tokens.DURATION + 40, tokens.EOS]  # fmt: skip
    score = tokens.decode(np.array(ids))
    note, tempo = score.notes[0], table["tempo"]
    assert score.bars[0] == pytest.approx(
        tempo["slowest_seconds"] * tempo["ratio"] ** (-(7 * tempo["base"] + 3) / (tempo["count"] - 1)), rel=1e-12
    )
    assert note["velocity"] == 9 * table["velocity"]["scale"] + table["velocity"]["offset"]
    assert note["length"] == table["durations"][40] / table["positions"]
    assert note["program"] == table["programs"][2]
