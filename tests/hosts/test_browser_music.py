"""The page of `play music` in a browser: the exported models give there what they give in Python."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.hosts.pages import needs_runtime, opened, unnamed_controls
from tests.hosts.reference import piece
from tests.report.browser import CONTRAST, Browser, needs_browser
from training.domains.music.midi.reader import read_score
from training.domains.music.midi.tokens import decode
from training.domains.music.play import write_page
from training.export.golden import read_golden

pytestmark = [needs_browser, needs_runtime]
EMOTION = [0.7, 0.8, 0.6]


@pytest.fixture(scope="module")
def page(exports, tmp_path_factory):
    folder = write_page(exports, tmp_path_factory.mktemp("site") / "play")
    with opened(folder, tmp_path_factory.mktemp("profile")) as browser:
        yield browser


def call(page: Browser, function: str, about: dict) -> dict:
    return page.run(f"athanor.{function}({json.dumps(about)})")


def arrays(page: Browser, about: dict) -> dict[str, np.ndarray]:
    """The outputs of the cloud's worker for arrays of numbers."""
    given = ", ".join(f"{key}: Float32Array.from({json.dumps(np.ravel(a).tolist())})" for key, a in about.items())
    made = page.run(f"athanor.arrays({{{given}}}).then(o => Object.fromEntries("
                    "Object.entries(o).map(([k, v]) => [k, [...v]])))")  # fmt: skip
    return {key: np.array(values, np.float32) for key, values in made.items()}


def test_no_problem_is_shown_after_loading(page):
    assert page.run("document.getElementById('problem').textContent") == ""
    assert page.run("document.getElementById('play').disabled") is False
    assert "onnxruntime-web 1.30.0" in page.run("document.getElementById('runtime').textContent")


@pytest.mark.parametrize(("seed", "changes"), [(3, {}), (11, {"max_tokens": 200, "min_bars": 4, "guidance": 1.0})])
def test_tokens_equal_those_of_python_for_the_same_seed(page, exports, seed, changes):
    """200 tokens are more than the debug preset's context: the cache is rebuilt on the way."""
    made = call(page, "piece", {"seed": seed, "emotion": EMOTION, "settings": changes})
    assert made["ids"] == piece(exports, EMOTION, seed, **changes)


def test_the_file_of_a_piece_has_its_notes(page, exports, tmp_path):
    """Onset, pitch, velocity and program of each; a note ends where its pitch is struck again."""
    ids = piece(exports, EMOTION, 11, max_tokens=200, min_bars=4)
    (tmp_path / "a.mid").write_bytes(bytes(page.run(f"athanor.file({ids})")))
    got, want = read_score(tmp_path / "a.mid"), decode(np.array(ids))
    names = ["bar", "pitch", "velocity", "program", "drum"]
    order = [np.lexsort((notes["program"], notes["pitch"], notes["position"], notes["bar"]))
             for notes in (got.notes, want.notes)]  # fmt: skip
    assert len(got.notes) == len(want.notes) > 20
    for name in names:
        np.testing.assert_array_equal(got.notes[name][order[0]], want.notes[name][order[1]])
    np.testing.assert_allclose(got.notes["position"][order[0]], want.notes["position"][order[1]], atol=1e-9)
    np.testing.assert_allclose(got.bars[: len(want.bars)], want.bars, rtol=1e-5)


def assert_clouds_are_golden(page: Browser, exports: Path) -> None:
    """The page's cloud for the input of the golden file is the one in that file, within 1e-3."""
    inputs, outputs = read_golden(exports / "golden" / "spectocloud.npz").trials[0]
    found = arrays(page, {"spectrogram": inputs["spectrogram"][0], "emotion": inputs["emotion"][0],
                          "features": inputs["midi_features"][0]})  # fmt: skip
    assert set(found) == set(outputs)
    for name, want in outputs.items():
        np.testing.assert_allclose(found[name], want[0].ravel(), atol=1e-3)


def test_clouds_and_spectrograms_equal_the_golden_ones(page, exports):
    assert_clouds_are_golden(page, exports)
    inputs, outputs = read_golden(exports / "golden" / "spectocloud_frontend.npz").trials[0]
    found = arrays(page, {"waveform": inputs["waveform"][0]})
    np.testing.assert_allclose(found["spectrogram"], outputs["spectrogram"][0].ravel(), atol=1e-3)


def test_music_plays_without_a_late_note_and_the_file_has_what_was_played(page, tmp_path):
    page.run("document.getElementById('listen').click()")
    for _ in range(3):  # other tests may hold both cores for seconds: then any page is late
        page.run("document.getElementById('play').click()")
        page.run("new Promise(done => { const look = () => document.getElementById('play').textContent === 'Stop' && "
                 "athanor.state().now > 4 ? done(1) : setTimeout(look, 100); look(); })")  # fmt: skip
        page.run("document.getElementById('play').click()")  # stop: the list of notes stays
        state = page.run("athanor.state()")
        if state["late"] == 0:
            break
    assert state["late"] == 0 and state["notes"] > 4 and state["ahead"] > 0
    assert page.run("Number(document.getElementById('rate').textContent)") > 0
    page.run("document.getElementById('listen').click()")
    (tmp_path / "a.mid").write_bytes(bytes(state["file"]))
    score = read_score(tmp_path / "a.mid")
    assert len(score.notes) == state["notes"]


def test_a_device_that_writes_too_slowly_waits_at_a_bar_line_and_stays_in_time(page):
    """Bars of 2 s are written late, by a clock that this test moves: nothing of an incomplete bar is handed over."""
    made = page.run("""(async () => {
      const { Music } = await import('./music.js');
      const worker = Object.assign(new EventTarget(), { postMessage() {} }), music = new Music(worker, {}, () => {});
      const send = data => worker.dispatchEvent(new MessageEvent('message', { data }));
      const write = (onsets, written) => send({ notes: onsets.map(onset => ({ onset })), written, bars: [], token: 1 });
      const played = [], states = [];
      const look = () => states.push([music.now, music.pauses, played.length]);
      Object.assign(music, {
        context: { currentTime: 100, resume: async () => {} }, volume: { gain: {} },
        synth: { out: { connect: () => ({ connect() {} }) }, play: (note, when) => played.push([note.onset, when]) },
      });
      await music.start(1, 1);
      write([0, 1, 2, 3], 2); look();
      music.context.currentTime = 100.5; send({ tick: true }); look();
      music.context.currentTime = 109; send({ tick: true }); look();
      write([4, 5], 4); look();
      write([6, 7], 6); look();
      return { played, states, late: music.late };
    })()""")
    assert made["late"] == 0
    states = [[-0.3, 0, 1], [0.2, 0, 2], [2, 1, 2], [2, 1, 2], [1.7, 1, 3]]
    np.testing.assert_allclose(made["states"], states, atol=1e-9)
    np.testing.assert_allclose(made["played"], [[0, 100.3], [1, 101.3], [2, 109.3]], atol=1e-9)


def test_the_cloud_is_drawn_and_arrow_keys_turn_it(page):
    count = ("(() => { const c = document.getElementById('cloud'), g = c.getContext('webgl2'), "
             "p = new Uint8Array(4 * c.width * c.height); g.readPixels(0, 0, c.width, c.height, 6408, 5121, p); "
             "let s = 0, n = 0; for (let i = 0; i < p.length; i += 4) if (p[i] > 40) { s += i / 4 % c.width; n++; } "
             "return [n, s / n]; })()")  # fmt: skip
    page.frames()
    before = page.run(count)
    assert before[0] > 100
    page.run("document.getElementById('cloud').focus()")
    for _ in range(5):
        page.press("ArrowRight")
    assert page.run(count) != before


@pytest.mark.parametrize(("width", "dark"), [(400, True), (1400, False)])
def test_the_page_fits_the_screen_and_its_text_has_enough_contrast(page, width, dark):
    page.show(width=width, height=900, dark=dark)
    page.frames()
    assert page.run("document.documentElement.scrollWidth") <= width
    assert page.run(CONTRAST) == []


def test_every_control_has_a_name_for_screen_readers_and_the_pad_moves_the_sliders(page):
    page.show(width=1400, height=1000, dark=False)
    page.frames()
    assert unnamed_controls(page) == []
    x, y, width = page.run("(() => { const b = document.getElementById('pad').getBoundingClientRect(); "
                           "return [b.x, b.y, b.width]; })()")  # fmt: skip
    page.drag(x + width / 2, y + width / 2, width / 4, width / 4)
    assert page.run("[valence.value, arousal.value].map(Number)") == pytest.approx([0.5, -0.5], abs=0.06)
    page.run("document.getElementById('arousal').focus()")
    page.press("ArrowRight")
    assert page.run("Number(arousal.value)") == pytest.approx(-0.45, abs=0.06)
