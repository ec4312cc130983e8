/* An exception with a number, for tests of what passes through the library. */
#ifndef CALLBRIDGE_SUPPORT_EXCEPTION_H
#define CALLBRIDGE_SUPPORT_EXCEPTION_H

#include "harness.h"

#include <stdexcept>

struct boom : std::runtime_error {
  explicit boom(int number) : std::runtime_error("boom"), number(number) {}
  int number;
};

/* What the exception that comes out of this carries; 0 if none does. */
template <class Function>
int caught(Function function) {
  try {
    function();
  } catch (const boom &it) {
    return it.number;
  }
  return 0;
}

#endif
