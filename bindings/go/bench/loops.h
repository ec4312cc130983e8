/* C's side of the benchmark: the loops that call Go. */
#ifndef CALLBRIDGE_GO_BENCH_LOOPS_H
#define CALLBRIDGE_GO_BENCH_LOOPS_H

#include <callbridge.h>

void loop_bare(uintptr_t number, long count);
void loop_cgo_handle(uintptr_t number, long count);
void loop_callbridge(cbr_handle handle, long count);
void loop_thunk(uintptr_t fn, long count);

#endif
