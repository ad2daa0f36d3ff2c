// An .onnx file in ONNX Runtime, with its metadata.
#pragma once

#include <onnxruntime_cxx_api.h>

#include <cstdint>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace athanor {

inline Ort::Env& environment() {
  static Ort::Env env(ORT_LOGGING_LEVEL_ERROR, "athanor");
  return env;
}

class Session {
 public:
  /// Throws Ort::Exception for a file that ONNX Runtime refuses. `threads`: of one call.
  explicit Session(const std::string& path, int threads = 2) : path_(path), session_(open(path, threads)) {
    Ort::AllocatorWithDefaultOptions allocator;
    for (std::size_t at = 0; at < session_.GetInputCount(); ++at) {
      inputs.push_back(session_.GetInputNameAllocated(at, allocator).get());
      shapes.push_back(session_.GetInputTypeInfo(at).GetTensorTypeAndShapeInfo().GetShape());
    }
    for (std::size_t at = 0; at < session_.GetOutputCount(); ++at)
      outputs.push_back(session_.GetOutputNameAllocated(at, allocator).get());
    const Ort::ModelMetadata metadata = session_.GetModelMetadata();
    for (const auto& key : metadata.GetCustomMetadataMapKeysAllocated(allocator))
      metadata_[key.get()] = metadata.LookupCustomMetadataMapAllocated(key.get(), allocator).get();
  }

  /// An entry of the metadata. Throws std::runtime_error if the file has none of this name.
  const std::string& about(const std::string& key) const {
    const auto found = metadata_.find(key);
    if (found == metadata_.end())
      throw std::runtime_error(path_ + " has no `" + key + "` in its metadata: export it again");
    return found->second;
  }

  /// All outputs, in order. `given`: one value for each input, in order.
  std::vector<Ort::Value> run(const std::vector<Ort::Value>& given) {
    std::vector<const char*> in, out;
    for (const std::string& name : inputs) in.push_back(name.c_str());
    for (const std::string& name : outputs) out.push_back(name.c_str());
    return session_.Run(Ort::RunOptions{nullptr}, in.data(), given.data(), given.size(), out.data(), out.size());
  }

  std::size_t input(const std::string& name) const { return index(inputs, name); }
  std::size_t output(const std::string& name) const { return index(outputs, name); }

  std::vector<std::string> inputs, outputs;
  std::vector<std::vector<std::int64_t>> shapes;  // of the inputs; -1: dynamic

 private:
  static Ort::Session open(const std::string& path, int threads) {
    Ort::SessionOptions options;
    options.SetIntraOpNumThreads(threads);
    options.SetGraphOptimizationLevel(GraphOptimizationLevel::ORT_ENABLE_ALL);
    options.AddConfigEntry("session.intra_op.allow_spinning", "0");
    return Ort::Session(environment(), path.c_str(), options);
  }
  std::size_t index(const std::vector<std::string>& names, const std::string& name) const {
    for (std::size_t at = 0; at < names.size(); ++at)
      if (names[at] == name) return at;
    throw std::runtime_error(path_ + " has no `" + name + "`");
  }

  std::string path_;
  Ort::Session session_;
  std::map<std::string, std::string> metadata_;
};

/// A tensor over `data`, which must outlive it.
template <typename T>
Ort::Value tensor(std::vector<T>& data, const std::vector<std::int64_t>& shape) {
  static const Ort::MemoryInfo memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  return Ort::Value::CreateTensor<T>(memory, data.data(), data.size(), shape.data(), shape.size());
}

}  // namespace athanor
