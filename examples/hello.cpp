/* The smallest program with callbridge.hpp: a lambda with captures, called from C and C++; what it throws
 * is an error of its caller. */
#include <callbridge.hpp>

#include <cstdio>
#include <memory>

int main() {
  auto total = std::make_unique<int>(0);
  callbridge::callback add([total = std::move(total)](int step) {
    if (step < 0) throw std::runtime_error("no step back");
    return *total += step;
  });
  add(21); /* or callbridge::handle(number).call<int(int)>(21), where only add.get() is known */
  callbridge::thunk plain(add);
  int (*for_c)(int) = plain.get();
  int result = for_c(21);
  try {
    add(-1);
  } catch (const callbridge::error &error) {
    std::printf("result %d, then %s: %s\n", result, cbr_status_name(error.status()), error.what());
    return result == 42 && error.status() == CBR_ERR_PANIC ? 0 : 1;
  }
  return 1;
}
