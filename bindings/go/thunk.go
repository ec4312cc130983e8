package callbridge

// #include "bridge.h"
import "C"

import (
	"runtime"
	"sync/atomic"
	"unsafe"
)

// Thunk is a plain C function pointer that carries a callback, for C interfaces that take a function and
// no void pointer, such as qsort. It has a reference of the callback.
//
// Called when its callback is gone or fails, and for ever after Close, the function returns the callback's
// fallback (WithFallback): never a crash.
type Thunk struct {
	number C.cbr_thunk
	fn     uintptr
	closed atomic.Bool
	net    runtime.Cleanup
}

// NewThunk makes a function pointer of a callback of the default signature: intptr_t (*)(void *).
//
// It ends with Close, or when the object is unreachable; `defer t.Close()` keeps it reachable until then.
func NewThunk(h Handle) (*Thunk, error) { return NewThunkOf(DefaultSignature, h) }

// NewThunkOf is NewThunk for a callback of another signature: the one that it was registered with, else
// ErrSignature.
func NewThunkOf(signature Signature, h Handle) (*Thunk, error) {
	t, err := openThunk(signature, h, 0)
	if err == nil {
		t.net = runtime.AddCleanup(t, func(number C.cbr_thunk) { _ = finish(C.cbrgo_thunk_close(number)) }, t.number)
	}
	return t, err
}

// NewPermanentThunk is NewThunkOf for C interfaces that never let go of a function, such as atexit: only
// Close ends it, and its address never serves another thunk.
func NewPermanentThunk(signature Signature, h Handle) (*Thunk, error) {
	return openThunk(signature, h, C.CBR_THUNK_PERMANENT)
}

func openThunk(signature Signature, h Handle, flags C.uint32_t) (*Thunk, error) {
	r := C.cbrgo_thunk_open(C.cbr_handle(h), C.cbr_signature(signature), flags)
	if err := finish(r); err != nil {
		return nil, err
	}
	return &Thunk{number: C.cbr_thunk(r.value), fn: uintptr(r.ids[0])}, nil
}

// Func is the function, to be passed to C. It does not keep the object reachable.
func (t *Thunk) Func() unsafe.Pointer { return Value(t.fn).Pointer() }

// Retarget has the function carry another callback of the same signature, and its fallback. A call that
// meets it runs the old one or the new one.
func (t *Thunk) Retarget(h Handle) error {
	defer runtime.KeepAlive(t)
	return finish(C.cbrgo_thunk_retarget(t.number, C.cbr_handle(h)))
}

// Close has the function return its fallback from now on, also inside its own call; calls in flight
// finish. It gives the reference of the callback back. Closed again it does nothing.
func (t *Thunk) Close() error {
	if !t.closed.CompareAndSwap(false, true) {
		return nil
	}
	t.net.Stop()
	return gone(finish(C.cbrgo_thunk_close(t.number)))
}
