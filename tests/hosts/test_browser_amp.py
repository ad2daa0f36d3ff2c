"""The page of `play amp` in a browser: the networks give there what torch gives, and play through an AudioWorklet."""

from __future__ import annotations

import json
import types

import numpy as np
import pytest
import torch

from tests.domains.amp import small
from tests.hosts.pages import needs_runtime, opened, unnamed_controls
from tests.report.browser import CONTRAST, needs_browser
from training.domains.amp.captures import parse_capture
from training.domains.amp.play import write_page, write_stream
from training.domains.amp.plucks import playing
from training.domains.amp.student.pair import Pair
from training.export.receipt import merge_family

pytestmark = [needs_browser, needs_runtime]


@pytest.fixture(scope="module")
def pairs() -> dict[str, Pair]:
    """Two captures, a WaveNet and an LSTM, each with a network whose weights were changed."""
    pairs = {name: Pair(parse_capture(made(), name)) for name, made in (("wave", small.wavenet), ("lstm", small.lstm))}
    with torch.no_grad():
        for pair in pairs.values():
            for parameter in pair.students[-1].parameters():
                parameter.mul_(1.05)
            pair.rest()
    return pairs


@pytest.fixture(scope="module")
def page(pairs, tmp_path_factory):
    exports = tmp_path_factory.mktemp("exports")
    for name, pair in pairs.items():
        (exports / name).mkdir()
        write_stream(pair.students[-1], exports / name / "amp_stream.onnx")
        merge_family(exports, f"amp/{name}", {"synthetic": True, "files": {}, "graphs": {}})

    def load(run: str) -> types.SimpleNamespace:
        return types.SimpleNamespace(model=pairs[run.removeprefix("amp/")])

    with opened(write_page(exports, load), tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.mark.parametrize("name", ["wave", "lstm"])
@pytest.mark.parametrize("side", ["teacher", "student"])
def test_blocks_sound_as_in_torch(page, pairs, name, side):
    page.run(f"capture.value = '{name}', capture.dispatchEvent(new Event('change'))")
    sound = playing(0.05, small.RATE, 3)
    blocks = [part.tolist() for part in np.split(sound, [512, 640, 641, 1500])]
    made = page.run(f"athanor.sound({json.dumps({'side': side, 'blocks': blocks})})")
    with torch.no_grad():
        network = getattr(pairs[name], f"{side}s")[-1]
        want = network.play(torch.from_numpy(sound)[None])[0].numpy()
    np.testing.assert_allclose(made, want, atol=1e-4 * np.abs(want).max())


def test_it_plays_through_the_audio_thread_and_sides_can_be_changed(page):
    page.run("play.click()")
    page.run("new Promise(done => { const look = () => /%/.test(load.textContent) ? done(1) : setTimeout(look, 90); "
             "look(); })")  # fmt: skip
    page.run("document.querySelector('input[value=student]').click()")
    assert page.run("a.disabled") is False
    page.run("a.click()")
    assert page.run("[a.ariaPressed, b.ariaPressed, document.querySelector('input[name=side]:checked')]") == [
        "true", "false", None,
    ]  # fmt: skip
    page.run("play.click()")
    assert page.run("[play.textContent, a.disabled, problem.textContent]") == ["Play", True, ""]


def test_samples_that_come_too_late_are_left_out_and_the_latency_stays(page):
    """Blocks of 128 samples that count up from 1; for a time of three blocks, no answers come."""
    heard = page.run("""(async () => {
      globalThis.AudioWorkletProcessor = class { port = { postMessage() {} }; };
      globalThis.registerProcessor = (name, made) => { globalThis.Amp = made; };
      await import('./amp_worklet.js');
      const amp = new Amp({ processorOptions: { block: 128, ahead: 2 } }), waiting = [], heard = [];
      amp.port.onmessage({ data: { port: { postMessage: block => waiting.push(block) } } });
      for (let turn = 0, n = 0; turn < 20; turn++) {
        const guitar = Float32Array.from({ length: 128 }, () => ++n), out = new Float32Array(128);
        amp.process([[guitar]], [[out]]);
        heard.push(...out);
        if (turn < 8 || turn > 10) while (waiting.length) amp.worker.onmessage({ data: waiting.shift() });
      }
      return heard;
    })()""")
    played = np.array(heard)
    late = played == 0
    latency = int(late.argmin())
    assert latency in (256, 257)
    hole = slice(latency + 1, None)
    assert 0 < late[hole].sum() <= 3 * 128
    np.testing.assert_array_equal(played[hole][~late[hole]], (np.arange(len(played))[hole] + 1 - latency)[~late[hole]])


def test_blind_answers_are_counted_and_the_order_changes(page):
    answer = "const side = athanor.blind.side('a'); athanor.blind.answer('a'); return side;"
    sides = page.run(f"[...Array(64)].map(() => {{ {answer} }})")
    assert 10 < sides.count("student") < 54
    assert page.run("athanor.blind.right") == sides.count("student")
    page.run("athanor.blind.restart()")
    texts = page.run("[...Array(5)].map(() => athanor.blind.answer(athanor.blind.side('a') === 'student' ? 'a' : 'b'))")
    assert texts[-1].startswith("Right. 5 of 5") and "3 %" in texts[-1]  # 1 in 32


@pytest.mark.parametrize(("width", "dark"), [(400, True), (1400, False)])
def test_the_page_fits_the_screen_and_its_controls_have_names(page, width, dark):
    page.show(width=width, height=900, dark=dark)
    page.frames()
    assert page.run("document.documentElement.scrollWidth") <= width
    assert page.run(CONTRAST) == [] and unnamed_controls(page) == []
