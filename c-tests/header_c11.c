/* The header by itself in C11: compiled with INCLUDE_ONCE or INCLUDE_TWICE under -pedantic-errors.
 * What the ABI promises is asserted at compile time. */
#include <callbridge.h>
#ifdef INCLUDE_TWICE
#include <callbridge.h>
#endif

#define SAME(left, right) _Static_assert((left) == (right), #left " == " #right)
#define AT(type, field, offset) SAME(offsetof(type, field), offset)

SAME(CALLBRIDGE_VERSION_MAJOR, 0);
SAME(CALLBRIDGE_VERSION_MINOR, 1);
SAME(CALLBRIDGE_VERSION_PATCH, 0);
SAME(sizeof(CALLBRIDGE_VERSION_STRING), sizeof("0.1.0"));

/* --- status ------------------------------------------------------------------------------ */

SAME(sizeof(cbr_status), 4);
SAME(CBR_OK, 0);
SAME(CBR_ERR_NULL, -1);
SAME(CBR_ERR_PANIC, -2);
SAME(CBR_ERR_STALE, -3);
SAME(CBR_ERR_INVALID, -4);
SAME(CBR_ERR_KIND, -5);
SAME(CBR_ERR_SIGNATURE, -6);
SAME(CBR_ERR_THREAD, -7);
SAME(CBR_ERR_DEADLOCK, -8);
SAME(CBR_ERR_TIMEOUT, -9);
SAME(CBR_ERR_FULL, -10);
SAME(CBR_ERR_EMPTY, -11);
SAME(CBR_ERR_CLOSED, -12);
SAME(CBR_ERR_EXISTS, -13);
SAME(CBR_ERR_NOT_FOUND, -14);
SAME(CBR_ERR_LIMIT, -15);
SAME(CBR_ERR_NOMEM, -16);
SAME(CBR_ERR_SYSTEM, -17);
SAME(CBR_ERR_UNSUPPORTED, -18);
SAME(CBR_ERR_CALLBACK, -19);
#if CBR_ERR_STALE != -3 || CBR_OK
#error "status codes must work in the preprocessor"
#endif

/* --- types ------------------------------------------------------------------------------- */

SAME(sizeof(cbr_handle), 8);
SAME(sizeof(cbr_scope), 8);
SAME(sizeof(cbr_queue), 8);
SAME(sizeof(cbr_signature), 8);
SAME(sizeof(cbr_value), 8);
SAME(CBR_HANDLE_NONE, 0);

AT(cbr_value, i, 0);
AT(cbr_value, u, 0);
AT(cbr_value, f64, 0);
AT(cbr_value, f32, 0);
AT(cbr_value, ptr, 0);

#if UINTPTR_MAX == UINT64_MAX
SAME(sizeof(cbr_pin), 32);
AT(cbr_pin, fn, 0);
AT(cbr_pin, user_data, 8);
AT(cbr_pin, reserved, 16);

SAME(sizeof(cbr_callback_options), 96);
AT(cbr_callback_options, size, 0);
AT(cbr_callback_options, fn, 8);
AT(cbr_callback_options, user_data, 16);
AT(cbr_callback_options, destroy, 24);
AT(cbr_callback_options, signature, 32);
AT(cbr_callback_options, name, 40);
AT(cbr_callback_options, scope, 48);
AT(cbr_callback_options, home, 56);
AT(cbr_callback_options, destroy_queue, 64);
AT(cbr_callback_options, flags, 72);
AT(cbr_callback_options, on_error, 80);
AT(cbr_callback_options, fallback, 88);

SAME(sizeof(cbr_queue_options), 40);
AT(cbr_queue_options, name, 8);
AT(cbr_queue_options, scope, 16);
AT(cbr_queue_options, capacity, 24);
AT(cbr_queue_options, policy, 32);
AT(cbr_queue_options, flags, 36);

SAME(sizeof(cbr_event), 48);
SAME(sizeof(cbr_stats), 136);
SAME(sizeof(cbr_callback_info), 136);
AT(cbr_event, handle, 0);
AT(cbr_event, data, 8);
AT(cbr_event, len, 16);
AT(cbr_event, queue, 24);
AT(cbr_event, posted_ns, 32);
AT(cbr_event, traceparent, 40);

SAME(sizeof(cbr_post_options), 64);
AT(cbr_post_options, queue, 8);
AT(cbr_post_options, handle, 16);
AT(cbr_post_options, data, 24);
AT(cbr_post_options, len, 32);
AT(cbr_post_options, free_data, 40);
AT(cbr_post_options, owner, 48);
AT(cbr_post_options, timeout_ns, 56);
#endif

/* --- queues ------------------------------------------------------------------------------- */

SAME(CBR_QUEUE_REJECT, 0);
SAME(CBR_QUEUE_DROP_OLDEST, 1);
SAME(CBR_QUEUE_BLOCK, 2);
SAME(CBR_QUEUE_COALESCE, 1);
SAME(CBR_QUEUE_OWNED, 2);
SAME(CBR_CLOSE_DRAIN, 0);
SAME(CBR_CLOSE_DISCARD, 1);

/* --- signatures: bits 63..60 count, 59..56 return type, 4 bits an argument from 55 down ---- */

SAME(CBR_VOID, 1);
SAME(CBR_BOOL, 2);
SAME(CBR_I8, 3);
SAME(CBR_U8, 4);
SAME(CBR_I16, 5);
SAME(CBR_U16, 6);
SAME(CBR_I32, 7);
SAME(CBR_U32, 8);
SAME(CBR_I64, 9);
SAME(CBR_U64, 10);
SAME(CBR_F32, 11);
SAME(CBR_F64, 12);
SAME(CBR_PTR, 13);
SAME(CBR_INT, sizeof(int) == 4 ? CBR_I32 : CBR_I16);
SAME(CBR_LONG, sizeof(long) == 8 ? CBR_I64 : CBR_I32);
SAME(CBR_SIZE, sizeof(size_t) == 8 ? CBR_U64 : CBR_U32);
SAME(CBR_INTPTR, sizeof(intptr_t) == 8 ? CBR_I64 : CBR_I32);

SAME(CBR_SIG(CBR_VOID), 0x0100000000000000);
SAME(CBR_SIG(CBR_F64), 0x0c00000000000000);
SAME(CBR_SIG(CBR_VOID, CBR_I8), 0x1130000000000000);
SAME(CBR_SIG(CBR_I32, CBR_PTR, CBR_PTR), 0x27dd000000000000);
SAME(CBR_SIG(CBR_U8, CBR_BOOL, CBR_I8, CBR_U8, CBR_I16, CBR_U16, CBR_I32, CBR_U32, CBR_I64,
             CBR_U64, CBR_F32, CBR_F64, CBR_PTR),
     0xc423456789abcd00);
SAME(CBR_SIG(CBR_PTR, CBR_BOOL, CBR_I8, CBR_U8, CBR_I16, CBR_U16, CBR_I32, CBR_U32, CBR_I64,
             CBR_U64, CBR_F32, CBR_F64, CBR_PTR, CBR_BOOL, CBR_I8),
     0xed23456789abcd23);
SAME(CBR_SIG_DEFAULT, CBR_SIG(CBR_INTPTR, CBR_PTR));
/* Its type does not depend on the values: a cbr_signature, everywhere. */
SAME(sizeof(CBR_SIG(CBR_VOID)), sizeof(cbr_signature));
_Static_assert(_Generic(CBR_SIG(CBR_VOID), cbr_signature: 1, default: 0), "CBR_SIG is a cbr_signature");

/* Everywhere where C wants a constant expression. */
extern char array_size[CBR_SIG(CBR_VOID, CBR_PTR) == 0x11d0000000000000 ? 1 : -1];
struct bit_field {
  unsigned flag : CBR_SIG(CBR_VOID) != 0;
};
static const cbr_signature at_file_scope = CBR_SIG(CBR_VOID, CBR_U32);

int by_signature(cbr_signature signature);
int by_signature(cbr_signature signature) {
  switch (signature) {
    case CBR_SIG_DEFAULT:
      return 1;
    case CBR_SIG(CBR_VOID):
      return 2;
    case CBR_SIG(CBR_VOID, CBR_PTR):
      return 3;
    default:
      return signature == at_file_scope;
  }
}

/* --- the initialiser and the function types ---------------------------------------------- */

intptr_t callback(void *user_data, void *arg);
int compare(const void *left, const void *right);

cbr_status use(cbr_handle *out);
cbr_status use(cbr_handle *out) {
  static const cbr_callback_options constant = CBR_CALLBACK_OPTIONS_INIT;
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  options.fn = (cbr_any_fn)compare;
  options.signature = CBR_SIG(CBR_INT, CBR_PTR);
  options.fallback.f64 = 0.5;
  (void)cbr_register_with(&constant, out);
  (void)cbr_register(callback, CBR_TO_PTR(*out), cbr_release_ptr, out);
  return cbr_register_with(&options, out);
}

/* --- hooks, scopes, bindings --------------------------------------------------------------- */

SAME(sizeof(cbr_hook), 8);
SAME(CBR_PIN_MODULE, 2);
SAME(CBR_BIND_ONCE, 0);
SAME(CBR_BIND_REPLACE, 1);

static cbr_hook hook_in_static_storage = CBR_HOOK_INIT;

void *attach(void *user_data);
void detach(void *user_data, void *token);

cbr_status own(cbr_scope *out);
cbr_status own(cbr_scope *out) {
  cbr_thread_attach_fn attach_function = attach;
  cbr_thread_detach_fn detach_function = detach;
  cbr_hook local = CBR_HOOK_INIT;
  (void)cbr_hook_call(&hook_in_static_storage, CBR_THREAD_NOT_OURS, NULL);
  (void)cbr_hook_swap(&local, CBR_HANDLE_NONE, NULL);
  (void)cbr_scope_open("name", out);
  return cbr_scope_set_thread_hooks(*out, attach_function, detach_function, NULL, NULL);
}

/* --- queues' initialisers ----------------------------------------------------------------- */

cbr_status post(cbr_handle handle, cbr_queue *out);
cbr_status post(cbr_handle handle, cbr_queue *out) {
  cbr_queue_options options = CBR_QUEUE_OPTIONS_INIT;
  cbr_post_options event = CBR_POST_OPTIONS_INIT;
  options.policy = CBR_QUEUE_DROP_OLDEST;
  event.handle = handle;
  return cbr_queue_open(&options, out) == CBR_OK ? cbr_post_with(&event) : CBR_ERR_INVALID;
}
