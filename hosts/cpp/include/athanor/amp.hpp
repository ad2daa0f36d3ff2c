// The capture of an amplifier: amp_stream.onnx, for blocks of any length.
//
//     athanor::LiveAmp amp("exports/lead");   // not on the audio thread: loads, allocates
//     amp.feed(guitar, count);                // audio thread: mono, amp.rate() samples a second
//     amp.get(sound, count);                  // audio thread: what was fed amp.latency() samples before
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "npy.hpp"
#include "ring.hpp"
#include "session.hpp"

namespace athanor {

/// The network, with its state carried from block to block. It allocates, and is not for an audio thread.
class AmpStream {
 public:
  /// `folder`: the exports of one capture. Its golden file has the state at rest, after silence. Throws Ort::Exception
  /// or std::runtime_error.
  explicit AmpStream(const std::string& folder, int threads = 1)
      : session_(folder + "/amp_stream.onnx", threads), rate(std::stoi(session_.about("sample_rate"))) {
    const auto golden = read_npz(folder + "/golden/amp_stream.npz");
    for (std::size_t at = 0; at < session_.inputs.size(); ++at) {
      const std::string& name = session_.inputs[at];
      if (name.rfind("state_", 0) != 0) continue;
      const auto found = golden.find("steps/start/" + name);
      if (found == golden.end() || found->second.type != "f4")
        throw std::runtime_error(folder + "/golden/amp_stream.npz has no start of `" + name + "`: export it again");
      std::vector<float> start(found->second.size());
      std::memcpy(start.data(), found->second.data.data(), 4 * start.size());
      start_.push_back(std::move(start));
      states_.push_back({at, session_.output("next_" + name.substr(6))});
    }
    sound_ = session_.output("sound");
    rest();
  }

  /// Begin again, after silence.
  void rest() {
    state_.clear();
    for (std::size_t at = 0; at < states_.size(); ++at)
      state_.push_back(tensor(start_[at], session_.shapes[states_[at].first]));
  }

  /// `count` samples in, as many out; `guitar` and `sound` may be the same.
  void play(const float* guitar, float* sound, std::size_t count) {
    for (std::size_t done = 0; done < count;) {
      const std::size_t now = std::min(count - done, kLongest);
      block_.assign(guitar + done, guitar + done + now);
      std::vector<Ort::Value> given;
      std::size_t state = 0;
      for (std::size_t at = 0; at < session_.inputs.size(); ++at)
        if (state < states_.size() && states_[state].first == at) given.push_back(std::move(state_[state++]));
        else given.push_back(tensor(block_, {1, static_cast<std::int64_t>(now)}));
      std::vector<Ort::Value> made = session_.run(given);
      std::copy_n(made[sound_].GetTensorData<float>(), now, sound + done);
      for (std::size_t at = 0; at < states_.size(); ++at) state_[at] = std::move(made[states_[at].second]);
      done += now;
    }
  }

 private:
  static constexpr std::size_t kLongest = 65536;  // of a block, which the exported file takes

  Session session_;
  std::vector<std::pair<std::size_t, std::size_t>> states_;  // input, output
  std::vector<std::vector<float>> start_;
  std::vector<Ort::Value> state_;
  std::vector<float> block_;
  std::size_t sound_ = 0;

 public:
  const int rate;
};

/// A capture played live: the network runs on a thread of this class.
class LiveAmp {
 public:
  /// `latency`: samples between `feed` and `get`: the largest block of the audio thread, and what is fed while such a
  /// block is computed. Throws as AmpStream.
  explicit LiveAmp(const std::string& folder, std::size_t latency = 1024)
      : stream_(folder), latency_(latency), fed_(kRoom), made_(kRoom + latency), thread_([this] { play(); }) {}
  ~LiveAmp() {
    ended_.store(true);
    thread_.join();
  }
  LiveAmp(const LiveAmp&) = delete;
  LiveAmp& operator=(const LiveAmp&) = delete;

  int rate() const noexcept { return stream_.rate; }
  std::size_t latency() const noexcept { return latency_; }

  // These four neither allocate, lock nor throw; all four are for the same thread.

  /// The guitar. Blocks may have any length.
  void feed(const float* guitar, std::size_t count) noexcept {
    for (std::size_t at = 0; at < count; ++at)
      if (!fed_.push(guitar[at])) --owed_;  // the network has stood still for more than a second
  }
  /// The sound, silence first. Samples that are not ready in time are silent and counted; they are left out when they
  /// come, so the latency stays what it is.
  void get(float* sound, std::size_t count) noexcept {
    for (std::size_t at = 0; at < count; ++at) {
      if (silent_ < latency_) {
        ++silent_;
        sound[at] = 0;
        continue;
      }
      while (owed_ > 0 && made_.pop(sound[at])) --owed_;
      if (owed_ <= 0 && made_.pop(sound[at])) continue;
      sound[at] = 0;
      ++owed_;
      ++late_;
    }
  }
  /// How many samples `get` can give at once. A host that renders faster than it plays waits for them.
  std::size_t ready() const noexcept {
    const std::size_t made = made_.size(), left_out = owed_ > 0 ? static_cast<std::size_t>(owed_) : 0;
    return latency_ - silent_ + (made > left_out ? made - left_out : 0);
  }
  /// How many samples were not ready in time.
  std::size_t late() const noexcept { return late_; }

  /// Why playing has ended; empty while it has not. Not for the audio thread.
  std::string failure() const { return failed_.load(std::memory_order_acquire) ? failure_ : std::string(); }

 private:
  static constexpr std::size_t kRoom = 1 << 16, kBlock = 2048;

  void play() {
    try {
      std::vector<float> block;
      float sample = 0;
      while (!ended_.load(std::memory_order_relaxed)) {
        block.clear();
        while (block.size() < kBlock && fed_.pop(sample)) block.push_back(sample);
        if (block.empty()) {
          std::this_thread::sleep_for(std::chrono::microseconds(250));
          continue;
        }
        stream_.play(block.data(), block.data(), block.size());
        for (const float one : block)
          while (!made_.push(one) && !ended_.load(std::memory_order_relaxed))
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
    } catch (const std::exception& error) {
      failure_ = error.what();
      failed_.store(true, std::memory_order_release);
    }
  }

  AmpStream stream_;
  std::size_t latency_, silent_ = 0, late_ = 0;
  long owed_ = 0;  // samples that were late, less those that were never computed
  Ring<float> fed_, made_;
  std::atomic<bool> ended_{false}, failed_{false};
  std::string failure_;
  std::thread thread_;  // the last member: it uses the others
};

}  // namespace athanor
