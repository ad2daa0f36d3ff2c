// play_midi [--emotion V,A,I] [--seconds N] [--seed N] [--exports DIR] [--model FILE] [--threads N] [--tokens FILE]
//           OUT.mid
#include <athanor/midi_generator.hpp>
#include <cstdio>
#include <fstream>

#include "command.hpp"

namespace {

athanor::Emotion emotion_of(const std::string& text) {
  athanor::Emotion out{};
  int used = 0;
  if (std::sscanf(text.c_str(), "%f,%f,%f%n", &out[0], &out[1], &out[2], &used) != 3 ||
      used != static_cast<int>(text.size()) || out[0] < -1 || out[0] > 1 || out[1] < -1 || out[1] > 1 || out[2] < 0 ||
      out[2] > 1)
    throw command::Usage(
        "--emotion needs valence and arousal from -1 to 1 and intensity from 0 to 1, such as .7,.8,.6; not " + text);
  return out;
}

int run(const command::Words& words) {
  const athanor::Emotion emotion = emotion_of(words.option("--emotion", "0,0,.5"));
  const double seconds = words.number("--seconds", 0);
  const std::string step = words.option("--exports", "exports") + "/midi_generator_step.onnx";
  athanor::Generator generator(words.option("--model", step), static_cast<int>(words.number("--threads", 2)));
  athanor::Uniform uniform(static_cast<std::uint64_t>(words.number("--seed", 1)));
  athanor::NoteReader reader(generator.decoding, generator.vocabulary);
  std::vector<athanor::Note> notes;
  std::vector<double> bars, times;
  std::vector<int> tokens = generator.written;
  athanor::Note note;
  for (const int id : tokens) reader.feed(id, note);
  const double before = command::processor_milliseconds();
  while (!generator.finished()) {
    const bool ending = seconds > 0 && reader.start >= seconds;
    const command::Clock clock;
    const int id = generator.next(emotion, uniform.next(), seconds > 0 && !ending, ending);
    times.push_back(clock.milliseconds());
    tokens.push_back(id);
    if (reader.feed(id, note)) notes.push_back(note);
    if (reader.bars > 0) bars.resize(static_cast<std::size_t>(reader.bars), 0), bars.back() = reader.seconds;
  }
  const double processor = (command::processor_milliseconds() - before) / static_cast<double>(times.size());
  if (!notes.empty()) bars.resize(static_cast<std::size_t>(notes.back().bar) + 1);
  const athanor::MidiFile midi(notes, bars, generator.decoding);
  std::ofstream file(words.last, std::ios::binary);
  file.write(reinterpret_cast<const char*>(midi.bytes.data()), static_cast<long>(midi.bytes.size()));
  if (!file.flush()) throw std::runtime_error(words.last + " cannot be written");
  if (const std::string path = words.option("--tokens", ""); !path.empty()) {
    std::ofstream list(path);
    for (const int id : tokens) list << id << '\n';
    if (!list.flush()) throw std::runtime_error(path + " cannot be written");
  }
  double length = 0;
  for (const double bar : bars) length += bar;
  std::printf("%s: %zu notes, %zu bars, %.1f s; %zu tokens, %s a token, %.2f ms of processor time; %ld MiB of memory at most\n",
              words.last.c_str(), notes.size(), bars.size(), length, tokens.size(), command::times(times).c_str(),
              processor, command::peak_mebibytes());
  return 0;
}

}  // namespace

int main(int count, char** words) {
  return command::main(
      count, words,
      "play_midi [--emotion V,A,I] [--seconds N] [--seed N] [--exports DIR] [--model FILE] [--threads N] [--tokens FILE] "
      "OUT.mid",
      {"--emotion", "--seconds", "--seed", "--exports", "--model", "--threads", "--tokens"}, 1, run);
}
