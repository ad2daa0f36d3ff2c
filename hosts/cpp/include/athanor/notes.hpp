// Tokens to notes, one token at a time, and notes to the bytes of a standard MIDI file.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "grammar.hpp"
#include "json.hpp"

namespace athanor {

/// What the values of tokens mean: `decoding` in the metadata.
struct Decoding {
  int positions, velocity_scale, velocity_offset, drums, drum_channel, tempo_base, tempo_count, ticks_per_quarter,
      quarters;
  double slowest, ratio;
  std::vector<int> durations, programs;

  explicit Decoding(const Json& table)
      : positions(table["positions"].integer()),
        velocity_scale(table["velocity"]["scale"].integer()),
        velocity_offset(table["velocity"]["offset"].integer()),
        drums(table["drums"].integer()),
        drum_channel(table["drum_channel"].integer()),
        tempo_base(table["tempo"]["base"].integer()),
        tempo_count(table["tempo"]["count"].integer()),
        ticks_per_quarter(table["ticks_per_quarter"].integer()),
        quarters(table["quarters_per_bar"].integer()),
        slowest(table["tempo"]["slowest_seconds"].number()),
        ratio(table["tempo"]["ratio"].number()) {
    for (const Json& one : table["durations"].list()) durations.push_back(one.integer());
    for (const Json& one : table["programs"].list()) programs.push_back(one.integer());
  }
};

struct Note {
  int bar = 0, position = 0, length = 0;  // the latter two in parts of a bar
  int pitch = 0, velocity = 0, family = 0;
  bool drum = false;
  double onset = 0, seconds = 0;  // from the start of the piece; at the tempo of the bar in which it starts
};

class NoteReader {
 public:
  NoteReader(const Decoding& decoding, const Vocabulary& vocabulary)
      : decoding_(&decoding),
        vocabulary_(&vocabulary),
        bar_(vocabulary.kind_of("bar")),
        tempo_(vocabulary.kind_of("tempo")),
        position_(vocabulary.kind_of("position")),
        instrument_(vocabulary.kind_of("instrument")),
        note_(vocabulary.kind_of("note")),
        velocity_(vocabulary.kind_of("velocity")),
        duration_(vocabulary.kind_of("duration")) {}

  /// Reads the next id; true if it completes a note, which is then written to `out`.
  bool feed(int id, Note& out) {
    const int kind = vocabulary_->kind.at(id), value = vocabulary_->value[id];
    if (kind == bar_) {
      if (bars > 0) start += seconds;
      ++bars;
      now_.position = 0;
    } else if (kind == tempo_) {
      if (coarse_ < 0) {
        coarse_ = value;
      } else {
        seconds = decoding_->slowest * std::pow(decoding_->ratio, -(coarse_ * decoding_->tempo_base + value) /
                                                                      (decoding_->tempo_count - 1.0));
        coarse_ = -1;
      }
    } else if (kind == position_) {
      now_.position = value;
    } else if (kind == instrument_) {
      now_.family = value;
    } else if (kind == note_) {
      now_.pitch = value;
    } else if (kind == velocity_) {
      now_.velocity = value * decoding_->velocity_scale + decoding_->velocity_offset;
    } else if (kind == duration_) {
      const double part = seconds / decoding_->positions;
      out = now_;
      out.bar = bars - 1;
      out.length = decoding_->durations.at(value);
      out.drum = now_.family == decoding_->drums;
      out.onset = start + now_.position * part;
      out.seconds = out.length * part;
      return true;
    }
    return false;
  }

  int bars = 0;                   // that have begun
  double start = 0, seconds = 2;  // of the current bar

 private:
  const Decoding* decoding_;
  const Vocabulary* vocabulary_;
  int bar_, tempo_, position_, instrument_, note_, velocity_, duration_, coarse_ = -1;
  Note now_;
};

/// The bytes of a standard MIDI file (format 1), as training/domains/music/midi/writer.py writes it: a track for each
/// program, drums on their channel, and further tracks for notes that overlap an earlier one of the same pitch.
class MidiFile {
 public:
  /// `bars`: the seconds of each bar that a note starts in, and of those before it.
  MidiFile(const std::vector<Note>& notes, const std::vector<double>& bars, const Decoding& decoding)
      : decoding_(decoding) {
    const int per_bar = decoding.ticks_per_quarter * decoding.quarters;
    const double step = static_cast<double>(per_bar) / decoding.positions;
    std::vector<Placed> placed;
    for (const Note& note : notes) {
      const long start = std::lrint(note.bar * static_cast<double>(per_bar) + note.position * step);
      const long end = std::lrint(note.bar * static_cast<double>(per_bar) + (note.position + note.length) * step);
      placed.push_back({start, std::max(start + 1, end), note.pitch, note.velocity,
                        note.drum ? 0 : decoding.programs.at(note.family), note.drum});
    }
    std::stable_sort(placed.begin(), placed.end(), [](const Placed& a, const Placed& b) { return a.start < b.start; });
    std::map<Voice, std::vector<Placed>> voices;
    std::map<Voice, std::vector<long>> busy;  // drum, program, pitch -> when each voice of it ends
    for (const Placed& one : placed) {
      std::vector<long>& ends = busy[{one.drum, one.program, one.pitch}];
      std::size_t number = ends.size();
      for (std::size_t at = 0; at < ends.size(); ++at)
        if (ends[at] <= one.start && (number == ends.size() || ends[at] < ends[number])) number = at;
      if (number == ends.size()) ends.push_back(0);
      ends[number] = one.end;
      voices[{one.drum, one.program, static_cast<int>(number)}].push_back(one);
    }
    write(voices, bars, per_bar);
  }

  std::vector<std::uint8_t> bytes;

 private:
  struct Placed {
    long start, end;
    int pitch, velocity, program;
    bool drum;
  };
  using Voice = std::tuple<bool, int, int>;
  using Bytes = std::vector<std::uint8_t>;

  void write(const std::map<Voice, std::vector<Placed>>& voices, const std::vector<double>& bars, int per_bar) {
    const std::map<Voice, int> channels = channels_of(voices);
    std::map<int, std::map<int, bool>> programs;  // on each channel
    for (const auto& [voice, channel] : channels) programs[channel][std::get<1>(voice)] = true;
    text(bytes, "MThd");
    u32(bytes, 6);
    for (const int half : {1, static_cast<int>(voices.size()) + 1, decoding_.ticks_per_quarter}) u16(bytes, half);
    Bytes conductor{0, 0xff, 0x58, 4, 4, 2, 24, 8};
    long last = -1, waited = 0;
    for (const double seconds : bars) {
      const long tempo = std::clamp(std::lrint(seconds * (1e6 / decoding_.quarters)), 1l, (1l << 24) - 1);
      if (tempo != last) {
        varint(conductor, waited);
        for (const long byte : {0xffl, 0x51l, 3l, tempo >> 16 & 255, tempo >> 8 & 255, tempo & 255})
          conductor.push_back(static_cast<std::uint8_t>(byte));
        waited = 0;
      }
      last = tempo;
      waited += per_bar;
    }
    add(conductor);
    for (const auto& [voice, members] : voices) {
      const int channel = channels.at(voice);
      add(track(members, std::get<1>(voice), channel, programs[channel].size() > 1));
    }
  }

  std::map<Voice, int> channels_of(const std::map<Voice, std::vector<Placed>>& voices) const {
    std::vector<int> all, spare;
    for (int channel = 0; channel < 16; ++channel)
      if (channel != decoding_.drum_channel) all.push_back(channel);
    std::map<int, int> first;
    for (const auto& [voice, members] : voices)
      if (!std::get<0>(voice) && std::get<2>(voice) == 0) {
        const int at = static_cast<int>(first.size());
        first[std::get<1>(voice)] = all[at % all.size()];
      }
    if (first.size() < all.size()) spare.assign(all.begin() + static_cast<long>(first.size()), all.end());
    std::map<Voice, int> out;
    for (const auto& [voice, members] : voices) {
      if (std::get<0>(voice)) {
        out[voice] = decoding_.drum_channel;
      } else if (std::get<2>(voice) > 0 && !spare.empty()) {
        out[voice] = spare.front();
        spare.erase(spare.begin());
      } else {
        out[voice] = first.at(std::get<1>(voice));
      }
    }
    return out;
  }

  static Bytes track(const std::vector<Placed>& members, int program, int channel, bool shared) {
    struct Event {
      long tick;
      bool starts;
      int pitch, velocity;
    };
    std::vector<Event> events;
    for (const Placed& one : members) {
      events.push_back({one.start, true, one.pitch, one.velocity});
      events.push_back({one.end, false, one.pitch, 0});
    }
    std::stable_sort(events.begin(), events.end(), [](const Event& a, const Event& b) {
      return std::tie(a.tick, a.starts) < std::tie(b.tick, b.starts);
    });
    Bytes out;
    int status = -1;
    const auto message = [&](long wait, int kind, int first, int second) {
      varint(out, wait);
      if ((kind | channel) != status) out.push_back(static_cast<std::uint8_t>(status = kind | channel));
      out.push_back(static_cast<std::uint8_t>(first));
      if (second >= 0) out.push_back(static_cast<std::uint8_t>(second));
    };
    message(0, 0xc0, program, -1);
    long now = 0;
    for (const Event& event : events) {
      if (event.starts && shared) {
        message(event.tick - now, 0xc0, program, -1);
        now = event.tick;
      }
      message(event.tick - now, event.starts ? 0x90 : 0x80, event.pitch, event.velocity);
      now = event.tick;
    }
    return out;
  }

  void add(Bytes track) {
    for (const int byte : {0, 0xff, 0x2f, 0}) track.push_back(static_cast<std::uint8_t>(byte));
    text(bytes, "MTrk");
    u32(bytes, static_cast<std::uint32_t>(track.size()));
    bytes.insert(bytes.end(), track.begin(), track.end());
  }
  static void text(Bytes& out, const std::string& word) { out.insert(out.end(), word.begin(), word.end()); }
  static void u16(Bytes& out, int n) {
    out.push_back(static_cast<std::uint8_t>(n >> 8)), out.push_back(static_cast<std::uint8_t>(n));
  }
  static void u32(Bytes& out, std::uint32_t n) {
    u16(out, static_cast<int>(n >> 16)), u16(out, static_cast<int>(n & 0xffff));
  }
  static void varint(Bytes& out, long n) {
    Bytes digits{static_cast<std::uint8_t>(n & 127)};
    while ((n >>= 7) > 0) digits.push_back(static_cast<std::uint8_t>((n & 127) | 128));
    out.insert(out.end(), digits.rbegin(), digits.rend());
  }

  const Decoding& decoding_;
};

}  // namespace athanor
