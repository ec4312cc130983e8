/* The smallest real user of the library: one callback, from registration to destroy. */
#include <callbridge.h>
#include <stdio.h>

static intptr_t add(void *user_data, void *arg) { return *(int *)user_data + *(int *)arg; }
static void mark_destroyed(void *user_data) { *(int *)user_data = -1; }

int main(void) {
  int base = 40, two = 2;
  intptr_t sum = 0;
  cbr_handle handle = CBR_HANDLE_NONE;
  if (cbr_register(add, &base, mark_destroyed, &handle) != CBR_OK) return 1;
  if (cbr_call(handle, &two, &sum) != CBR_OK || sum != 42) return 2;
  if (cbr_unregister(handle) != CBR_OK || base != -1) return 3;
  if (cbr_call(handle, &two, &sum) != CBR_ERR_STALE) return 4;
  printf("callbridge %s: %d\n", cbr_version_string(), (int)sum);
  return 0;
}
