// check_golden EXPORTS: repeats the comparison of `python -m training verify` without Python. Every file's SHA-256 is
// compared with receipt.json; every ONNX file runs the inputs of its golden file, and steps along the sequence of a
// recurrent graph. Exit 4 if anything is missing or differs.
#include <athanor/json.hpp>
#include <athanor/npy.hpp>
#include <athanor/session.hpp>
#include <athanor/sha256.hpp>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <limits>

#include "command.hpp"

namespace {

namespace fs = std::filesystem;
using athanor::Array;
using athanor::Json;
using Named = std::map<std::string, Array>;

std::string digest(const fs::path& path) {
  athanor::Sha256 total;
  if (!fs::is_directory(path)) {
    const athanor::Bytes bytes = athanor::read_file(path.string());
    total.add(bytes.data(), bytes.size());
    return total.hex();
  }
  std::vector<std::string> names;
  for (const auto& entry : fs::recursive_directory_iterator(path)) {
    if (entry.is_symlink()) throw std::runtime_error("holds a symbolic link");
    if (entry.is_regular_file()) names.push_back(fs::relative(entry.path(), path).generic_string());
  }
  std::sort(names.begin(), names.end());
  for (const std::string& name : names) {
    const std::string line = digest(path / name) + "  " + name + "\n";
    total.add(reinterpret_cast<const std::uint8_t*>(line.data()), line.size());
  }
  return total.hex();
}

Ort::Value value_of(Array& array) {
  static const Ort::MemoryInfo memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  const auto type = array.type == "f4" ? ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT : ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;
  return Ort::Value::CreateTensor(memory, array.data.data(), array.data.size(), array.shape.data(), array.shape.size(),
                                  type);
}

Named run(athanor::Session& session, Named& inputs) {
  std::vector<Ort::Value> given;
  for (const std::string& name : session.inputs) {
    const auto found = inputs.find(name);
    if (found == inputs.end()) throw std::runtime_error("the golden file has no input `" + name + "`");
    given.push_back(value_of(found->second));
  }
  const std::vector<Ort::Value> made = session.run(given);
  Named out;
  for (std::size_t at = 0; at < made.size(); ++at) {
    const auto about = made[at].GetTensorTypeAndShapeInfo();
    Array array{about.GetElementType() == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT ? "f4" : "i8", about.GetShape(), {}};
    const auto* data = static_cast<const std::uint8_t*>(made[at].GetTensorRawData());
    array.data.assign(data, data + array.size() * (array.type == "f4" ? 4 : 8));
    out[session.outputs[at]] = std::move(array);
  }
  return out;
}

double element(const Array& array, std::size_t at) {
  float real = 0;
  std::int64_t integer = 0;
  if (array.type == "f4") return std::memcpy(&real, &array.data[4 * at], 4), real;
  return std::memcpy(&integer, &array.data[8 * at], 8), static_cast<double>(integer);
}

/// max |got - want| / max |want|; infinite where shapes or types differ or a number is not finite.
double relative_error(const Array& got, const Array& want) {
  const double never = std::numeric_limits<double>::infinity();
  if (got.shape != want.shape || got.type != want.type) return never;
  double difference = 0, scale = 0;
  for (std::size_t at = 0; at < want.size(); ++at) {
    const double a = element(got, at), b = element(want, at);
    if (!std::isfinite(a) || !std::isfinite(b)) return never;
    difference = std::max(difference, std::abs(a - b));
    scale = std::max(scale, std::abs(b));
  }
  return difference == 0 ? 0 : scale == 0 ? never : difference / scale;
}

/// Elements begin..begin+count-1 of axis 1.
Array slice(const Array& array, std::int64_t begin, std::int64_t count) {
  Array out{array.type, array.shape, {}};
  out.shape.at(1) = count;
  std::size_t inner = array.type == "f4" ? 4 : 8;
  for (std::size_t axis = 2; axis < array.shape.size(); ++axis) inner *= static_cast<std::size_t>(array.shape[axis]);
  for (std::int64_t row = 0; row < array.shape[0]; ++row) {
    const auto* from = array.data.data() + static_cast<std::size_t>(row * array.shape[1] + begin) * inner;
    out.data.insert(out.data.end(), from, from + static_cast<std::size_t>(count) * inner);
  }
  return out;
}

/// The state before the first step: the golden file's start values for each sequence, or zeros, or an empty cache.
Array first_state(const Json& graph, const Json& spec, const Named& inputs, const Named& golden, const Json& states) {
  std::map<std::string, std::int64_t> sizes;
  std::map<std::string, bool> is_state;
  for (const Json& pair : states.list()) is_state[pair[0].text()] = true;
  for (const Json& other : graph["inputs"].list()) {
    const auto found = inputs.find(other["name"].text());
    if (is_state.count(other["name"].text()) || found == inputs.end()) continue;
    for (std::size_t axis = 0; axis < other["shape"].list().size(); ++axis)
      if (other["shape"][axis].kind() == Json::Kind::text)
        sizes[other["shape"][axis].text()] = found->second.shape[axis];
  }
  Array out{spec["dtype"].text() == "float32" ? "f4" : "i8", {}, {}};
  for (const Json& axis : spec["shape"].list()) {
    if (axis.kind() == Json::Kind::number) out.shape.push_back(axis.integer());
    else if (sizes.count(axis.text())) out.shape.push_back(sizes[axis.text()]);
    else out.shape.push_back(graph["axes"][axis.text()][0].integer());
  }
  const auto start = golden.find("steps/start/" + spec["name"].text());
  if (start == golden.end()) {
    out.data.assign(out.size() * (out.type == "f4" ? 4 : 8), 0);
    return out;
  }
  out.shape.resize(1);
  out.shape.insert(out.shape.end(), start->second.shape.begin(), start->second.shape.end());
  for (std::int64_t row = 0; row < out.shape[0]; ++row)
    out.data.insert(out.data.end(), start->second.data.begin(), start->second.data.end());
  return out;
}

/// The error of stepping along the golden sequence.
double stepped(athanor::Session& session, const Json& graph, const Named& golden) {
  const Json& recurrence = graph["recurrence"];
  Named fixed, streams, state;
  std::int64_t length = 0;
  const std::int64_t block = recurrence["block"].integer();
  for (const auto& [key, array] : golden)
    if (key.rfind("steps/in/", 0) == 0) fixed[key.substr(9)] = array;
  for (const Json& name : recurrence["stream"].list()) {
    streams[name.text()] = fixed.at(name.text());
    length = fixed.at(name.text()).shape.at(1);
  }
  for (const auto& [name, array] : streams) fixed[name] = slice(array, 0, block);
  for (const Json& pair : recurrence["state"].list())
    for (const Json& spec : graph["inputs"].list())
      if (spec["name"].text() == pair[0].text())
        state[pair[0].text()] = first_state(graph, spec, fixed, golden, recurrence["state"]);
  const std::string compare = recurrence["compare"].text();
  const Array& want = golden.at("steps/out/" + compare);
  double worst = 0, scale = 0;
  for (std::size_t at = 0; at < want.size(); ++at) scale = std::max(scale, std::abs(element(want, at)));
  std::int64_t done = 0;
  for (std::int64_t at = 0; at < length; at += block) {
    Named inputs = fixed;
    for (const auto& [name, array] : streams) inputs[name] = slice(array, at, block);
    for (const auto& [name, array] : state) inputs[name] = array;
    Named outputs = run(session, inputs);
    const Array& got = outputs.at(compare);
    const Array part = slice(want, done, got.shape.at(1));
    done += got.shape[1];
    if (part.shape != got.shape) return std::numeric_limits<double>::infinity();
    for (std::size_t one = 0; one < got.size(); ++one) {
      const double difference = std::abs(element(got, one) - element(part, one));
      if (!std::isfinite(difference)) return std::numeric_limits<double>::infinity();
      worst = std::max(worst, difference / scale);
    }
    for (const Json& pair : recurrence["state"].list()) state[pair[0].text()] = std::move(outputs.at(pair[1].text()));
  }
  return done == want.shape.at(1) ? worst : std::numeric_limits<double>::infinity();
}

/// What was compared, as a text. Throws std::runtime_error if a file differs from its model.
std::string check(const fs::path& folder, const std::string& name, const Json& file, const Json& graph,
                  const std::string& golden_name) {
  athanor::Session session((folder / name).string());
  const Named golden = athanor::read_npz((folder / golden_name).string());
  double worst = 0;
  int trials = 0;
  for (; golden.lower_bound("trial" + std::to_string(trials) + "/") != golden.end(); ++trials) {
    const std::string group = "trial" + std::to_string(trials) + "/";
    Named inputs;
    for (const auto& [key, array] : golden)
      if (key.rfind(group + "in/", 0) == 0) inputs[key.substr(group.size() + 3)] = array;
    if (inputs.empty()) break;
    const Named outputs = run(session, inputs);
    for (const auto& [key, want] : golden)
      if (key.rfind(group + "out/", 0) == 0)
        worst = std::max(worst, relative_error(outputs.at(key.substr(group.size() + 4)), want));
  }
  if (trials == 0) throw std::runtime_error(golden_name + " has no trials");
  const bool recurrent = graph.has("recurrence") && !graph["recurrence"].is_null();
  if (recurrent) worst = std::max(worst, stepped(session, graph, golden));
  const bool exact = file["kind"].text() == "onnx";
  const double allowed = exact ? graph["tolerance"].number() : 1e30;
  char text[160];
  std::snprintf(text, sizeof text, "%s by %.1e at most, in %d trials%s", exact ? "differs" : "int8: outputs move",
                worst, trials, recurrent ? " and a sequence" : "");
  if (!(worst <= allowed))
    throw std::runtime_error(std::string("is not the model that was exported: ") + text + ", allowed " +
                             std::to_string(allowed));
  return text;
}

int run_all(const command::Words& words) {
  const fs::path folder = words.last;
  const athanor::Bytes text = athanor::read_file((folder / "receipt.json").string());
  const Json receipt = Json::parse(std::string(text.begin(), text.end()));
  if (receipt["format"].integer() != 1) throw std::runtime_error("receipt.json has another format than 1");
  int bad = 0, files = 0;
  for (const auto& [family, entry] : receipt["families"].object()) {
    const auto slash = family.find('/');
    const std::string item = slash == std::string::npos ? "" : family.substr(slash + 1) + "/";
    for (const auto& [name, file] : entry["files"].object()) {
      ++files;
      std::string result, problem;
      try {
        const fs::path path = folder / name;
        for (const auto& part : fs::path(name))
          if (part == ".." || fs::path(name).is_absolute())
            throw std::runtime_error("its name leads out of the folder");
        if (fs::is_symlink(path)) throw std::runtime_error("is a symbolic link");
        if (!fs::exists(path)) throw std::runtime_error("is missing");
        if (digest(path) != file["sha256"].text())
          throw std::runtime_error("is not the file that was exported: its SHA-256 differs from the receipt's");
        const std::string kind = file["kind"].text();
        if (kind == "onnx" || kind == "int8") {
          const std::string graph = file["graph"].text(), golden = item + "golden/" + graph + ".npz";
          if (!entry["files"].has(golden) || digest(folder / golden) != entry["files"][golden]["sha256"].text())
            throw std::runtime_error("cannot be checked: " + golden + " is not the file that was exported");
          result = check(folder, name, file, entry["graphs"][graph], golden);
        } else {
          result = "SHA-256 matches";
        }
      } catch (const std::exception& error) {
        problem = error.what();
        ++bad;
      }
      std::printf("  %-44s %s\n", name.c_str(),
                  problem.empty() ? ("ok   " + result).c_str() : ("BAD  " + problem).c_str());
    }
  }
  if (bad > 0) std::fprintf(stderr, "error: %d of %d files do not match\n", bad, files);
  else std::printf("All %d files match.\n", files);
  return bad > 0 ? 4 : 0;
}

}  // namespace

int main(int count, char** words) { return command::main(count, words, "check_golden EXPORTS", {}, 1, run_all); }
