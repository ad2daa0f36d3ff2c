// Sound files, by libsndfile.
#pragma once

#include <sndfile.h>

#include <stdexcept>
#include <string>
#include <vector>

namespace sound {

/// The first `channels` channels of a file, averaged (0: all). Throws std::runtime_error, also for another rate than
/// `rate`.
inline std::vector<float> mono(const std::string& path, int rate, int channels = 0) {
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
  if (channels == 0 || channels > about.channels) channels = about.channels;
  std::vector<float> out(static_cast<std::size_t>(read), 0.0f);
  for (std::size_t at = 0; at < out.size(); ++at)
    for (int channel = 0; channel < channels; ++channel)
      out[at] += all[at * static_cast<std::size_t>(about.channels) + static_cast<std::size_t>(channel)] /
                 static_cast<float>(channels);
  return out;
}

/// Write one channel as a .wav file of 32-bit floats. Throws std::runtime_error.
inline void write(const std::string& path, const std::vector<float>& samples, int rate) {
  SF_INFO about{};
  about.samplerate = rate, about.channels = 1, about.format = SF_FORMAT_WAV | SF_FORMAT_FLOAT;
  SNDFILE* file = sf_open(path.c_str(), SFM_WRITE, &about);
  if (file == nullptr) throw std::runtime_error(path + ": " + sf_strerror(nullptr));
  const sf_count_t written = sf_writef_float(file, samples.data(), static_cast<sf_count_t>(samples.size()));
  if (sf_close(file) != 0 || written != static_cast<sf_count_t>(samples.size()))
    throw std::runtime_error(path + " cannot be written");
}

}  // namespace sound
