// The queue and the newest value between two threads: nothing is lost, torn or out of order. Meant to be built with
// -DSANITIZE=thread as well.
#include <athanor/ring.hpp>
#include <cstdio>
#include <thread>
#include <vector>

int main() {
  constexpr int kCount = 300000;
  athanor::Ring<int> ring(61);
  std::thread writer([&] {
    for (int at = 0; at < kCount; ++at)
      while (!ring.push(at)) std::this_thread::yield();
  });
  int wrong = 0;
  for (int at = 0; at < kCount; ++at) {
    int got = -1;
    while (!ring.pop(got)) std::this_thread::yield();
    wrong += got != at;
  }
  writer.join();
  int none = 0;
  wrong += ring.pop(none);
  athanor::Ring<int> small(2);
  wrong += !small.push(1) + !small.push(2) + small.push(3);

  struct Value {
    std::vector<int> parts = std::vector<int>(64);
  };
  athanor::Newest<Value> newest;
  std::thread drawing([&] {
    for (int at = 1; at <= kCount / 10; ++at) {
      for (int& part : newest.next().parts) part = at;
      newest.publish();
    }
  });
  int last = 0;
  while (last < kCount / 10) {
    const Value* value = newest.take();
    if (value == nullptr) {
      std::this_thread::yield();
      continue;
    }
    for (const int part : value->parts) wrong += part != value->parts[0];
    wrong += value->parts[0] <= last;
    last = value->parts[0];
  }
  drawing.join();
  wrong += newest.take() != nullptr;
  std::printf("%d wrong\n", wrong);
  return wrong == 0 ? 0 : 1;
}
