// draw_cloud [--emotion V,A,I] [--every SECONDS] [--exports DIR] [--threads N] SONG.wav OUT.npy
//
// OUT.npy: float32 [clouds, 1200, 10]: x, y, z, red, green, blue, alpha, size, glow, depth. Cloud i shows the window
// that begins at i * SECONDS.
#include <sndfile.h>

#include <athanor/npy.hpp>
#include <athanor/spectocloud.hpp>

#include "command.hpp"

namespace {

/// The mean of a file's channels. Throws std::runtime_error.
std::vector<float> sound_of(const std::string& path, int rate) {
  SF_INFO about{};
  SNDFILE* file = sf_open(path.c_str(), SFM_READ, &about);
  if (file == nullptr) throw std::runtime_error(path + ": " + sf_strerror(nullptr));
  std::vector<float> all(static_cast<std::size_t>(about.frames * about.channels));
  const sf_count_t read = sf_readf_float(file, all.data(), about.frames);
  sf_close(file);
  if (about.samplerate != rate)
    throw std::runtime_error(path + " has " + std::to_string(about.samplerate) + " samples a second; the model takes " +
                             std::to_string(rate) + ". Convert it first: ffmpeg -i " + path + " -ar " +
                             std::to_string(rate) + " OUT.wav");
  std::vector<float> mono(static_cast<std::size_t>(read), 0.0f);
  for (std::size_t at = 0; at < mono.size(); ++at)
    for (int channel = 0; channel < about.channels; ++channel)
      mono[at] += all[at * about.channels + channel] / static_cast<float>(about.channels);
  return mono;
}

int run(const command::Words& words) {
  athanor::Emotion emotion{};
  if (std::sscanf(words.option("--emotion", "0,0,.5").c_str(), "%f,%f,%f", &emotion[0], &emotion[1], &emotion[2]) != 3)
    throw command::Usage("--emotion needs valence, arousal and intensity, such as .7,.8,.6");
  athanor::Spectocloud model(words.option("--exports", "exports"), static_cast<int>(words.number("--threads", 2)));
  const std::vector<float> sound = sound_of(words.files[0], model.rate);
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
  athanor::Array::write(words.last, out, {clouds, particles, 10});
  std::printf("%s: %zu clouds of %zu particles; %s a cloud; %ld MiB of memory at most\n", words.last.c_str(), clouds,
              particles, command::times(times).c_str(), command::peak_mebibytes());
  return 0;
}

}  // namespace

int main(int count, char** words) {
  return command::main(count, words,
                       "draw_cloud [--emotion V,A,I] [--every SECONDS] [--exports DIR] [--threads N] SONG.wav OUT.npy",
                       {"--emotion", "--every", "--exports", "--threads"}, 2, run);
}
