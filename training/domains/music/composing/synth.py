"""A small synthesiser: notes in seconds -> mono sound at 44,100 Hz. Every General MIDI family has its own timbre.

A tone is a sum of harmonics in two layers, a dark and a bright one; velocity sets the loudness and the share of the
bright layer, and an envelope shapes attack, decay and release. Layers are made once for each pitch of a piece, so that
a note costs two multiplications per sample. The output is not normalised by its peak: a soft piece stays softer than a
loud one. A soft limiter above -4 dB prevents clipping.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

SAMPLE_RATE = 44100
LOUDEST = 0.27  # amplitude of a drum at velocity 127; a tone of gain 1 has about a third of it as RMS
PREVIEW = 60.0  # seconds
_TAIL = 0.6  # seconds after the last note's end


@dataclass(frozen=True)
class Timbre:
    """Harmonic n has amplitude n^-slope (odd ones only, if `odd`) and, if `decay` > 0, decays with time constant
    `decay / (1 + damping (n - 1))` seconds."""

    slope: float  # dark layer; the bright layer's slope is `bright`
    bright: float
    harmonics: int = 10  # more on low notes
    attack: float = 0.005  # seconds
    release: float = 0.06
    decay: float = 0.0  # seconds; 0: sustained
    damping: float = 0.0
    odd: bool = False
    vibrato: float = 0.0  # cents
    tremble: float = 0.0  # depth of a 7 Hz tremolo
    chorus: float = 0.0  # cents between two detuned copies
    stretch: float = 1.0  # of the second and higher partials: > 1 for bells and bars
    drive: float = 0.0  # tanh distortion
    gain: float = 1.0


#: The sixteen General MIDI families, eight programs each.
FAMILIES = (
    Timbre(1.7, 0.9, 10, 0.003, 0.12, decay=1.4, damping=0.35),  # piano
    Timbre(2.6, 1.4, 6, 0.002, 0.25, decay=0.7, damping=0.8, stretch=1.38, gain=0.9),  # chromatic percussion
    Timbre(1.2, 0.6, 8, 0.012, 0.05, chorus=4, gain=0.62),  # organ
    Timbre(1.4, 0.8, 10, 0.003, 0.08, decay=0.9, damping=0.5),  # guitar
    Timbre(1.7, 1.0, 8, 0.006, 0.06, decay=1.1, damping=0.4, gain=1.25),  # bass
    Timbre(1.5, 0.9, 12, 0.06, 0.12, vibrato=12, gain=0.75),  # solo strings
    Timbre(1.5, 0.9, 10, 0.12, 0.25, chorus=14, gain=0.7),  # ensemble: strings, choir
    Timbre(1.2, 0.45, 12, 0.025, 0.07, vibrato=5, gain=0.72),  # brass
    Timbre(1.3, 0.6, 11, 0.03, 0.07, odd=True, vibrato=8, gain=0.85),  # reed
    Timbre(2.8, 1.7, 6, 0.035, 0.08, vibrato=14, gain=0.95),  # pipe
    Timbre(1.0, 0.4, 14, 0.005, 0.05, odd=True, gain=0.6),  # synth lead
    Timbre(1.9, 1.2, 8, 0.25, 0.4, chorus=20, gain=0.7),  # synth pad
    Timbre(1.8, 1.0, 9, 0.15, 0.4, chorus=30, tremble=0.3, stretch=1.03, gain=0.7),  # synth effects
    Timbre(1.3, 0.7, 10, 0.002, 0.08, decay=0.5, damping=0.5),  # plucked folk instruments
    Timbre(2.2, 1.2, 6, 0.001, 0.1, decay=0.4, damping=0.9, stretch=1.21),  # tuned percussion
    Timbre(1.0, 0.5, 12, 0.05, 0.2, tremble=0.5, gain=0.6),  # sound effects
)
#: Programs that differ much from their family.
_OWN = {
    29: Timbre(1.1, 0.6, 10, 0.004, 0.05, decay=3.0, damping=0.05, drive=2.5, gain=0.55),  # overdriven guitar
    30: Timbre(1.0, 0.5, 12, 0.004, 0.05, decay=5.0, damping=0.02, drive=5.0, gain=0.5),  # distortion guitar
    44: Timbre(1.5, 0.9, 10, 0.05, 0.15, chorus=10, tremble=0.6, gain=0.75),  # tremolo strings
    45: Timbre(1.7, 1.0, 9, 0.003, 0.08, decay=0.25, damping=0.6),  # pizzicato
    46: Timbre(1.9, 1.1, 8, 0.003, 0.2, decay=1.2, damping=0.5),  # harp
}


def timbre(program: int) -> Timbre:
    """The timbre of a General MIDI program (0..127)."""
    return _OWN.get(program, FAMILIES[program // 8])


def render(notes: np.ndarray, seed: int = 0) -> np.ndarray:
    """Notes (NOTE array, seconds) -> float32 mono in (-1, 1) at SAMPLE_RATE. No notes: half a second of silence.

    `seed` draws the noise of drums and room; the same notes and seed give the same samples.
    """
    end = float((notes["onset"] + notes["duration"]).max()) if len(notes) else 0.0
    wave = np.zeros(int((end + _TAIL) * SAMPLE_RATE), np.float32)
    rng = np.random.default_rng(seed)
    pitched = notes[~notes["drum"]]
    for key in np.unique(np.stack([pitched["program"], pitched["pitch"]], 1), axis=0) if len(pitched) else ():
        program, pitch = (int(k) for k in key)
        chosen = pitched[(pitched["program"] == program) & (pitched["pitch"] == pitch)]
        _add_tones(wave, timbre(program), pitch, chosen)
    drums = notes[notes["drum"]]
    for key in np.unique(drums["pitch"]):
        _add_hits(wave, int(key), drums[drums["pitch"] == key], rng)
    return _limit(_room(wave, rng))


def write_wav(path: Path, wave: np.ndarray) -> None:
    """Mono 16-bit PCM at SAMPLE_RATE."""
    soundfile.write(path, wave, SAMPLE_RATE, subtype="PCM_16", format="WAV")


def write_preview(path: Path, wave: np.ndarray, seconds: float = PREVIEW) -> None:
    """The first `seconds` of a sound at SAMPLE_RATE as an MP3 that every browser plays: mono, half the rate, 8 kB/s."""
    from scipy.signal import resample_poly  # slow to import, and rarely needed

    wave = wave[: int(seconds * SAMPLE_RATE)].copy()
    if len(wave) == int(seconds * SAMPLE_RATE):  # truncated: fade out
        fade = min(len(wave), SAMPLE_RATE)
        wave[-fade:] *= np.linspace(1, 0, fade, dtype=np.float32)
    half = resample_poly(wave, 1, 2).astype(np.float32)
    soundfile.write(path, half, SAMPLE_RATE // 2, format="MP3", subtype="MPEG_LAYER_III")


def read_preview(path: Path, seconds: float) -> bytes:
    """The first `seconds` of a sound file, as a WAV of 16-bit PCM."""
    with soundfile.SoundFile(path) as sound:
        rate = sound.samplerate
        wave = sound.read(int(seconds * rate), dtype="float32")
    out = io.BytesIO()
    soundfile.write(out, wave, rate, subtype="PCM_16", format="WAV")
    return out.getvalue()


def loudness(velocity: np.ndarray | int) -> np.ndarray:
    """Amplitude of a MIDI velocity, 1 at 127: (v / 127)^1.5, 27 dB between velocities 16 and 127. (The recommended
    General MIDI curve, squared, takes a pianissimo below what a phone's microphone hears.)"""
    return (np.asarray(velocity, np.float32) / np.float32(127)) ** np.float32(1.5)


def _add_tones(wave: np.ndarray, voice: Timbre, pitch: int, notes: np.ndarray) -> None:
    release = int(voice.release * SAMPLE_RATE)
    lengths = np.maximum(1, np.round(notes["duration"] * SAMPLE_RATE)).astype(int)
    dark, bright = _layers(voice, pitch, int(lengths.max()) + release)
    attack = max(32, int(voice.attack * SAMPLE_RATE))
    rise = (0.5 - 0.5 * np.cos(np.linspace(0, np.pi, attack, dtype=np.float32))).astype(np.float32)
    fall = np.square(np.linspace(1, 0, release, dtype=np.float32))
    for start, length, velocity in zip(
        np.round(notes["onset"] * SAMPLE_RATE).astype(int), lengths, notes["velocity"], strict=True
    ):
        count = min(length + release, len(wave) - start)
        share = np.float32(velocity / 127)
        tone = dark[:count] * (np.float32(1.15) - share) + bright[:count] * share
        tone *= np.float32(LOUDEST * voice.gain) * loudness(int(velocity))
        up = min(attack, count)
        tone[:up] *= rise[:up]
        tone[length:] *= fall[: count - length]
        wave[start : start + count] += tone


def _layers(voice: Timbre, pitch: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """The dark and the bright layer of a pitch, each with RMS 0.35 in its first tenth of a second, the loudest."""
    frequency = 440.0 * 2 ** ((pitch - 69) / 12)
    time = np.arange(length, dtype=np.float32) / np.float32(SAMPLE_RATE)
    count = max(voice.harmonics, min(28, int(4000 / frequency)))  # low notes need more harmonics to be audible
    numbers = [n for n in range(1, count * (1 + voice.odd) + 1) if n % 2 or not voice.odd]
    dark, bright = np.zeros(length, np.float32), np.zeros(length, np.float32)
    copies = (-voice.chorus / 2, voice.chorus / 2) if voice.chorus else (0.0,)
    for cents in copies:
        base = frequency * 2 ** (cents / 1200)
        swinging = _vibrato(base, length, voice.vibrato) if voice.vibrato else None
        power = np.ones(length, np.complex64)
        for n in range(1, numbers[-1] + 1):
            partial = base * n * (1.0 if n == 1 else voice.stretch ** np.log2(n))
            if partial > 16000:
                break
            if swinging is not None:
                power *= swinging
            if n not in numbers:
                continue
            wave = _sine(partial, length) if swinging is None else power.imag.copy()
            if voice.decay:
                wave *= np.exp(-time * np.float32((1 + voice.damping * (n - 1)) / voice.decay))
            dark += wave * np.float32(n**-voice.slope * 0.55 ** (n - 1))
            bright += wave * np.float32(n**-voice.bright)
    out = []
    for layer in (dark, bright):
        head = layer[: SAMPLE_RATE // 10]
        layer *= np.float32(0.35 / max(1e-6, float(np.sqrt(np.mean(np.square(head))))))
        if voice.drive:
            layer = np.tanh(layer * np.float32(voice.drive)) * np.float32(0.6)
        if voice.tremble:
            layer *= np.float32(1) - np.float32(voice.tremble) * np.square(np.sin(np.float32(np.pi * 7) * time))
        out.append(layer)
    return out[0], out[1]


def _sine(frequency: float, length: int) -> np.ndarray:
    """sin(2 pi f t), by sin(a + b) = sin a cos b + cos a sin b over blocks: two multiplications a sample, no drift."""
    block = 1024
    turn = 2j * np.pi * frequency / SAMPLE_RATE
    inner = np.exp(turn * np.arange(block)).astype(np.complex64)
    outer = np.exp(turn * block * np.arange(-(-length // block))).astype(np.complex64)
    return (outer.real[:, None] * inner.imag + outer.imag[:, None] * inner.real).ravel()[:length]


def _vibrato(frequency: float, length: int, cents: float) -> np.ndarray:
    """exp(2 pi i f t) with a vibrato of 5.5 Hz that comes in over half a second; its n-th power is harmonic n."""
    time = np.arange(length) / SAMPLE_RATE
    depth = frequency * (2 ** (cents / 1200) - 1) / (2 * np.pi * 5.5)
    phase = (frequency * time) % 1.0 + depth * np.minimum(time * 2, 1) * np.sin(2 * np.pi * 5.5 * time)
    return np.exp((2j * np.pi * phase).astype(np.complex64))


# -- drums ---------------------------------------------------------------------------------------------------------

#: key -> (Hz at the strike, Hz later, seconds of ring, share of noise, seconds of noise, noise above Hz, gain)
_DRUMS = {
    35: (130, 48, 0.16, 0.05, 0.01, 200, 1.5),
    36: (150, 50, 0.15, 0.08, 0.01, 200, 1.5),
    37: (1700, 1700, 0.02, 0.5, 0.02, 1500, 0.6),
    38: (220, 180, 0.08, 0.75, 0.11, 900, 1.0),
    39: (1000, 1000, 0.01, 1.0, 0.08, 1000, 0.9),
    42: (8000, 8000, 0.01, 1.0, 0.03, 7000, 0.5),
    46: (8000, 8000, 0.02, 1.0, 0.2, 6500, 0.5),
    49: (5000, 5000, 0.1, 1.0, 0.7, 3500, 0.7),
    51: (3900, 3900, 0.06, 0.85, 0.25, 5000, 0.4),
    54: (7000, 7000, 0.02, 1.0, 0.07, 5500, 0.5),
    76: (1100, 1100, 0.04, 0.1, 0.005, 2000, 0.8),
    77: (780, 780, 0.05, 0.1, 0.005, 1500, 0.8),
}


def _add_hits(wave: np.ndarray, key: int, notes: np.ndarray, rng: np.random.Generator) -> None:
    """Every hit of one drum: a falling sine and a burst of high-passed noise. Other keys sound as toms."""
    tom = 70 * 2 ** ((key - 41) / 14)
    high, low, ring, share, burst, above, gain = _DRUMS.get(key, (tom * 1.5, tom, 0.2, 0.12, 0.02, 300, 1.1))
    length = int(5 * max(ring, burst) * SAMPLE_RATE)
    time = np.arange(length, dtype=np.float32) / SAMPLE_RATE
    glide = low * time + (high - low) * 0.02 * (1 - np.exp(-time / 0.02))
    hit = (1 - share) * np.sin(2 * np.pi * glide) * np.exp(-time / ring)
    hit += share * _noise(length, above, rng) * np.exp(-time / burst)
    hit[:24] *= np.linspace(0, 1, 24)
    hit[-256:] *= np.linspace(1, 0, 256)
    hit = (hit * LOUDEST * gain).astype(np.float32)
    for start, velocity in zip(np.round(notes["onset"] * SAMPLE_RATE).astype(int), notes["velocity"], strict=True):
        count = min(length, len(wave) - start)
        wave[start : start + count] += hit[:count] * loudness(int(velocity))


def _noise(length: int, above: float, rng: np.random.Generator) -> np.ndarray:
    """Noise with nothing below `above` Hz, RMS 0.6."""
    spectrum = np.fft.rfft(rng.standard_normal(length).astype(np.float32))
    frequencies = np.fft.rfftfreq(length, 1 / SAMPLE_RATE)
    noise = np.fft.irfft(spectrum * np.clip(frequencies / above - 0.5, 0, 1), length)
    return (0.6 * noise / np.sqrt(np.mean(np.square(noise)))).astype(np.float32)


# -- room and output -----------------------------------------------------------------------------------------------


def _room(wave: np.ndarray, rng: np.random.Generator, wet: float = 0.16, seconds: float = 0.45) -> np.ndarray:
    """The wave plus its echo in a small room: convolution with decaying noise, block by block (overlap-add)."""
    block = 1 << 16
    length = int(seconds * SAMPLE_RATE)
    tail = rng.standard_normal(length) * np.exp(-np.arange(length) / (0.2 * length))
    tail[: int(0.008 * SAMPLE_RATE)] = 0  # the first reflection arrives after 8 ms
    tail = (wet * tail / np.sqrt(np.sum(np.square(tail)))).astype(np.float32)
    size = 1 << (block + length - 1).bit_length()
    spectrum = np.fft.rfft(tail, size)
    out = np.zeros(len(wave) + size, np.float32)
    out[: len(wave)] = wave
    step = size - length + 1
    for start in range(0, len(wave), step):
        piece = np.fft.irfft(np.fft.rfft(wave[start : start + step], size) * spectrum, size)
        out[start : start + size] += piece.astype(np.float32)
    return out[: len(wave)]


def _limit(wave: np.ndarray, knee: float = 0.63) -> np.ndarray:
    """Identity up to the knee; beyond it, a smooth curve that stays below 1."""
    over = np.abs(wave) > knee
    bent = wave[over]
    room = np.float32(0.99 - knee)
    wave[over] = np.sign(bent) * (np.float32(knee) + room * np.tanh((np.abs(bent) - np.float32(knee)) / room))
    return wave
