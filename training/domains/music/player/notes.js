// Tokens to notes, one token at a time, and notes to a standard MIDI file.

/** Reads ids in order; `feed` returns a note when its last id has come. */
export class NoteReader {
  /** `decoding`, `vocabulary`: the parsed texts of the file's metadata. */
  constructor(decoding, vocabulary) {
    this.table = decoding;
    this.blocks = Object.entries(vocabulary).map(([kind, [first, count]]) => ({ kind, first, count }));
    this.bars = []; // seconds of each
    this.start = 0; // of the bar, in seconds
    this.seconds = 2;
    this.now = { position: 0, instrument: 0, note: 0, velocity: 0 };
    this.coarse = -1;
  }

  /**
   * `{bar, position, length, pitch, velocity, family, drum, onset, seconds}` for the id that completes a note, else
   * null. `position` and `length` are in parts of a bar (decoding.positions of them), `onset` and `seconds` in seconds.
   */
  feed(id) {
    const { kind, first } = this.blocks.find(block => id >= block.first && id < block.first + block.count);
    const value = id - first, table = this.table;
    if (kind === "bar") {
      if (this.bars.length) this.start += this.seconds;
      this.bars.push(this.seconds);
      this.now.position = 0;
    } else if (kind === "tempo") {
      if (this.coarse < 0) this.coarse = value;
      else {
        const { base, count, slowest_seconds, ratio } = table.tempo;
        this.seconds = slowest_seconds * ratio ** (-(this.coarse * base + value) / (count - 1));
        this.bars[this.bars.length - 1] = this.seconds;
        this.coarse = -1;
      }
    } else if (kind === "duration") {
      const { position, instrument, note, velocity } = this.now;
      const length = table.durations[value], part = this.seconds / table.positions;
      return {
        bar: this.bars.length - 1, position, length, pitch: note, family: instrument,
        velocity: velocity * table.velocity.scale + table.velocity.offset, drum: instrument === table.drums,
        onset: this.start + position * part, seconds: length * part,
      };
    } else if (kind in this.now) this.now[kind] = value;
    return null;
  }
}

/** The bytes of a standard MIDI file (format 1): one track a program, drums on channel 10, a tempo for each bar. */
export function midiFile(notes, bars, decoding) {
  const quarter = decoding.ticks_per_quarter, perBar = quarter * decoding.quarters_per_bar;
  const tracks = [conductor(bars, decoding)];
  const programs = new Map();
  for (const note of notes) {
    const key = note.drum ? -1 : decoding.programs[note.family];
    if (!programs.has(key)) programs.set(key, []);
    programs.get(key).push(note);
  }
  let channel = 0;
  for (const [program, members] of [...programs].sort((a, b) => a[0] - b[0])) {
    if (program >= 0 && channel === decoding.drum_channel) channel++;
    const own = program < 0 ? decoding.drum_channel : Math.min(channel++, 15);
    tracks.push(track(members, Math.max(program, 0), own, perBar / decoding.positions, perBar));
  }
  const body = tracks.flatMap(events => [...text("MTrk"), ...u32(events.length), ...events]);
  return Uint8Array.from([...text("MThd"), ...u32(6), 0, 1, ...u16(tracks.length), ...u16(quarter), ...body]);
}

function conductor(bars, decoding) {
  const perBar = decoding.ticks_per_quarter * decoding.quarters_per_bar;
  const out = [0, 0xff, 0x58, 4, 4, 2, 24, 8];
  let last = -1, waited = 0;
  for (const seconds of bars) {
    const tempo = Math.round(seconds * 1e6 / decoding.quarters_per_bar);
    if (tempo !== last) {
      out.push(...varint(waited), 0xff, 0x51, 3, tempo >> 16 & 255, tempo >> 8 & 255, tempo & 255);
      waited = 0;
    }
    last = tempo;
    waited += perBar;
  }
  return [...out, 0, 0xff, 0x2f, 0];
}

/** Note-offs come before note-ons of the same tick; a pitch that is struck again ends first. */
function track(notes, program, channel, step, perBar) {
  const placed = notes.map(note => {
    const start = note.bar * perBar + Math.round(note.position * step);
    return { note, start, end: Math.max(start + 1, start + Math.round(note.length * step)) };
  }).sort((a, b) => a.start - b.start);
  const sounding = new Map();
  for (const one of placed) {
    const before = sounding.get(one.note.pitch);
    if (before && before.end > one.start) before.end = Math.max(before.start + 1, one.start);
    sounding.set(one.note.pitch, one);
  }
  const events = placed.flatMap(({ note, start, end }) => [
    [start, 1, [0x90 | channel, note.pitch, note.velocity]], [end, 0, [0x80 | channel, note.pitch, 0]],
  ]).sort((a, b) => a[0] - b[0] || a[1] - b[1]);
  const out = [0, 0xc0 | channel, program];
  let now = 0;
  for (const [tick, , bytes] of events) {
    out.push(...varint(tick - now), ...bytes);
    now = tick;
  }
  return [...out, 0, 0xff, 0x2f, 0];
}

const text = word => [...word].map(letter => letter.charCodeAt(0));
const u16 = n => [n >> 8 & 255, n & 255];
const u32 = n => [n >>> 24, n >> 16 & 255, ...u16(n)];

function varint(n) {
  const out = [n & 127];
  while ((n >>= 7) > 0) out.unshift(n & 127 | 128);
  return out;
}
