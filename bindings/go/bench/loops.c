#include "loops.h"
#include "_cgo_export.h"
#include <stdlib.h>

/* The address of what is counted up, as a C host would pass its own data. */
static long counter;

void loop_bare(uintptr_t number, long count) {
  for (long i = 0; i < count; i++) (void)go_bare(number, (uintptr_t)&counter);
}

void loop_cgo_handle(uintptr_t number, long count) {
  for (long i = 0; i < count; i++) (void)go_cgo_handle(number, (uintptr_t)&counter);
}

void loop_callbridge(cbr_handle handle, long count) {
  intptr_t result;
  for (long i = 0; i < count; i++)
    if (cbr_call(handle, &counter, &result) != CBR_OK) abort();
}

void loop_thunk(uintptr_t fn, long count) {
  intptr_t (*call)(void *) = (intptr_t (*)(void *))fn;
  for (long i = 0; i < count; i++) (void)call(&counter);
}
