// audio_thread EXPORTS CAPTURE: plays all models as a plugin would. The audio thread allocates, frees and throws nothing,
// and locks nothing: its allocations are counted, and pthread's locks called on it. A capture played live gives the
// same samples as its stream, at the latency that it has. Meant to be built with -DSANITIZE=thread as well.
#include <dlfcn.h>
#include <pthread.h>

#include <athanor/amp.hpp>
#include <athanor/midi_generator.hpp>
#include <athanor/spectocloud.hpp>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <thread>

namespace {
thread_local bool counting = false;
std::atomic<long> allocations{0}, locks{0};
}  // namespace

#if !defined(__SANITIZE_THREAD__)  // which has its own allocator and locks
static void count() {
  if (counting) allocations.fetch_add(1, std::memory_order_relaxed);
}
// Not inlined: the compiler would take them for a pair that does not match.
[[gnu::noinline]] void* operator new(std::size_t size) {
  count();
  if (void* out = std::malloc(size ? size : 1)) return out;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* data) noexcept {
  count();
  std::free(data);
}
[[gnu::noinline]] void operator delete(void* data, std::size_t) noexcept {
  count();
  std::free(data);
}
extern "C" int pthread_mutex_lock(pthread_mutex_t* mutex) {
  using Lock = int (*)(pthread_mutex_t*);
  static std::atomic<Lock> real{nullptr};
  if (counting) locks.fetch_add(1, std::memory_order_relaxed);
  Lock call = real.load(std::memory_order_relaxed);
  if (call == nullptr) real.store(call = reinterpret_cast<Lock>(dlsym(RTLD_NEXT, "pthread_mutex_lock")));
  return call(mutex);
}
#endif

/// How many samples of a capture played live, in blocks of odd lengths, differ from those of its stream.
static long differing(const std::string& folder) {
  constexpr std::size_t kCount = 20000, kLatency = 700;
  std::vector<float> guitar(kCount), want(kCount), sound(kCount);
  for (std::size_t at = 0; at < kCount; ++at) guitar[at] = 0.2f * static_cast<float>(std::sin(0.05 * static_cast<double>(at)));
  athanor::AmpStream(folder).play(guitar.data(), want.data(), kCount);
  athanor::LiveAmp amp(folder, kLatency);
  std::size_t block = 1;
  for (std::size_t at = 0; at < kCount; at += block) {
    block = std::min<std::size_t>(1 + (block * 31 + 7) % kLatency, kCount - at);
    amp.feed(&guitar[at], block);
    while (amp.ready() < block && amp.failure().empty()) std::this_thread::yield();
    amp.get(&sound[at], block);
  }
  long wrong = amp.late() != 0;
  float loudest = 0;
  for (const float sample : want) loudest = std::max(loudest, std::abs(sample));
  for (std::size_t at = 0; at < kCount; ++at)
    wrong += !(std::abs(sound[at] - (at < kLatency ? 0 : want[at - kLatency])) <= 1e-4f * loudest);

  // Samples that were not ready in time are left out when they come: the latency stays what it is.
  athanor::LiveAmp hurried(folder, 64);
  for (std::size_t at = 0; at < 2000; at += 500) hurried.feed(&guitar[at], 500), hurried.get(&sound[at], 500);
  hurried.feed(&guitar[2000], 500);
  while (hurried.ready() < 500 && hurried.failure().empty()) std::this_thread::yield();
  hurried.get(&sound[2000], 500);
  for (std::size_t at = 2000; at < 2500; ++at) wrong += !(std::abs(sound[at] - want[at - 64]) <= 1e-4f * loudest);
  return wrong;
}

int main(int count_of, char** words) {
  if (count_of != 3) return std::fprintf(stderr, "usage: audio_thread EXPORTS CAPTURE\n"), 2;
  const std::string folder = words[1];
  const long wrong = differing(words[2]);
  athanor::LiveAmp amp(words[2]);
  athanor::LiveGenerator music(folder + "/midi_generator_step.onnx", 7);
  athanor::LiveSpectocloud clouds(folder);
  std::atomic<bool> playing{true};
  std::atomic<long> seen{0};
  std::thread drawing([&] {
    while (playing.load()) {
      if (clouds.get() != nullptr) seen.fetch_add(1);
      std::this_thread::sleep_for(std::chrono::milliseconds(4));
    }
  });

  constexpr int kBlock = 512;
  std::vector<float> block(kBlock), played(kBlock);
  long notes = 0, late = 0, samples = 0;
  double phase = 0;
  std::thread audio([&] {
    athanor::Note note;
    for (int at = 0; at < 100 || seen.load() < 3 || notes < 20; ++at) {  // as fast as a busy host allows
      counting = true;
      const float turn = static_cast<float>(std::sin(at * 0.01));
      music.feed(turn, -turn, 0.5f);
      clouds.feel(turn, -turn, 0.5f);
      const double now = static_cast<double>(samples) / clouds.rate();
      music.heard(now);
      while (music.get(note)) {
        ++notes;
        late += note.onset < now - 1;
      }
      for (float& sample : block) sample = 0.3f * static_cast<float>(std::sin(phase += 0.06));
      clouds.feed(block.data(), block.size());
      amp.feed(block.data(), block.size());
      amp.get(played.data(), played.size());
      samples += kBlock;
      counting = false;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
      if (!music.failure().empty() || !clouds.failure().empty() || !amp.failure().empty()) break;
    }
  });
  audio.join();
  playing.store(false);
  drawing.join();
  const std::string failure = music.failure() + clouds.failure() + amp.failure();
  std::printf("%ld notes, %ld clouds, %ld wrong samples; on the audio thread: %ld allocations, %ld locks%s\n", notes,
              seen.load(), wrong, allocations.load(), locks.load(), failure.empty() ? "" : (" FAILED: " + failure).c_str());
  return failure.empty() && wrong == 0 && notes > 0 && seen.load() > 0 && allocations.load() == 0 && locks.load() == 0 ? 0 : 1;
}
