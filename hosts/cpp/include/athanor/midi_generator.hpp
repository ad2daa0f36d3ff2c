// The MIDI generator: writes music token by token with midi_generator_step.onnx.
//
//     athanor::LiveGenerator music("exports/midi_generator_step.onnx", seed);  // not on the audio thread: it loads
//     music.feed(valence, arousal, intensity);                                 // audio thread: the emotion from now on
//     music.heard(seconds);            // audio thread: how far the piece has sounded
//     while (music.get(note)) { ... }  // audio thread: notes, in order
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <string>
#include <thread>
#include <vector>

#include "grammar.hpp"
#include "json.hpp"
#include "notes.hpp"
#include "ring.hpp"
#include "sampling.hpp"
#include "session.hpp"

namespace athanor {

using Emotion = std::array<float, 3>;  // valence and arousal in [-1, 1], intensity in [0, 1]

/// One piece, token by token. It allocates, and is not for an audio thread.
class Generator {
 public:
  /// Throws Ort::Exception or std::runtime_error for a file that is not a step graph with its tables.
  explicit Generator(const std::string& path, int threads = 2)
      : session_(path, threads),
        size_(std::stoi(session_.about("vocabulary_size"))),
        vocabulary(Json::parse(session_.about("vocabulary")), size_),
        decoding(Json::parse(session_.about("decoding"))),
        context_(std::stoi(session_.about("context"))),
        grammar_(Json::parse(session_.about("grammar_rules")), vocabulary),
        allowed_(size_),
        logits_(size_) {
    const Json settings = Json::parse(session_.about("generation"));
    sampling_ = {settings["temperature"].number(), settings["top_p"].number(), settings["top_k"].integer()};
    guidance = settings["guidance"].number();
    max_tokens = settings["max_tokens"].integer();
    min_bars = settings["min_bars"].integer();
    closing_ = settings["closing"]["tokens"].integer();
    for (const Json& kind : settings["closing"]["direct"].list()) direct_.push_back(vocabulary.block(kind.text()));
    for (std::size_t at = 0; at < session_.inputs.size(); ++at)
      if (session_.inputs[at].rfind("past_", 0) == 0) states_.push_back(at);
    restart();
  }

  /// Begin a new piece.
  void restart() {
    grammar_.restart();
    written.clear();
    count_ = bars_ = 0;
    read(vocabulary.first("bos"));
    forget(written);
  }

  bool finished() const { return grammar_.finished(); }

  /// The next id. `uniform`: a number in [0, 1); `endless`: never end the piece, else as the settings in the file say;
  /// `ending`: keep to what leads to the end.
  int next(const Emotion& emotion, double uniform, bool endless = false, bool ending = false) {
    if (cached_ + fresh_.size() > static_cast<std::size_t>(context_)) {
      const std::size_t kept = std::min<std::size_t>(written.size(), std::max(1, context_ / 2));
      forget({written.end() - static_cast<long>(kept), written.end()});
    }
    step(emotion);
    grammar_.mask(allowed_);
    const int eos = vocabulary.first("eos");
    if (ending || (!endless && count_ >= max_tokens - closing_)) towards_the_end();
    else if (endless || bars_ < min_bars) allowed_[eos] = 0;
    const int id = draw(logits_, allowed_, uniform, sampling_);
    read(id);
    fresh_.assign(1, id);
    return id;
  }

 private:
  Session session_;
  int size_;

 public:
  const Vocabulary vocabulary;
  const Decoding decoding;
  std::vector<int> written;  // of a long piece, the last ids only
  double guidance;
  int max_tokens, min_bars;

 private:
  static constexpr int kEmotion = 64;

  void read(int id) {
    grammar_.advance(id);
    written.push_back(id);
    ++count_;
    if (id == vocabulary.first("bar")) ++bars_;
    if (written.size() > 4u * context_) written.erase(written.begin(), written.begin() + 2 * context_);
  }

  void forget(std::vector<int> fresh) {
    fresh_ = std::move(fresh);
    cached_ = 0;
    past_.clear();
  }

  /// Run the graph on the new ids; `logits_` are those after the last one.
  void step(const Emotion& emotion) {
    const bool guided = guidance != 1;
    const std::int64_t batch = guided ? 2 : 1, count = static_cast<std::int64_t>(fresh_.size());
    ids_.clear();
    for (std::int64_t row = 0; row < batch; ++row) ids_.insert(ids_.end(), fresh_.begin(), fresh_.end());
    emotion_.assign(static_cast<std::size_t>(batch * kEmotion), 0.0f);  // the second row stays zero: no emotion
    std::copy(emotion.begin(), emotion.end(), emotion_.begin());
    std::vector<Ort::Value> given;
    given.reserve(session_.inputs.size());
    std::size_t state = 0;
    for (std::size_t at = 0; at < session_.inputs.size(); ++at) {
      if (session_.inputs[at] == "input_ids") given.push_back(tensor(ids_, {batch, count}));
      else if (session_.inputs[at] == "emotion") given.push_back(tensor(emotion_, {batch, kEmotion}));
      else if (!past_.empty()) given.push_back(std::move(past_[state++]));
      else given.push_back(tensor(nothing_, {batch, session_.shapes[at][1], 0, session_.shapes[at][3]}));
    }
    std::vector<Ort::Value> results = session_.run(given);
    const std::size_t logits = session_.output("logits");
    const float* all = results[logits].GetTensorData<float>();
    const float* conditional = all + (count - 1) * size_;
    const float* plain = all + (2 * count - 1) * size_;
    for (int id = 0; id < size_; ++id)
      logits_[id] =
          guided ? plain[id] + guidance * (static_cast<double>(conditional[id]) - plain[id]) : conditional[id];
    past_.clear();
    for (const std::size_t at : states_)
      past_.push_back(std::move(results[session_.output("present_" + session_.inputs[at].substr(5))]));
    cached_ += static_cast<std::size_t>(count);
  }

  void towards_the_end() {
    for (const Vocabulary::Block& block : direct_) {
      const auto first = allowed_.begin() + block.first, last = first + block.count;
      if (std::find(first, last, 1) == last) continue;
      std::fill(allowed_.begin(), first, 0);
      std::fill(last, allowed_.end(), 0);
      return;
    }
  }

  int context_, closing_, count_ = 0, bars_ = 0;
  Grammar grammar_;
  Sampling sampling_;
  std::vector<Vocabulary::Block> direct_;
  std::vector<std::size_t> states_;
  std::vector<std::uint8_t> allowed_;
  std::vector<double> logits_;
  std::vector<int> fresh_;
  std::vector<std::int64_t> ids_;
  std::vector<float> emotion_, nothing_;
  std::vector<Ort::Value> past_;
  std::size_t cached_ = 0;
};

/// Endless music that follows the emotion, written on a thread of this class, ahead of the sound.
class LiveGenerator {
 public:
  /// `ahead`: seconds that are written before they sound. Throws as Generator.
  LiveGenerator(const std::string& path, std::uint64_t seed, double ahead = 4, int threads = 2)
      : generator_(path, threads), uniform_(seed), ahead_(ahead), notes_(4096), thread_([this] { write(); }) {}
  ~LiveGenerator() {
    ended_.store(true);
    thread_.join();
  }
  LiveGenerator(const LiveGenerator&) = delete;
  LiveGenerator& operator=(const LiveGenerator&) = delete;

  // These four neither allocate, lock nor throw: they are for the audio thread.

  /// The emotion of what is written from now on.
  void feed(float valence, float arousal, float intensity) noexcept {
    valence_.store(valence, std::memory_order_relaxed);
    arousal_.store(arousal, std::memory_order_relaxed);
    intensity_.store(intensity, std::memory_order_relaxed);
  }
  /// How many seconds of the piece have sounded.
  void heard(double seconds) noexcept { heard_.store(seconds, std::memory_order_relaxed); }
  /// The next note; false if none is written yet.
  bool get(Note& note) noexcept { return notes_.pop(note); }
  /// Seconds of the piece that are complete.
  double written() const noexcept { return written_.load(std::memory_order_relaxed); }

  /// Why writing has ended; empty while it has not. Not for the audio thread.
  std::string failure() const { return failed_.load(std::memory_order_acquire) ? failure_ : std::string(); }

 private:
  void write() {
    try {
      NoteReader reader(generator_.decoding, generator_.vocabulary);
      Note note;
      for (const int id : generator_.written) reader.feed(id, note);
      while (!ended_.load(std::memory_order_relaxed)) {
        if (reader.start > heard_.load(std::memory_order_relaxed) + ahead_) {
          std::this_thread::sleep_for(std::chrono::milliseconds(5));
          continue;
        }
        const Emotion emotion{valence_.load(std::memory_order_relaxed), arousal_.load(std::memory_order_relaxed),
                              intensity_.load(std::memory_order_relaxed)};
        if (reader.feed(generator_.next(emotion, uniform_.next(), true), note))
          while (!notes_.push(note) && !ended_.load(std::memory_order_relaxed))
            std::this_thread::sleep_for(std::chrono::milliseconds(5));
        written_.store(reader.start, std::memory_order_relaxed);
      }
    } catch (const std::exception& error) {
      failure_ = error.what();
      failed_.store(true, std::memory_order_release);
    }
  }

  Generator generator_;
  Uniform uniform_;
  double ahead_;
  Ring<Note> notes_;
  std::atomic<float> valence_{0}, arousal_{0}, intensity_{0.5f};
  std::atomic<double> heard_{0}, written_{0};
  std::atomic<bool> ended_{false}, failed_{false};
  std::string failure_;
  std::thread thread_;  // the last member: it uses the others
};

}  // namespace athanor
