// Arrays in numpy's formats: reading .npz (golden files) and writing .npy.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

namespace athanor {

using Bytes = std::vector<std::uint8_t>;

inline Bytes read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error(path + " cannot be read");
  return Bytes(std::istreambuf_iterator<char>(file), {});
}

/// Deflated data (RFC 1951), inflated. Throws std::runtime_error for damaged data.
class Inflate {
 public:
  static Bytes run(const std::uint8_t* data, std::size_t size, std::size_t expected) {
    Inflate one{data, size};
    one.out_.reserve(expected);
    bool last = false;
    while (!last) {
      last = one.bits(1);
      const unsigned kind = one.bits(2);
      if (kind == 0) one.stored();
      else if (kind == 1) one.fixed();
      else if (kind == 2) one.dynamic();
      else fail();
    }
    if (one.out_.size() != expected) fail();
    return std::move(one.out_);
  }

 private:
  Inflate(const std::uint8_t* data, std::size_t size) : data_(data), size_(size) {}
  [[noreturn]] static void fail() { throw std::runtime_error("damaged compressed data"); }

  struct Code {  // canonical Huffman code
    std::array<std::uint16_t, 16> count{};
    std::vector<std::uint16_t> symbols;

    explicit Code(const std::vector<std::uint8_t>& lengths) {
      for (const std::uint8_t length : lengths) ++count[length];
      count[0] = 0;
      std::array<std::uint16_t, 16> at{};
      for (int length = 1; length < 15; ++length)
        at[length + 1] = static_cast<std::uint16_t>(at[length] + count[length]);
      symbols.resize(lengths.size());
      for (std::size_t symbol = 0; symbol < lengths.size(); ++symbol)
        if (lengths[symbol]) symbols[at[lengths[symbol]]++] = static_cast<std::uint16_t>(symbol);
    }
  };

  unsigned bits(int count) {
    while (held_ < count) {
      if (at_ >= size_) fail();
      buffer_ |= static_cast<std::uint32_t>(data_[at_++]) << held_;
      held_ += 8;
    }
    const unsigned out = buffer_ & ((1u << count) - 1);
    buffer_ >>= count;
    held_ -= count;
    return out;
  }
  unsigned symbol(const Code& code) {
    int value = 0, first = 0, index = 0;
    for (int length = 1; length < 16; ++length) {
      value |= static_cast<int>(bits(1));
      const int count = code.count[length];
      if (value - count < first) return code.symbols[index + value - first];
      index += count;
      first = (first + count) << 1;
      value <<= 1;
    }
    fail();
  }
  void stored() {
    buffer_ = 0, held_ = 0;
    if (at_ + 4 > size_) fail();
    const std::size_t length = data_[at_] | data_[at_ + 1] << 8;
    at_ += 4;
    if (at_ + length > size_) fail();
    out_.insert(out_.end(), data_ + at_, data_ + at_ + length);
    at_ += length;
  }
  void fixed() {
    std::vector<std::uint8_t> lengths(288, 8);
    std::fill(lengths.begin() + 144, lengths.begin() + 256, 9);
    std::fill(lengths.begin() + 256, lengths.begin() + 280, 7);
    block(Code(lengths), Code(std::vector<std::uint8_t>(30, 5)));
  }
  void dynamic() {
    static const std::uint8_t order[] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};
    const unsigned literals = bits(5) + 257, distances = bits(5) + 1, codes = bits(4) + 4;
    std::vector<std::uint8_t> lengths(19);
    for (unsigned at = 0; at < codes; ++at) lengths[order[at]] = static_cast<std::uint8_t>(bits(3));
    const Code code(lengths);
    std::vector<std::uint8_t> all;
    while (all.size() < literals + distances) {
      const unsigned one = symbol(code);
      if (one < 16) {
        all.push_back(static_cast<std::uint8_t>(one));
        continue;
      }
      if (one == 16 && all.empty()) fail();
      const std::uint8_t repeated = one == 16 ? all.back() : 0;
      all.insert(all.end(), one == 16 ? 3 + bits(2) : one == 17 ? 3 + bits(3) : 11 + bits(7), repeated);
    }
    if (all.size() != literals + distances) fail();
    block(Code({all.begin(), all.begin() + literals}), Code({all.begin() + literals, all.end()}));
  }
  void block(const Code& literals, const Code& distances) {
    while (true) {
      unsigned one = symbol(literals);
      if (one == 256) return;
      if (one < 256) {
        out_.push_back(static_cast<std::uint8_t>(one));
        continue;
      }
      one -= 257;
      if (one > 28) fail();
      const int more = one < 8 || one == 28 ? 0 : static_cast<int>(one / 4) - 1;
      unsigned length = one < 8 ? 3 + one : one == 28 ? 258 : 3 + ((4 + one % 4) << more);
      length += bits(more);
      const unsigned far = symbol(distances);
      if (far > 29) fail();
      const int extra = far < 4 ? 0 : static_cast<int>(far / 2) - 1;
      std::size_t distance = far < 4 ? 1 + far : 1 + ((2 + far % 2) << extra);
      distance += bits(extra);
      if (distance > out_.size()) fail();
      for (unsigned at = 0; at < length; ++at) out_.push_back(out_[out_.size() - distance]);
    }
  }

  const std::uint8_t* data_;
  std::size_t size_, at_ = 0;
  std::uint32_t buffer_ = 0;
  int held_ = 0;
  Bytes out_;
};

/// An array of float32 or int64, in C order.
struct Array {
  std::string type;  // "f4" or "i8"
  std::vector<std::int64_t> shape;
  Bytes data;

  std::size_t size() const {
    std::size_t out = 1;
    for (const std::int64_t n : shape) out *= static_cast<std::size_t>(n);
    return out;
  }

  /// Throws std::runtime_error for a file that is not such an array.
  static Array parse(const Bytes& file) {
    if (file.size() < 10 || std::memcmp(file.data(), "\x93NUMPY\x01", 7) != 0)
      throw std::runtime_error("not a .npy file of version 1");
    const std::size_t length = file[8] | file[9] << 8, begin = 10 + length;
    if (begin > file.size()) throw std::runtime_error("a .npy file that ends in its header");
    const std::string header(file.begin() + 10, file.begin() + static_cast<long>(begin));
    Array out;
    const auto type = header.find("'descr': '<");
    if (type == std::string::npos || header.find("'fortran_order': False") == std::string::npos)
      throw std::runtime_error("an array of another kind: " + header);
    out.type = header.substr(type + 11, 2);
    if (out.type != "f4" && out.type != "i8") throw std::runtime_error("an array of another type: " + header);
    for (std::size_t at = header.find('(') + 1; header[at] != ')';) {
      if (header[at] < '0' || header[at] > '9') {
        ++at;
        continue;
      }
      std::size_t used = 0;
      out.shape.push_back(std::stoll(header.substr(at), &used));
      at += used;
    }
    out.data.assign(file.begin() + static_cast<long>(begin), file.end());
    if (out.data.size() != out.size() * (out.type == "f4" ? 4 : 8))
      throw std::runtime_error("an array of another size than its header says");
    return out;
  }

  static void write(const std::string& path, const std::vector<float>& values, const std::vector<std::size_t>& shape) {
    std::string header = "{'descr': '<f4', 'fortran_order': False, 'shape': (";
    for (const std::size_t n : shape) header += std::to_string(n) + ",";
    header += "), }";
    header.resize((header.size() + 10) / 64 * 64 + 64 - 11, ' ');
    header += '\n';
    std::ofstream file(path, std::ios::binary);
    file.write("\x93NUMPY\x01\0", 8);
    file.put(static_cast<char>(header.size() & 255)).put(static_cast<char>(header.size() >> 8));
    file << header;
    file.write(reinterpret_cast<const char*>(values.data()), static_cast<long>(values.size() * 4));
    if (!file.flush()) throw std::runtime_error(path + " cannot be written");
  }
};

/// The arrays of an .npz file. Throws std::runtime_error.
inline std::map<std::string, Array> read_npz(const std::string& path) {
  const Bytes file = read_file(path);
  const auto u16 = [&](std::size_t at) -> std::size_t {
    return at + 2 <= file.size() ? file[at] | file[at + 1] << 8 : throw std::runtime_error(path + " ends too early");
  };
  const auto u32 = [&](std::size_t at) -> std::size_t { return u16(at) | u16(at + 2) << 16; };
  std::size_t end = file.size() < 22 ? 0 : file.size() - 22;
  while (end > 0 && u32(end) != 0x06054b50) --end;
  if (end == 0) throw std::runtime_error(path + " is not a .npz file");
  std::map<std::string, Array> out;
  std::size_t at = u32(end + 16);
  for (std::size_t left = u16(end + 10); left > 0; --left) {
    if (u32(at) != 0x02014b50) throw std::runtime_error(path + " is damaged");
    const std::size_t method = u16(at + 10), packed = u32(at + 20), plain = u32(at + 24), name = u16(at + 28),
                      place = u32(at + 42);
    const std::size_t begin = place + 30 + u16(place + 26) + u16(place + 28);
    if (at + 46 + name > file.size() || begin + packed > file.size() || (method != 0 && method != 8))
      throw std::runtime_error(path + " is damaged");
    std::string key(file.begin() + static_cast<long>(at + 46), file.begin() + static_cast<long>(at + 46 + name));
    if (key.size() > 4 && key.substr(key.size() - 4) == ".npy") key.resize(key.size() - 4);
    const Bytes content =
        method == 8 ? Inflate::run(file.data() + begin, packed, plain)
                    : Bytes(file.begin() + static_cast<long>(begin), file.begin() + static_cast<long>(begin + packed));
    out[key] = Array::parse(content);
    at += 46 + name + u16(at + 30) + u16(at + 32);
  }
  return out;
}

}  // namespace athanor
