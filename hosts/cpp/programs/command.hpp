// What the programs share: words of the command line, errors with an exit code, and times.
#pragma once

#include <onnxruntime_cxx_api.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

namespace command {

/// A command line that cannot be understood: exit 2. Other errors: exit 1; exports that differ: exit 4.
struct Usage : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Words {
  std::map<std::string, std::string> options;
  std::vector<std::string> files;
  std::string last;

  std::string option(const std::string& name, const std::string& otherwise) const {
    const auto found = options.find(name);
    return found == options.end() ? otherwise : found->second;
  }
  double number(const std::string& name, double otherwise) const {
    const auto found = options.find(name);
    if (found == options.end()) return otherwise;
    char* end = nullptr;
    const double out = std::strtod(found->second.c_str(), &end);
    if (found->second.empty() || *end != '\0' || !(out >= 0))
      throw Usage(name + " needs a number from 0 up, not " + found->second);
    return out;
  }
};

class Clock {
 public:
  double milliseconds() const {
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - began_).count();
  }

 private:
  std::chrono::steady_clock::time_point began_ = std::chrono::steady_clock::now();
};

/// "p50 1.20 ms, p99 3.40 ms" of times in milliseconds.
inline std::string times(std::vector<double> all) {
  if (all.empty()) return "nothing timed";
  std::sort(all.begin(), all.end());
  char text[64];
  std::snprintf(text, sizeof text, "p50 %.2f ms, p99 %.2f ms", all[all.size() / 2],
                all[std::min(all.size() - 1, all.size() * 99 / 100)]);
  return text;
}

/// Processor time of this process so far, in milliseconds: what a quiet core would need.
inline double processor_milliseconds() {
  rusage used{};
  getrusage(RUSAGE_SELF, &used);
  const auto of = [](const timeval& time) { return 1e3 * static_cast<double>(time.tv_sec) + 1e-3 * static_cast<double>(time.tv_usec); };
  return of(used.ru_utime) + of(used.ru_stime);
}

/// The most memory that this process has had, in MiB.
inline long peak_mebibytes() {
  rusage used{};
  getrusage(RUSAGE_SELF, &used);
#ifdef __APPLE__
  return used.ru_maxrss >> 20;
#else
  return used.ru_maxrss >> 10;
#endif
}

inline int main(int count, char** given, const std::string& usage, const std::set<std::string>& known,
                std::size_t files, const std::function<int(const Words&)>& run) {
  try {
    Words words;
    for (int at = 1; at < count; ++at) {
      const std::string word = given[at];
      if (word.rfind("--", 0) != 0) {
        words.files.push_back(word);
        continue;
      }
      if (!known.count(word)) throw Usage("there is no option " + word);
      if (at + 1 == count) throw Usage(word + " needs a value");
      words.options[word] = given[++at];
    }
    if (words.files.size() != files)
      throw Usage(std::to_string(files) + " file(s) needed, " + std::to_string(words.files.size()) + " given");
    words.last = words.files.back();
    return run(words);
  } catch (const Usage& error) {
    std::fprintf(stderr, "error: %s\nusage: %s\n", error.what(), usage.c_str());
    return 2;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
}

}  // namespace command
