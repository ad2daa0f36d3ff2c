// Exchange between an audio thread and another thread, without locks: each class has one writer and one reader.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <vector>

namespace athanor {

/// A queue of fixed size. `push` and `pop` neither allocate, lock nor throw.
template <typename T>
class Ring {
 public:
  explicit Ring(std::size_t capacity) : items_(capacity + 1) {}

  /// False if it is full. Called by the writer only.
  bool push(const T& item) noexcept {
    const std::size_t at = written_.load(std::memory_order_relaxed), next = at + 1 == items_.size() ? 0 : at + 1;
    if (next == read_.load(std::memory_order_acquire)) return false;
    items_[at] = item;
    written_.store(next, std::memory_order_release);
    return true;
  }

  /// False if it is empty. Called by the reader only.
  bool pop(T& item) noexcept {
    const std::size_t at = read_.load(std::memory_order_relaxed);
    if (at == written_.load(std::memory_order_acquire)) return false;
    item = items_[at];
    read_.store(at + 1 == items_.size() ? 0 : at + 1, std::memory_order_release);
    return true;
  }

  /// How many items are in it; the writer may have added more since. Called by the reader only.
  std::size_t size() const noexcept {
    const std::size_t at = read_.load(std::memory_order_relaxed), end = written_.load(std::memory_order_acquire);
    return end >= at ? end - at : end + items_.size() - at;
  }

 private:
  std::vector<T> items_;
  alignas(64) std::atomic<std::size_t> written_{0};
  alignas(64) std::atomic<std::size_t> read_{0};
};

/// The newest value: the writer never waits for the reader, and the reader sees complete values only.
template <typename T>
class Newest {
 public:
  /// The place for the next value; `publish` makes it the newest. Called by the writer only.
  T& next() noexcept { return slots_[writing_]; }
  void publish() noexcept { writing_ = middle_.exchange(writing_ | kNew, std::memory_order_acq_rel) & kSlot; }

  /// The newest value, valid until the next call; null if there is no newer one than at the last call. Called by the
  /// reader only.
  const T* take() noexcept {
    if (!(middle_.load(std::memory_order_relaxed) & kNew)) return nullptr;
    reading_ = middle_.exchange(reading_, std::memory_order_acq_rel) & kSlot;
    return &slots_[reading_];
  }

 private:
  static constexpr unsigned kSlot = 3, kNew = 4;
  std::array<T, 3> slots_{};
  unsigned writing_ = 0, reading_ = 1;
  std::atomic<unsigned> middle_{2};
};

}  // namespace athanor
