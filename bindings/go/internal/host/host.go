// Package host is a C library that calls back, on threads of its own: for tests and examples.
package host

// #cgo pkg-config: callbridge
// #include <stdlib.h>
// #include "host.h"
import "C"

import (
	"unsafe"

	"callbridge"
)

// Outcome is what C got of a call.
type Outcome struct {
	Status callbridge.Status
	Result int
	Words  string // cbr_last_error, if it failed
}

func outcome(it C.host_outcome) Outcome {
	return Outcome{callbridge.Status(it.status), int(it.result), C.GoString(&it.words[0])}
}

// Call calls the handle with cbr_call on this thread.
func Call(h callbridge.Handle, arg uintptr) Outcome {
	return outcome(C.host_call(C.cbr_handle(h), C.uintptr_t(arg)))
}

// CallOnThread calls it on a thread of C's own.
func CallOnThread(h callbridge.Handle, arg uintptr) Outcome {
	return outcome(C.host_call_on_thread(C.cbr_handle(h), C.uintptr_t(arg)))
}

// ReleaseOnThread gives C's reference back on a thread of C's own.
func ReleaseOnThread(h callbridge.Handle) callbridge.Status {
	return callbridge.Status(C.host_release_on_thread(C.cbr_handle(h)))
}

// UnregisterOnThread ends it on a thread of C's own.
func UnregisterOnThread(h callbridge.Handle) callbridge.Status {
	return callbridge.Status(C.host_unregister_on_thread(C.cbr_handle(h)))
}

// Callers are C threads that call until they are stopped.
type Callers struct{ it *C.host_callers }

// Counts is what the calls of C threads came to; of function pointers all count as OK.
type Counts struct{ OK, Stale, Other int }

// CallersOf starts threads that call the handle.
func CallersOf(threads int, h callbridge.Handle) Callers {
	return Callers{C.host_callers_start(C.int(threads), C.cbr_handle(h), 0, 0)}
}

// CallersInBursts starts threads that call the handle, and make a pause of a millisecond after every 16 calls.
func CallersInBursts(threads int, h callbridge.Handle) Callers {
	return Callers{C.host_callers_start(C.int(threads), C.cbr_handle(h), 0, 1_000_000)}
}

// CallersOfFunc starts threads that call the function pointer.
func CallersOfFunc(threads int, fn unsafe.Pointer) Callers {
	return Callers{C.host_callers_start(C.int(threads), 0, C.uintptr_t(uintptr(fn)), 0)}
}

func counts(it C.host_counts) Counts { return Counts{int(it.ok), int(it.stale), int(it.other)} }

// Now is what there was so far.
func (c Callers) Now() Counts { return counts(C.host_callers_now(c.it)) }

// Stop waits for the threads.
func (c Callers) Stop() Counts { return counts(C.host_callers_stop(c.it)) }

// Reading is the payload of a Poster's events.
type Reading struct{ Source, Number int64 }

// ReadingOf is the payload of an event.
func ReadingOf(data []byte) Reading { return *(*Reading)(unsafe.Pointer(unsafe.SliceData(data))) }

// Poster is a C thread that posts as fast as it can.
type Poster struct{ it *C.host_poster }

// Posted is what its posts came to.
type Posted struct{ OK, Full, Closed, Other int }

// StartPoster starts one.
func StartPoster(e *callbridge.Events, source, count int) Poster {
	return Poster{C.host_poster_start(C.cbr_queue(e.Queue()), C.cbr_handle(e.Handle()), C.int64_t(source), C.long(count))}
}

// Now is how many posts have returned.
func (p Poster) Now() int { return int(C.host_poster_now(p.it)) }

// Join waits for the thread.
func (p Poster) Join() Posted {
	it := C.host_poster_join(p.it)
	return Posted{int(it.ok), int(it.full), int(it.closed), int(it.other)}
}

// CallFunc calls an intptr_t (*)(void *).
func CallFunc(fn unsafe.Pointer, arg uintptr) int {
	return int(C.host_call_fn(C.uintptr_t(uintptr(fn)), C.uintptr_t(arg)))
}

// Sort is C's qsort of int32_t.
func Sort(compare unsafe.Pointer, items []int32) {
	C.host_sort(C.uintptr_t(uintptr(compare)), (*C.int32_t)(unsafe.SliceData(items)), C.size_t(len(items)))
}

// CallMixed calls a f64(i8,f64,u16,f32,bool,i64) with -1, 0.5, 65535, 0.25, true and the smallest int64.
func CallMixed(fn unsafe.Pointer) float64 {
	return float64(C.host_call_mixed(C.uintptr_t(uintptr(fn))))
}

// CallFloat calls a f32(f32).
func CallFloat(fn unsafe.Pointer, x float32) float32 {
	return float32(C.host_call_float(C.uintptr_t(uintptr(fn)), C.float(x)))
}

// CallSmall calls an i8(i8).
func CallSmall(fn unsafe.Pointer, x int8) int8 {
	return int8(C.host_call_small(C.uintptr_t(uintptr(fn)), C.int8_t(x)))
}

// CallVoid calls a void().
func CallVoid(fn unsafe.Pointer) { C.host_call_void(C.uintptr_t(uintptr(fn))) }

// CallRaw calls it as if it were a u64(u64), whatever it is.
func CallRaw(fn unsafe.Pointer, x uint64) uint64 {
	return uint64(C.host_call_raw(C.uintptr_t(uintptr(fn)), C.uint64_t(x)))
}

// EndInside enters the callback on a C thread that ends without leaving it. With unregister the thread has
// ended the callback before, with call it has called it before.
func EndInside(h callbridge.Handle, unregister, call bool) {
	C.host_end_inside(C.cbr_handle(h), C.bool(unregister), C.bool(call))
}

// CallWith calls the callback's C function with a user_data that is not its own.
func CallWith(h callbridge.Handle, userData uintptr) Outcome {
	return outcome(C.host_call_with(C.cbr_handle(h), C.uintptr_t(userData)))
}

// Hook is a cbr_hook in C's memory.
func Hook() callbridge.Hook { return callbridge.HookAt(unsafe.Pointer(C.host_hook())) }

// CallNamed finds the process's callback of that name and calls it.
func CallNamed(name string, arg uintptr) Outcome {
	it := C.CString(name)
	defer C.free(unsafe.Pointer(it))
	return outcome(C.host_call_named(it, C.uintptr_t(arg)))
}

// CallKey calls the callback of a key and event of a scope.
func CallKey(scope callbridge.Scope, key uintptr, event uint32, arg uintptr) Outcome {
	return outcome(C.host_call_key(C.cbr_scope(scope), C.uintptr_t(key), C.uint32_t(event), C.uintptr_t(arg)))
}
