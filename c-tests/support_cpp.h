/* What the tests of callbridge.hpp share: captures that are counted, and what a call throws. */
#ifndef CALLBRIDGE_SUPPORT_CPP_H
#define CALLBRIDGE_SUPPORT_CPP_H

#include "support_threads.h"

#include <callbridge.hpp>

#include <atomic>
#include <string>
#include <thread>

/* How many captures there are, and how many there were. */
struct tally {
  std::atomic<int> made{0}, copied{0}, destroyed{0};
  int live() const { return made - destroyed; }
};

/* A capture. Moved from it still counts as one, as any object does. */
class counted {
 public:
  explicit counted(tally &it) : tally_(&it) { it.made++; }
  counted(const counted &other) : tally_(other.tally_) {
    tally_->made++;
    tally_->copied++;
  }
  counted(counted &&other) noexcept : tally_(other.tally_) { tally_->made++; }
  counted &operator=(const counted &) = delete;
  ~counted() {
    if (alive_ != ALIVE) FAIL("a capture is destroyed twice");
    alive_ = 0;
    tally_->destroyed++;
  }
  void check() const { CHECK_EQ(alive_, ALIVE); }

 private:
  static constexpr unsigned ALIVE = 0x600d600d;
  tally *tally_;
  volatile unsigned alive_ = ALIVE;
};

/* The error that comes out of this, CBR_OK without text if none does. */
struct outcome {
  cbr_status status;
  std::string text;
};
template <class Body>
outcome outcome_of(Body &&body) {
  try {
    body();
    return {CBR_OK, ""};
  } catch (const callbridge::error &it) {
    return {it.status(), it.what()};
  }
}
#define CHECK_THROWS(expr, expected)                                             \
  harness_check_status(__FILE__, __LINE__, #expr,                                \
                       outcome_of([&] { static_cast<void>(expr); }).status, (expected))

#endif
