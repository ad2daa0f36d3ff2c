// Spectocloud: draws a cloud of particles from the last 1.5 s of sound, with spectocloud_frontend.onnx and
// spectocloud.onnx.
//
//     athanor::LiveSpectocloud clouds("exports");      // not on the audio thread: loads, allocates
//     clouds.feed(samples, count);                     // audio thread: mono, at clouds.rate() samples a second
//     if (const athanor::Cloud* cloud = clouds.get())  // drawing thread: the newest, null if there is none since
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "midi_generator.hpp"
#include "ring.hpp"
#include "session.hpp"

namespace athanor {

struct Cloud {
  std::vector<float> positions, colors, properties;  // [particles, 3], [particles, 4], [particles, 3]
};

/// Clouds of given windows. It allocates, and is not for an audio thread.
class Spectocloud {
 public:
  static constexpr int kEmotion = 64, kFeatures = 32;

  /// `folder`: the exports. Throws Ort::Exception or std::runtime_error.
  explicit Spectocloud(const std::string& folder, int threads = 2)
      : frontend_(folder + "/spectocloud_frontend.onnx", threads),
        core_(folder + "/spectocloud.onnx", threads),
        rate(std::stoi(frontend_.about("sample_rate"))),
        hop(std::stoi(frontend_.about("hop"))),
        samples(static_cast<std::size_t>(frontend_.shapes.at(0).at(1))) {}

  /// `sound`: `samples` samples, mono; the window begins `hop` samples after the first.
  void draw(std::vector<float>& sound, const Emotion& emotion, Cloud& cloud) {
    std::vector<Ort::Value> given;
    given.push_back(tensor(sound, {1, static_cast<std::int64_t>(samples)}));
    std::vector<Ort::Value> spectrogram = frontend_.run(given);
    std::copy(emotion.begin(), emotion.end(), emotion_.begin());
    std::vector<Ort::Value> inputs;
    for (const std::string& name : core_.inputs) {
      if (name == "spectrogram") inputs.push_back(std::move(spectrogram[0]));
      else if (name == "emotion") inputs.push_back(tensor(emotion_, {1, kEmotion}));
      else inputs.push_back(tensor(features_, {1, kFeatures}));
    }
    const std::vector<Ort::Value> made = core_.run(inputs);
    take(made[core_.output("positions")], cloud.positions);
    take(made[core_.output("colors")], cloud.colors);
    take(made[core_.output("properties")], cloud.properties);
  }

 private:
  static void take(const Ort::Value& value, std::vector<float>& out) {
    const float* data = value.GetTensorData<float>();
    out.assign(data, data + value.GetTensorTypeAndShapeInfo().GetElementCount());
  }

  Session frontend_, core_;
  std::vector<float> emotion_ = std::vector<float>(kEmotion),
                     features_ = std::vector<float>(kFeatures);  // zeros: no score

 public:
  const int rate, hop;
  const std::size_t samples;
};

/// Clouds of what is being heard, drawn on a thread of this class.
class LiveSpectocloud {
 public:
  /// Throws as Spectocloud.
  explicit LiveSpectocloud(const std::string& folder, int threads = 2)
      : model_(folder, threads), heard_(1 << 17), thread_([this] { draw(); }) {}
  ~LiveSpectocloud() {
    ended_.store(true);
    thread_.join();
  }
  LiveSpectocloud(const LiveSpectocloud&) = delete;
  LiveSpectocloud& operator=(const LiveSpectocloud&) = delete;

  int rate() const noexcept { return model_.rate; }

  // These three neither allocate, lock nor throw.

  /// What is heard, on the audio thread. Samples for which there is no room are left out and counted.
  void feed(const float* samples, std::size_t count) noexcept {
    for (std::size_t at = 0; at < count; ++at)
      if (!heard_.push(samples[at])) lost_.fetch_add(1, std::memory_order_relaxed);
  }
  void feel(float valence, float arousal, float intensity) noexcept {
    valence_.store(valence, std::memory_order_relaxed);
    arousal_.store(arousal, std::memory_order_relaxed);
    intensity_.store(intensity, std::memory_order_relaxed);
  }
  /// The newest cloud, on one drawing thread; null if there is none since the last call. Valid until the next call.
  const Cloud* get() noexcept { return clouds_.take(); }
  std::size_t lost() const noexcept { return lost_.load(std::memory_order_relaxed); }

  /// Why drawing has ended; empty while it has not. Not for the audio thread.
  std::string failure() const { return failed_.load(std::memory_order_acquire) ? failure_ : std::string(); }

 private:
  void draw() {
    try {
      std::vector<float> window(model_.samples, 0.0f), fresh;
      float sample = 0;
      while (!ended_.load(std::memory_order_relaxed)) {
        fresh.clear();
        while (fresh.size() < window.size() && heard_.pop(sample)) fresh.push_back(sample);
        if (fresh.empty()) {
          std::this_thread::sleep_for(std::chrono::milliseconds(2));
          continue;
        }
        std::move(window.begin() + static_cast<long>(fresh.size()), window.end(), window.begin());
        std::copy(fresh.begin(), fresh.end(), window.end() - static_cast<long>(fresh.size()));
        model_.draw(window,
                    {valence_.load(std::memory_order_relaxed), arousal_.load(std::memory_order_relaxed),
                     intensity_.load(std::memory_order_relaxed)},
                    clouds_.next());
        clouds_.publish();
      }
    } catch (const std::exception& error) {
      failure_ = error.what();
      failed_.store(true, std::memory_order_release);
    }
  }

  Spectocloud model_;
  Ring<float> heard_;
  Newest<Cloud> clouds_;
  std::atomic<float> valence_{0}, arousal_{0}, intensity_{0.5f};
  std::atomic<std::size_t> lost_{0};
  std::atomic<bool> ended_{false}, failed_{false};
  std::string failure_;
  std::thread thread_;  // the last member: it uses the others
};

}  // namespace athanor
