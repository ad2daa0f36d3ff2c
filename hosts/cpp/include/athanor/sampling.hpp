// Drawing an id from logits, as training/domains/music/midi_generator/generate.py does.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <vector>

namespace athanor {

/// Uniform numbers in [0, 1) from a seed: SplitMix64 (Steele et al. 2014), the upper 53 bits.
class Uniform {
 public:
  explicit Uniform(std::uint64_t seed) : state_(seed) {}
  double next() {
    std::uint64_t z = (state_ += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return static_cast<double>((z ^ (z >> 31)) >> 11) / 9007199254740992.0;
  }

 private:
  std::uint64_t state_;
};

struct Sampling {
  double temperature, top_p;
  int top_k;
};

/// An id by temperature, top-k, then top-p (Holtzman et al. 2020). `allowed`: one byte an id, at least one of them set;
/// `uniform`: a number in [0, 1).
inline int draw(const std::vector<double>& logits, const std::vector<std::uint8_t>& allowed, double uniform,
                const Sampling& settings) {
  std::vector<int> order;
  for (std::size_t id = 0; id < logits.size(); ++id)
    if (allowed[id]) order.push_back(static_cast<int>(id));
  const auto before = [&](int a, int b) { return logits[a] != logits[b] ? logits[a] > logits[b] : a < b; };
  const std::size_t kept = settings.top_k > 0 ? std::min<std::size_t>(settings.top_k, order.size()) : order.size();
  std::partial_sort(order.begin(), order.begin() + kept, order.end(), before);
  if (settings.temperature == 0) return order[0];
  std::vector<double> totals(kept);
  for (std::size_t at = 0; at < kept; ++at)
    totals[at] = std::exp((logits[order[at]] - logits[order[0]]) / settings.temperature);
  const double sum = std::accumulate(totals.begin(), totals.end(), 0.0);
  double total = 0;
  std::size_t count = 0;
  while (count < kept) {
    total += totals[count] / sum;
    totals[count++] = total;
    if (total >= settings.top_p) break;  // up to and including the id that reaches p
  }
  const double wanted = uniform * total;
  for (std::size_t at = 0; at < count; ++at)
    if (totals[at] > wanted) return order[at];
  return order[count - 1];
}

}  // namespace athanor
