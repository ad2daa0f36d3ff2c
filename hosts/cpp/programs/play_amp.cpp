// play_amp [--block N] [--threads N] CAPTURE DI.wav OUT.wav
//
// CAPTURE: the exports of one capture, such as exports/lead. DI.wav: a dry guitar, of which the left channel is played.
#include <athanor/amp.hpp>
#include <cstdio>

#include "command.hpp"
#include "sound.hpp"

namespace {

int run(const command::Words& words) {
  const auto block = static_cast<std::size_t>(words.number("--block", 512));
  if (block == 0) throw command::Usage("--block needs 1 sample or more");
  athanor::AmpStream amp(words.files[0], static_cast<int>(words.number("--threads", 1)));
  std::vector<float> sound = sound::mono(words.files[1], amp.rate, 1);
  std::vector<double> times;
  for (std::size_t at = 0; at < sound.size(); at += block) {
    const command::Clock clock;
    amp.play(&sound[at], &sound[at], std::min(block, sound.size() - at));
    times.push_back(clock.milliseconds());
  }
  sound::write(words.last, sound, amp.rate);
  std::printf("%s: %zu samples; %s a block of %zu (%.2f ms of sound); %ld MiB of memory at most\n", words.last.c_str(),
              sound.size(), command::times(times).c_str(), block, 1e3 * static_cast<double>(block) / amp.rate,
              command::peak_mebibytes());
  return 0;
}

}  // namespace

int main(int count, char** words) {
  return command::main(count, words, "play_amp [--block N] [--threads N] CAPTURE DI.wav OUT.wav",
                       {"--block", "--threads"}, 3, run);
}
