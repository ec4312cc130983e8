/* Static callbacks of which some have their address taken; the others must not survive a link with
 * --gc-sections, and the library's own functions must. scripts/symbols reads the names. */
#include <callbridge.h>
#include <stdio.h>

#define CALLBACK(name, value)                               \
  static intptr_t name(void *user_data, void *arg) {        \
    *(int *)user_data += 1;                                 \
    return (intptr_t)arg + (value);                         \
  }

CALLBACK(taken_by_register, 1)
CALLBACK(taken_by_a_pointer, 2)
CALLBACK(table_first, 3)
CALLBACK(table_second, 4)
CALLBACK(never_registered, 5)
CALLBACK(never_registered_either, 6)
CALLBACK(unused_table_only, 7)

/* Called directly: that is no address, and the compiler may inline it, but nothing calls this one. */
static intptr_t never_called_caller(void) {
  int calls = 0;
  return never_registered(&calls, NULL);
}

static void taken_by_destroy(void *user_data) { *(int *)user_data += 100; }

static const cbr_fn table[] = {table_first, table_second};
/* A table that nothing reads keeps nothing. */
static const cbr_fn unused_table[] = {unused_table_only};

static intptr_t call_once(cbr_fn fn) {
  int count = 0;
  intptr_t result = 0;
  cbr_handle handle;
  if (cbr_register(fn, &count, taken_by_destroy, &handle) != CBR_OK) return -1;
  if (cbr_call(handle, (void *)(intptr_t)10, &result) != CBR_OK) return -1;
  if (cbr_unregister(handle) != CBR_OK || count != 101) return -1;
  return result;
}

int main(void) {
  cbr_fn volatile pointer = taken_by_a_pointer;
  intptr_t results[] = {call_once(taken_by_register), call_once(pointer), call_once(table[0]),
                        call_once(table[1])};
  for (int i = 0; i < 4; i++) {
    if (results[i] != 11 + i) {
      fprintf(stderr, "callback %d returned %d\n", i, (int)results[i]);
      return 1;
    }
  }
  return 0;
}
