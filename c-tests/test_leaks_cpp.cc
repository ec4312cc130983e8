// CALLBRIDGE_LEAK_CHECK in C++: names as the source has them, and what static objects clean up.
#include "support_child.h"

#include <callbridge.hpp>

#include <memory>

namespace plugin {

using adder = callbridge::callback<int(int)>;

struct reader {
  __attribute__((noinline)) static adder make(int number) {
    adder made([number](int more) { return number + more; });
    __asm__ volatile("" ::: "memory");
    return made;
  }
};

}  // namespace plugin

static plugin::adder *volatile never_deleted;

CHILD(leaves_a_callback) { never_deleted = new plugin::adder(plugin::reader::make(1)); }

TEST(functions_have_the_names_of_the_source) {
  static char output[1 << 16];
  check_child("leaves_a_callback", "CALLBRIDGE_LEAK_CHECK", "1", output, sizeof output);
  CHECK_CONTAINS(output, "live at exit: 1 callback\n");
  CHECK_CONTAINS(output, " plugin::reader::make(int)+0x");
}

static std::unique_ptr<plugin::adder> of_static_object;

CHILD(has_static_objects) {
  of_static_object = std::make_unique<plugin::adder>(plugin::reader::make(2));
  thread_local std::unique_ptr<plugin::adder> of_thread;
  of_thread = std::make_unique<plugin::adder>(plugin::reader::make(3));
}

TEST(what_destructors_of_static_objects_end_is_not_reported) {
  static char output[1 << 16];
  check_child("has_static_objects", "CALLBRIDGE_LEAK_CHECK", "exit:23", output, sizeof output);
  CHECK_STR(output, "");
}
