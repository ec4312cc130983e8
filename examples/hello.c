/* The smallest callbridge program: register, call, unregister; what comes too late is refused. */
#include <callbridge.h>
#include <stdio.h>
#include <stdlib.h>

static intptr_t add(void *user_data, void *arg) { return *(int *)user_data += *(int *)arg; }

int main(void) {
  int *total = calloc(1, sizeof *total), step = 21;
  cbr_handle handle;
  intptr_t result = 0;
  /* From here on free(total) is the library's to call. */
  if (!total || cbr_register(add, total, free, &handle) != CBR_OK) return 1;
  cbr_call(handle, &step, &result);
  cbr_call(handle, &step, &result);
  cbr_unregister(handle); /* total is freed here, or by the last call that still runs */
  cbr_status late = cbr_call(handle, &step, &result);
  printf("result %d, then %s\n", (int)result, cbr_status_name(late));
  return result == 42 && late == CBR_ERR_STALE ? 0 : 1;
}
