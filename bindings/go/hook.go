package callbridge

// #include "bridge.h"
import "C"

import "unsafe"

// Hook is a place for one callback in C's memory: a cbr_hook, such as a global variable of a C library.
type Hook struct{ it unsafe.Pointer }

// HookAt is the cbr_hook at that address, which must be C's memory and stay.
func HookAt(hook unsafe.Pointer) Hook { return Hook{hook} }

// SetOnce puts the callback in if there is none: of several, the first wins, others get ErrExists. The
// hook adds a reference of its own.
func (k Hook) SetOnce(h Handle) error { return finish(C.cbrgo_hook_set_once(k.it, C.cbr_handle(h))) }

// Swap puts the callback in, or none if h is 0, and gives what was there with the hook's reference, which
// is the caller's to Release; 0 if there was none or it is gone.
func (k Hook) Swap(h Handle) (old Handle, err error) {
	r := C.cbrgo_hook_swap(k.it, C.cbr_handle(h))
	return Handle(r.value), finish(r)
}

// Call calls what is in the hook, see Handle.Call. ErrNotFound if nothing is, or it is gone.
func (k Hook) Call(arg unsafe.Pointer) (int, error) {
	r := C.cbrgo_hook_call(k.it, arg)
	return int(int64(r.value)), finish(r)
}
