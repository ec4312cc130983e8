/* callbridge.hpp's other owners: each ends once what it stands for, and none throws from its destructor. */
#include "support_cpp.h"

#include <memory>
#include <poll.h>
#include <vector>

using callbridge::attached_key;
using callbridge::bound_name;
using callbridge::callback;
using callbridge::callback_options;
using callbridge::handle;
using callbridge::hold;
using callbridge::hook;
using callbridge::pin;
using callbridge::queue;
using callbridge::queue_options;
using callbridge::scope;

using event = callback<intptr_t(void *)>;

/* --- pins and holds ---------------------------------------------------------------------- */

TEST(a_pin_keeps_the_lambda_alive_for_several_calls) {
  tally it;
  callback add([capture = counted(it)](int n) {
    capture.check();
    return n + 1;
  });
  {
    pin inside(add);
    CHECK_EQ(cbr_depth(), 1);
    add.unregister();
    CHECK_EQ(it.live(), 1);
    for (int i = 0; i < 100; i++) CHECK_EQ(inside(i), i + 1);
  }
  CHECK_EQ(it.live(), 0);
  CHECK_EQ(cbr_depth(), 0);
  CHECK_THROWS(pin<int(int)>(add), CBR_ERR_STALE);
  callback other([] {});
  CHECK_THROWS(pin<int(int)>(other.get()), CBR_ERR_SIGNATURE);
}

TEST(leaving_a_pin_tells_that_a_call_has_failed) {
  callback maybe([](int n) {
    if (n < 0) throw std::runtime_error("below zero");
    return n;
  });
  {
    pin inside(maybe);
    CHECK_EQ(inside(1), 1);
    CHECK_EQ(inside(-1), 0);
    const outcome left = outcome_of([&] { inside.leave(); });
    CHECK_STATUS(left.status, CBR_ERR_PANIC);
    CHECK_STR(left.text.c_str(), "below zero");
  }
  {
    pin inside(maybe);
    inside(-1);
  }
  pin inside(maybe);
  inside(1);
  inside.leave();
  CHECK_EQ(cbr_depth(), 0);
}

TEST(a_hold_keeps_the_lambda_alive_until_any_thread_leaves_it) {
  tally it;
  callback owner([capture = counted(it)] {});
  hold first(owner.get());
  hold moved(std::move(first));
  owner.unregister();
  CHECK_EQ(it.live(), 1);
  first.leave();
  CHECK_EQ(it.live(), 1);
  std::thread([other = std::move(moved)]() mutable { other.leave(); }).join();
  CHECK_EQ(it.live(), 0);
  CHECK_THROWS(hold(owner.get()), CBR_ERR_STALE);
}

/* --- scopes ------------------------------------------------------------------------------ */

TEST(a_scope_ends_its_callbacks) {
  tally it;
  callback<int()> survivor;
  {
    scope plugin("plugin");
    callback_options options;
    options.scope = plugin.get();
    options.name = "survivor";
    survivor = callback<int()>([capture = counted(it)] { return 1; }, options);
    CHECK_EQ(survivor(), 1);
    scope moved(std::move(plugin));
    CHECK_EQ(plugin.get(), 0);
    CHECK(survivor.is_live());
  }
  CHECK_EQ(it.live(), 0);
  CHECK_THROWS(survivor(), CBR_ERR_STALE);
}

TEST(a_scope_says_why_it_is_not_closed_and_can_be_closed_again) {
  scope plugin;
  callback_options options;
  options.scope = plugin.get();
  callback<void()> closes([&] { plugin.close(); }, options);
  CHECK_CONTAINS(outcome_of([&] { closes(); }).text.c_str(), "cbr_scope_close");
  plugin.drain();
  plugin.close();
  CHECK_EQ(plugin.get(), 0);
  plugin.close();

  gate inside, leave;
  gate_init(&inside);
  gate_init(&leave);
  scope other;
  options.scope = other.get();
  callback<void()> slow(
      [&] {
        gate_open(&inside);
        gate_pass(&leave);
      },
      options);
  std::thread caller([&] { slow(); });
  gate_pass(&inside);
  CHECK_THROWS(other.close(std::chrono::milliseconds(1)), CBR_ERR_TIMEOUT);
  CHECK_THROWS(callback<void()>([] {}, options), CBR_ERR_CLOSED);
  gate_open(&leave);
  other.close();
  caller.join();
}

TEST(a_scope_may_go_inside_its_own_callback) {
  auto plugin = std::make_unique<scope>();
  callback_options options;
  options.scope = plugin->get();
  callback<void()> last([&] { plugin.reset(); }, options);
  last();
  CHECK(!last.is_live());
}

static void destroy_that_throws(void *counter) {
  ++*static_cast<int *>(counter);
  throw std::runtime_error("not ours");
}
static intptr_t does_nothing(void *, void *) { return 0; }

TEST(destroy_functions_that_throw_do_not_pass_the_destructors) {
  int destroyed = 0;
  cbr_handle number;
  {
    scope plugin;
    callback_options options;
    options.scope = plugin.get();
    options.fn = reinterpret_cast<cbr_any_fn>(does_nothing);
    options.user_data = &destroyed;
    options.destroy = destroy_that_throws;
    for (int i = 0; i < 5; i++) CHECK_OK(cbr_register_with(&options, &number));
  }
  CHECK_EQ(destroyed, 5);
  CHECK_OK(cbr_register(does_nothing, &destroyed, destroy_that_throws, &number));
  { handle last = handle::adopt(number); }
  CHECK_EQ(destroyed, 6);
}

TEST(thread_hooks_are_lambdas_too) {
  tally it;
  std::atomic<int> attached{0}, detached{0};
  {
    scope runtime;
    runtime.set_thread_hooks(
        [&attached, capture = counted(it)]() -> void * {
          attached++;
          return &attached;
        },
        [&](void *token) {
          CHECK(token == &attached);
          detached++;
          throw 1; /* contained */
        });
    callback_options options;
    options.scope = runtime.get();
    callback<void()> call([] {}, options);
    for (int i = 0; i < 3; i++) std::thread([&] { call(), call(); }).join();
    CHECK_EQ(attached, 3);
    CHECK_EQ(detached, 3);
    CHECK_THROWS(runtime.set_thread_hooks([capture = counted(it)]() -> void * { return nullptr; }, [](void *) {}),
                 CBR_ERR_EXISTS);
    CHECK_EQ(it.live(), 1);
  }
  CHECK_EQ(it.live(), 0);
  scope refuses;
  refuses.set_thread_hooks([]() -> void * { throw std::runtime_error("no more threads"); }, [](void *) {});
  callback_options options;
  options.scope = refuses.get();
  callback<void()> call([] {}, options);
  CHECK_STR(outcome_of([&] { call(); }).text.c_str(), "no more threads");
}

/* --- hooks, names, keys ------------------------------------------------------------------ */

static hook on_log;

TEST(a_hook_has_one_callback) {
  CHECK(!on_log.call(nullptr));
  tally it;
  {
    event first([capture = counted(it)](void *) -> intptr_t { return 1; });
    event second([](void *) -> intptr_t { return 2; });
    CHECK(on_log.set_once(first.get()));
    CHECK(!on_log.set_once(second.get()));
    CHECK_EQ(*on_log.call(nullptr), 1);
    const handle old = on_log.swap(second.get());
    CHECK_EQ(old.get(), first.get());
    CHECK_EQ(*on_log.call(nullptr), 2);
    CHECK(on_log.swap(0));
    CHECK(!on_log.call(nullptr));
    on_log.set_once(first.get());
  }
  CHECK_EQ(it.live(), 0);
  CHECK(!on_log.call(nullptr));
  hook place;
  event throws([](void *) -> intptr_t { throw std::runtime_error("in a hook"); });
  place.set_once(throws.get());
  CHECK_STR(outcome_of([&] { place.call(nullptr); }).text.c_str(), "in a hook");
  CHECK_THROWS(place.swap(12345), CBR_ERR_STALE);
}

TEST(a_hook_gives_its_reference_back) {
  tally it;
  {
    hook place;
    event owner([capture = counted(it)](void *) -> intptr_t { return 1; });
    place.set_once(owner.get());
    handle last(std::move(owner));
    { handle goes(std::move(last)); }
    CHECK_EQ(it.live(), 1);
    CHECK_EQ(*place.call(nullptr), 1);
  }
  CHECK_EQ(it.live(), 0);
}

TEST(a_name_goes_with_its_owner) {
  callback one([] { return 1; });
  callback two([] { return 2; });
  {
    bound_name name(0, "render", one.get());
    CHECK_EQ(bound_name::find(0, "render").call<int()>(), 1);
    CHECK_THROWS(bound_name(0, "render", two.get()), CBR_ERR_EXISTS);
    bound_name moved(std::move(name));
    CHECK(bound_name::find(0, "render"));
    bound_name replaces(0, "render", two.get(), CBR_BIND_REPLACE);
    moved = bound_name(0, "other", one.get()); /* its own name is not its own any more */
    CHECK_EQ(bound_name::find(0, "render").call<int()>(), 2);
  }
  CHECK(!bound_name::find(0, "render"));
  CHECK(!bound_name::find(0, "other"));
  CHECK_THROWS(bound_name::find(12345, "render"), CBR_ERR_STALE);
  CHECK_THROWS(bound_name(0, "", one.get()), CBR_ERR_INVALID);
}

TEST(a_key_goes_with_its_owner) {
  enum { READ, WRITE };
  event reads([](void *) -> intptr_t { return 1; });
  event writes([](void *) -> intptr_t { return 2; });
  {
    std::vector<attached_key> keys;
    keys.emplace_back(0, 7, READ, reads.get());
    keys.emplace_back(0, 7, WRITE, writes.get());
    intptr_t result;
    CHECK_OK(cbr_key_call(0, 7, WRITE, nullptr, &result));
    CHECK_EQ(result, 2);
    CHECK_EQ(attached_key::find(0, 7, READ).call<intptr_t(void *)>(nullptr), 1);
    CHECK_THROWS(attached_key(0, 7, READ, writes.get()), CBR_ERR_EXISTS);
    attached_key replaces(0, 7, READ, writes.get(), CBR_BIND_REPLACE);
    keys.erase(keys.begin());
    CHECK_EQ(attached_key::find(0, 7, READ).get(), writes.get());
  }
  CHECK(!attached_key::find(0, 7, READ));
  CHECK(!attached_key::find(0, 7, WRITE));
}

/* --- queues ------------------------------------------------------------------------------ */

struct reading {
  int sensor;
  double value;
};

TEST(payloads_arrive_typed) {
  queue loop;
  std::vector<std::string> seen;
  callback on_reading([&seen](const reading *it) -> intptr_t {
    seen.push_back(std::to_string(it->sensor));
    return 0;
  });
  callback on_text([&seen](std::string *it) -> intptr_t {
    seen.push_back(std::move(*it));
    return 0;
  });
  CHECK(loop.dispatch());
  CHECK(loop.post(on_reading, reading{1, 2.5}));
  CHECK(loop.post(on_text, "a text"));
  CHECK(loop.post(on_text, std::string(100, 'x')));
  CHECK_EQ(loop.size(), 3);
  size_t count = 0;
  CHECK(loop.dispatch(2, callbridge::forever, &count));
  CHECK_EQ(count, 2);
  CHECK(loop.dispatch());
  CHECK_EQ(seen.size(), 3);
  CHECK(seen[0] == "1" && seen[1] == "a text" && seen[2] == std::string(100, 'x'));
}

TEST(payloads_are_destroyed_once_whatever_becomes_of_the_event) {
  tally it;
  int calls = 0;
  callback on_event([&calls](counted *payload) -> intptr_t {
    payload->check();
    calls++;
    return 0;
  });
  queue_options options;
  options.capacity = 2;
  queue_options drops(options);
  drops.policy = CBR_QUEUE_DROP_OLDEST;
  {
    queue loop(options);
    queue other(drops);
    CHECK(loop.post(on_event, counted(it)));
    CHECK(loop.post(on_event, counted(it)));
    CHECK(!loop.post(on_event, counted(it)));
    CHECK_EQ(it.live(), 2);
    CHECK(loop.dispatch(1));
    CHECK_EQ(it.live(), 1);
    for (int i = 0; i < 5; i++) CHECK(other.post(on_event, counted(it)));
    CHECK_EQ(it.live(), 3);
    scope plugin;
    CHECK(loop.post(on_event, counted(it), plugin.get()));
    plugin.close();
    CHECK_EQ(it.live(), 3);
    on_event.close();
    CHECK(other.dispatch(1));
    CHECK_EQ(it.live(), 2);
    CHECK_THROWS(loop.post(on_event, counted(it)), CBR_ERR_STALE);
  }
  CHECK_EQ(it.live(), 0);
  CHECK_EQ(it.copied, 0);
  CHECK_EQ(calls, 1);
}

TEST(closing_the_owner_drops_an_event_of_any_type) {
  int calls = 0;
  callback on_number([&calls](const int *) -> intptr_t { return ++calls; });
  callback on_text([&calls](const std::string *) -> intptr_t { return ++calls; });
  queue loop;
  scope plugin;
  CHECK(loop.post(on_number, 1, plugin.get()));
  CHECK(loop.post(on_text, "text", plugin.get()));
  CHECK(loop.post(on_number, 2));
  CHECK_THROWS(loop.post(on_number, 3, plugin.get() + 1), CBR_ERR_STALE);
  plugin.close();
  CHECK_EQ(loop.size(), 1);
  CHECK(loop.dispatch());
  CHECK_EQ(calls, 1);
}

TEST(a_closed_queue_ends_the_loop) {
  queue loop;
  int calls = 0;
  callback on_number([&calls](int *n) -> intptr_t {
    calls += *n;
    throw std::runtime_error("counted, and no more");
  });
  CHECK(loop.post(on_number, 1));
  CHECK(loop.post(on_number, 2));
  pollfd ready = {loop.fd(), POLLIN, 0};
  CHECK_EQ(poll(&ready, 1, 0), 1);
  close(ready.fd);
  loop.close();
  loop.close();
  CHECK_THROWS(loop.post(on_number, 4), CBR_ERR_CLOSED);
  while (loop.dispatch()) {
  }
  CHECK_EQ(calls, 3);
}

TEST(call_on_brings_the_result_or_the_exception) {
  queue_options options;
  options.flags = CBR_QUEUE_OWNED;
  queue loop(options);
  gate adopted;
  gate_init(&adopted);
  const std::thread::id here = std::this_thread::get_id();
  callback squares([here](int *n) -> intptr_t {
    CHECK(std::this_thread::get_id() != here);
    if (*n < 0) throw std::runtime_error("below zero");
    return *n * *n;
  });
  std::thread other([&] {
    loop.adopt();
    gate_open(&adopted);
    while (loop.dispatch(0, callbridge::forever)) {
    }
  });
  gate_pass(&adopted);
  int n = 7;
  CHECK_EQ(loop.call_on(squares, &n), 49);
  n = -1;
  const outcome failed = outcome_of([&] { loop.call_on(squares, &n, std::chrono::seconds(10)); });
  CHECK_STATUS(failed.status, CBR_ERR_PANIC);
  CHECK_STR(failed.text.c_str(), "below zero");
  loop.close();
  other.join();
}

TEST(a_callback_that_another_thread_destroys_is_not_waited_for) {
  tally it;
  queue_options options;
  options.flags = CBR_QUEUE_OWNED;
  queue loop(options);
  std::thread other([&] {
    callback_options where;
    where.destroy_queue = loop.get();
    callback<void()> owner([capture = counted(it)] {}, where);
  });
  other.join(); /* would never end if it waited for this thread */
  CHECK_EQ(it.live(), 1);
  CHECK(loop.dispatch());
  CHECK_EQ(it.live(), 0);
}
