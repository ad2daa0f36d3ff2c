// SHA-256 (FIPS 180-4), for the digests in receipt.json.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

namespace athanor {

class Sha256 {
 public:
  void add(const std::uint8_t* data, std::size_t size) {
    total_ += size;
    for (std::size_t at = 0; at < size; ++at) {
      block_[filled_++] = data[at];
      if (filled_ == 64) mix();
    }
  }

  /// The digest in hexadecimal digits; nothing may be added afterwards.
  std::string hex() {
    const std::uint64_t bits = total_ * 8;
    const std::uint8_t one = 0x80, zero = 0;
    add(&one, 1);
    while (filled_ != 56) add(&zero, 1);
    for (int byte = 7; byte >= 0; --byte) block_[filled_++] = static_cast<std::uint8_t>(bits >> (8 * byte));
    mix();
    std::string out;
    char digits[9];
    for (const std::uint32_t word : state_) std::snprintf(digits, sizeof digits, "%08x", word), out += digits;
    return out;
  }

 private:
  static std::uint32_t turn(std::uint32_t x, int n) { return (x >> n) | (x << (32 - n)); }

  /// The first 32 bits of the fractional parts of the cube roots of the first 64 primes.
  static const std::array<std::uint32_t, 64>& constants() {
    static const std::array<std::uint32_t, 64> table = [] {
      std::array<std::uint32_t, 64> out{};
      int found = 0;
      for (int n = 2; found < 64; ++n) {
        bool prime = true;
        for (int d = 2; d * d <= n; ++d) prime = prime && n % d != 0;
        if (!prime) continue;
        const long double root = std::cbrt(static_cast<long double>(n));
        out[found++] = static_cast<std::uint32_t>((root - std::floor(root)) * 4294967296.0L);
      }
      return out;
    }();
    return table;
  }

  void mix() {
    filled_ = 0;
    std::array<std::uint32_t, 64> w{};
    for (int at = 0; at < 16; ++at)
      w[at] = static_cast<std::uint32_t>(block_[4 * at]) << 24 | block_[4 * at + 1] << 16 | block_[4 * at + 2] << 8 |
              block_[4 * at + 3];
    for (int at = 16; at < 64; ++at) {
      const std::uint32_t a = turn(w[at - 15], 7) ^ turn(w[at - 15], 18) ^ (w[at - 15] >> 3);
      const std::uint32_t b = turn(w[at - 2], 17) ^ turn(w[at - 2], 19) ^ (w[at - 2] >> 10);
      w[at] = w[at - 16] + a + w[at - 7] + b;
    }
    std::array<std::uint32_t, 8> s = state_;
    for (int at = 0; at < 64; ++at) {
      const std::uint32_t e = turn(s[4], 6) ^ turn(s[4], 11) ^ turn(s[4], 25), choose = (s[4] & s[5]) ^ (~s[4] & s[6]);
      const std::uint32_t one = s[7] + e + choose + constants()[at] + w[at];
      const std::uint32_t a = turn(s[0], 2) ^ turn(s[0], 13) ^ turn(s[0], 22),
                          most = (s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]);
      s = {one + a + most, s[0], s[1], s[2], s[3] + one, s[4], s[5], s[6]};
    }
    for (int at = 0; at < 8; ++at) state_[at] += s[at];
  }

  std::array<std::uint32_t, 8> state_{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                      0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<std::uint8_t, 64> block_{};
  std::size_t filled_ = 0;
  std::uint64_t total_ = 0;
};

}  // namespace athanor
