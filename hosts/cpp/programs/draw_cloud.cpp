// draw_cloud [--emotion V,A,I] [--every SECONDS] [--exports DIR] [--threads N] SONG.wav OUT.npy
//
// OUT.npy: float32 [clouds, 1200, 10]: x, y, z, red, green, blue, alpha, size, glow, depth. Cloud i shows the window
// that begins at i * SECONDS.
#include <athanor/npy.hpp>
#include <athanor/spectocloud.hpp>

#include "command.hpp"
#include "sound.hpp"

namespace {

int run(const command::Words& words) {
  athanor::Emotion emotion{};
  if (std::sscanf(words.option("--emotion", "0,0,.5").c_str(), "%f,%f,%f", &emotion[0], &emotion[1], &emotion[2]) != 3)
    throw command::Usage("--emotion needs valence, arousal and intensity, such as .7,.8,.6");
  athanor::Spectocloud model(words.option("--exports", "exports"), static_cast<int>(words.number("--threads", 2)));
  const std::vector<float> sound = sound::mono(words.files[0], model.rate);
  const std::size_t every = static_cast<std::size_t>(words.number("--every", 0.25) * model.rate),
                    window = model.samples - 2 * model.hop;
  if (every == 0) throw command::Usage("--every needs more than 0 seconds");
  if (sound.size() < window)
    throw std::runtime_error(words.files[0] + " is shorter than one window of " +
                             std::to_string(static_cast<double>(window) / model.rate) + " s");
  std::vector<float> heard(model.samples), out;
  std::vector<double> times;
  athanor::Cloud cloud;
  std::size_t clouds = 0, particles = 0;
  const double before = command::processor_milliseconds();
  for (std::size_t begin = 0; begin + window <= sound.size(); begin += every, ++clouds) {
    for (std::size_t at = 0; at < heard.size(); ++at) {
      const long from = static_cast<long>(begin + at) - model.hop;  // zeros outside of the sound
      heard[at] = from >= 0 && from < static_cast<long>(sound.size()) ? sound[static_cast<std::size_t>(from)] : 0.0f;
    }
    const command::Clock clock;
    model.draw(heard, emotion, cloud);
    times.push_back(clock.milliseconds());
    particles = cloud.positions.size() / 3;
    for (std::size_t one = 0; one < particles; ++one) {
      out.insert(out.end(), &cloud.positions[3 * one], &cloud.positions[3 * one] + 3);
      out.insert(out.end(), &cloud.colors[4 * one], &cloud.colors[4 * one] + 4);
      out.insert(out.end(), &cloud.properties[3 * one], &cloud.properties[3 * one] + 3);
    }
  }
  const double processor = (command::processor_milliseconds() - before) / static_cast<double>(clouds);
  athanor::Array::write(words.last, out, {clouds, particles, 10});
  std::printf("%s: %zu clouds of %zu particles; %s a cloud, %.2f ms of processor time; %ld MiB of memory at most\n",
              words.last.c_str(), clouds, particles, command::times(times).c_str(), processor, command::peak_mebibytes());
  return 0;
}

}  // namespace

int main(int count, char** words) {
  return command::main(count, words,
                       "draw_cloud [--emotion V,A,I] [--every SECONDS] [--exports DIR] [--threads N] SONG.wav OUT.npy",
                       {"--emotion", "--every", "--exports", "--threads"}, 2, run);
}
