/* Exceptions out of destroy functions that run because a scope closes or a key is detached. */
#include "support_owners.h"

namespace {

struct thrown {};

int destroyed, called;

void throw_the_first_time(void *) {
  if (destroyed++ == 0) throw thrown();
}

intptr_t count_call(void *, void *) { return ++called; }

template <class Function>
bool throws(Function function) {
  try {
    function();
  } catch (const thrown &) {
    return true;
  }
  return false;
}

cbr_handle enlist() {
  cbr_handle handle = 0;
  CHECK_OK(cbr_register(count_call, nullptr, throw_the_first_time, &handle));
  return handle;
}

}  // namespace

TEST(an_exception_while_a_scopes_keys_go_loses_no_reference) {
  const int count = 400;
  cbr_scope scope = scope_open("keys");
  for (uintptr_t key = 0; key < count; key++) {
    cbr_handle handle = enlist();
    CHECK_OK(cbr_key_attach(scope, key, 0, handle, CBR_BIND_ONCE));
    CHECK_OK(cbr_key_call(scope, key, 0, nullptr, nullptr));
    CHECK_OK(cbr_release(handle));
  }
  CHECK(throws([&] { cbr_scope_close(scope, -1, nullptr); }));
  CHECK_OK(cbr_scope_close(scope, -1, nullptr));
  CHECK_EQ(destroyed, count);
  called = 0;
  for (uintptr_t key = 0; key < count; key++) {
    CHECK_STATUS(cbr_key_call(scope, key, 0, nullptr, nullptr), CBR_ERR_STALE);
  }
  CHECK_EQ(called, 0);
}

TEST(an_exception_while_a_scopes_names_go_loses_no_reference) {
  const int count = 400;
  cbr_scope scope = scope_open("names");
  for (int i = 0; i < count; i++) {
    char name[16];
    cbr_handle handle = enlist();
    snprintf(name, sizeof name, "n%d", i);
    CHECK_OK(cbr_name_bind(scope, name, handle, CBR_BIND_ONCE));
    CHECK_OK(cbr_release(handle));
  }
  CHECK(throws([&] { cbr_scope_close(scope, -1, nullptr); }));
  CHECK_OK(cbr_scope_close(scope, -1, nullptr));
  CHECK_EQ(destroyed, count);
}

TEST(an_exception_while_a_keys_events_go_loses_no_reference) {
  const int count = 20;
  for (uint32_t event = 0; event < count; event++) {
    cbr_handle handle = enlist();
    CHECK_OK(cbr_key_attach(0, 5, event, handle, CBR_BIND_ONCE));
    CHECK_OK(cbr_release(handle));
  }
  CHECK(throws([] { cbr_key_detach_all(0, 5, nullptr); }));
  /* The rest is ended by whoever comes next. */
  CHECK_OK(cbr_unregister(enlist()));
  CHECK_EQ(destroyed, count + 1);
}

TEST(an_exception_while_a_scopes_callbacks_go_leaves_the_rest_to_the_next_close) {
  const int count = 400;
  cbr_scope scope = scope_open("callbacks");
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  options.fn = reinterpret_cast<cbr_any_fn>(count_call);
  options.destroy = throw_the_first_time;
  options.scope = scope;
  cbr_handle handle;
  for (int i = 0; i < count; i++) CHECK_OK(cbr_register_with(&options, &handle));
  CHECK(throws([&] { cbr_scope_close(scope, -1, nullptr); }));
  CHECK_STATUS(cbr_call(handle, nullptr, nullptr), CBR_ERR_STALE);
  CHECK_OK(cbr_scope_close(scope, -1, nullptr));
  CHECK_EQ(destroyed, count);
}
