/* The header by itself in C++17: compiled with INCLUDE_ONCE or INCLUDE_TWICE under -pedantic-errors.
 * header_c11.c asserts the layout; here is what C++ does differently. */
#include <callbridge.h>
#ifdef INCLUDE_TWICE
#include <callbridge.h>
#endif

#include <type_traits>

static_assert(std::is_standard_layout_v<cbr_pin> && std::is_trivial_v<cbr_pin>);
static_assert(std::is_standard_layout_v<cbr_callback_options>);
static_assert(std::is_same_v<cbr_status, int32_t>);
static_assert(std::is_same_v<cbr_handle, uint64_t>);
static_assert(std::is_same_v<decltype(cbr_call(0, nullptr, nullptr)), cbr_status>);
static_assert(std::is_same_v<decltype(cbr_is_live(0)), bool>);
static_assert(sizeof(void *) != 8 || sizeof(cbr_callback_options) == 96);
static_assert(sizeof(void *) != 8 || sizeof(cbr_pin) == 32);

static_assert(CBR_SIG(CBR_I32, CBR_PTR, CBR_PTR) == 0x27dd000000000000);
static_assert(CBR_SIG(CBR_VOID) == 0x0100000000000000);
static_assert(CBR_SIG(CBR_VOID, CBR_PTR, CBR_PTR, CBR_PTR, CBR_PTR, CBR_PTR, CBR_PTR, CBR_PTR,
                      CBR_PTR, CBR_PTR, CBR_PTR, CBR_PTR, CBR_PTR, CBR_PTR, CBR_PTR) ==
              0xe1dddddddddddddd);
static_assert(std::is_same_v<std::remove_cv_t<decltype(CBR_SIG(CBR_VOID))>, cbr_signature>);

template <cbr_signature S> struct signature_tag {
  static constexpr int arguments = static_cast<int>(S >> 60);
};
static_assert(signature_tag<CBR_SIG_DEFAULT>::arguments == 1);
constexpr char array_size[CBR_SIG(CBR_VOID) != 0 ? 1 : 2] = {};

int by_signature(cbr_signature signature);
int by_signature(cbr_signature signature) {
  switch (signature) {
    case CBR_SIG_DEFAULT: return 1;
    case CBR_SIG(CBR_VOID): return 2;
    default: return array_size[0];
  }
}

cbr_status use(cbr_handle *out);
cbr_status use(cbr_handle *out) {
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  options.fn = reinterpret_cast<cbr_any_fn>(by_signature);
  options.signature = CBR_SIG(CBR_INT, CBR_U64);
  /* A captureless lambda is a cbr_fn. */
  cbr_status status = cbr_register([](void *, void *arg) { return reinterpret_cast<intptr_t>(arg); },
                                   nullptr, nullptr, out);
  return status == CBR_OK ? cbr_register_with(&options, out) : status;
}

static_assert(std::is_standard_layout_v<cbr_hook> && std::is_trivial_v<cbr_hook>);
static_assert(sizeof(cbr_hook) == 8);
static cbr_hook hook_in_static_storage = CBR_HOOK_INIT;

cbr_status own(cbr_scope *out);
cbr_status own(cbr_scope *out) {
  cbr_hook local = CBR_HOOK_INIT;
  (void)cbr_hook_swap(&local, CBR_HANDLE_NONE, nullptr);
  (void)cbr_hook_call(&hook_in_static_storage, nullptr, nullptr);
  (void)cbr_scope_open(nullptr, out);
  return cbr_scope_set_thread_hooks(
      *out, [](void *) -> void * { return CBR_THREAD_NOT_OURS; }, [](void *, void *) {}, nullptr, nullptr);
}

static_assert(std::is_standard_layout_v<cbr_queue_options> && std::is_standard_layout_v<cbr_post_options>);
static_assert(sizeof(void *) != 8 || sizeof(cbr_queue_options) == 40);
static_assert(sizeof(void *) != 8 || sizeof(cbr_post_options) == 64);

cbr_status post(cbr_handle handle, cbr_queue *out);
cbr_status post(cbr_handle handle, cbr_queue *out) {
  cbr_queue_options options = CBR_QUEUE_OPTIONS_INIT;
  options.flags = CBR_QUEUE_OWNED | CBR_QUEUE_COALESCE;
  cbr_status status = cbr_queue_open(&options, out);
  cbr_post_options event = CBR_POST_OPTIONS_INIT;
  event.queue = *out;
  event.handle = handle;
  return status == CBR_OK ? cbr_post_with(&event) : status;
}
