package callbridge

// #include "bridge.h"
import "C"

import (
	"time"
	"unsafe"
)

// Handle is the number of a callback, C's cbr_handle, whoever registered it. It never dangles: used after
// its callback is gone it gives ErrStale, used for another kind of object ErrKind, made up ErrStale.
//
// Holding one is not owning the callback; Retain makes an owner. All methods may be used on any
// goroutine, also inside the callback.
type Handle uint64

// Register makes a callback of fn and gives its number with one reference, the caller's: to be given back
// with Release, or ended for everybody with Unregister, by Go or by C. Until then, and as long as a call
// is inside, fn and what it refers to are kept alive.
//
// This is the way for C interfaces that say when they let go. New has a net below it, NewOwned a value.
func Register(fn Func, options ...Option) (Handle, error) {
	if len(options) == 0 {
		return registerPlain(fn)
	}
	return newRegistration(fn, options).register()
}

// RegisterTyped is Register for a function of another signature, such as "i32(ptr,ptr)". Its arguments
// must fit in registers, else ErrUnsupported: 5 integers and pointers and 8 floating point numbers on
// x86-64, 7 and 8 on 64-bit ARM. C calls it through a thunk, or with cbr_enter.
func RegisterTyped(signature string, fn TypedFunc, options ...Option) (Handle, error) {
	r, err := newTyped(signature, fn, options)
	if err != nil {
		return 0, err
	}
	return r.register()
}

// Call calls the callback, which has to be of the default signature, with arg. A pointer to Go memory is
// fine if what it points to has no pointers to Go memory in it that are not pinned.
//
// ErrStale: it was not entered. ErrCallback, ErrPanic: it ran and failed, and the error has the text.
func (h Handle) Call(arg unsafe.Pointer) (int, error) {
	r := C.cbrgo_call(C.cbr_handle(h), arg)
	return int(int64(r.value)), finish(r)
}

// CallValue is Call with an argument that need not be a pointer.
func (h Handle) CallValue(arg Value) (int, error) {
	r := C.cbrgo_call_number(C.cbr_handle(h), C.uintptr_t(arg))
	return int(int64(r.value)), finish(r)
}

// Unregister ends the callback for everybody, whatever the number of references. No new call starts after
// it returns, calls in flight finish, then its destroy function runs. ErrStale if it is gone already.
func (h Handle) Unregister() error {
	return finish(C.cbrgo_unregister(C.cbr_handle(h)))
}

// UnregisterWait is Unregister, and returns when the destroy function has run. A timeout below 0 waits
// for ever. ErrDeadlock at once if the wait could never end, such as inside the callback; then, and with
// ErrTimeout, the callback is unregistered all the same and UnregisterWait may be called again.
func (h Handle) UnregisterWait(timeout time.Duration) error {
	return finish(C.cbrgo_unregister_wait(C.cbr_handle(h), nanoseconds(timeout)))
}

// Retain adds a reference, to be given back with Release.
func (h Handle) Retain() error {
	return finish(C.cbrgo_retain(C.cbr_handle(h)))
}

// Release gives a reference back. The last one ends the callback as Unregister does.
func (h Handle) Release() error {
	return finish(C.cbrgo_release(C.cbr_handle(h)))
}

// References is how many there are, for diagnosis: it may have changed already.
func (h Handle) References() (int, error) {
	r := C.cbrgo_refcount(C.cbr_handle(h))
	return int(r.value), finish(r)
}

// IsLive says whether a call is possible now. It may have changed already.
func (h Handle) IsLive() bool { return bool(C.cbr_is_live(C.cbr_handle(h))) }

// nanoseconds is a timeout for C; what is below 0 waits for ever.
func nanoseconds(timeout time.Duration) C.int64_t {
	return C.int64_t(max(timeout, -1))
}

// current is the callback that this goroutine is inside, the innermost one.
func current() Handle { return Handle(C.cbr_current()) }
