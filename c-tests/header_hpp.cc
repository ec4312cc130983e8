/* callbridge.hpp by itself, with every template used once, under warnings that users may have on. */
#include <callbridge.hpp>
#ifdef INCLUDE_TWICE
#include <callbridge.hpp>
#endif

using namespace callbridge;

template class callbridge::callback<void()>;
template class callbridge::callback<bool(char, unsigned char, short, float, double, void *)>;
template class callbridge::callback<std::string(std::string, const std::string &, std::string &&)>;
template class callbridge::callback<int &(int &)>;
template class callbridge::callback<std::intptr_t(void *)>;
template class callbridge::pin<int(int)>;

void use_all();
void use_all() {
  scope plugin("plugin");
  plugin.set_thread_hooks([]() -> void * { return nullptr; }, [](void *) {});
  callback_options options;
  options.scope = plugin.get();
  callback<short(short)> half([](short n) { return n / 2; }, options, short{7});
  handle copy(half);
  static_cast<void>(copy.call<short(short)>(2));
  static_cast<void>(handle::adopt(handle(copy).release()) == copy);
  pin inside(half);
  static_cast<void>(inside(4));
  inside.leave();
  hold kept(half.get());
  kept.leave();

  callback on_number([](const int *) -> std::intptr_t { return 0; }, options);
  callback on_text([](std::string *) -> std::intptr_t { return 0; });
  hook place;
  static_cast<void>(place.set_once(on_number.get()));
  static_cast<void>(place.call(nullptr));
  bound_name name(plugin.get(), "name", half.get());
  attached_key key(0, 1, 2, half.get());
  queue loop(queue_options{});
  int number = 1;
  static_cast<void>(loop.post(on_number, number));
  static_cast<void>(loop.post(on_text, "text"));
  static_cast<void>(loop.call_on(on_text, static_cast<std::string *>(nullptr)));
  static_cast<void>(loop.dispatch(1, std::chrono::milliseconds(1)));
  loop.close(CBR_CLOSE_DISCARD);
  thunk plain([](int, const void *, int &) { return 1.5; }, callback_options(), CBR_THUNK_PERMANENT);
  thunk with_fallback(callback([](int n) { return n; }, {}, -1));
  thunk<short(short)> other(half);
  other.retarget(half);
  other.retarget(callback<short(short)>([](short n) { return n; }));
  static_cast<void>(other.get()(1));
  plain.close();
  thunk nothing([] {});
  plugin.close(forever);
}
