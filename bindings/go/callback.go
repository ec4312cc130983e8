package callbridge

import (
	"runtime"
	"sync/atomic"
	"time"
	"unsafe"
)

// Callback is a Go function that C can call, owned by this object: it ends with Close, or, should that
// have been forgotten, when the object is unreachable. Exactly once, whichever comes first.
//
// The object has one reference of the callback. Close ends the callback for everybody; the net for what
// was forgotten gives back that reference alone, so that a C function which has called cbr_retain keeps
// what it uses.
//
// A function that refers to its own Callback keeps it reachable for ever: then only Close ends it.
type Callback struct {
	owner
}

// New makes a callback of fn that ends with the object. Give C its Handle; what C calls after the end
// gets CBR_ERR_STALE. `defer c.Close()` keeps the object reachable until then.
func New(fn Func, options ...Option) (*Callback, error) {
	return own(Register(fn, options...))
}

// NewTyped is New for a function of another signature, see RegisterTyped.
func NewTyped(signature string, fn TypedFunc, options ...Option) (*Callback, error) {
	return own(RegisterTyped(signature, fn, options...))
}

func own(h Handle, err error) (*Callback, error) {
	if err != nil {
		return nil, err
	}
	c := &Callback{owner{handle: h}}
	c.net = runtime.AddCleanup(c, func(h Handle) { _ = h.Release() }, h)
	return c, nil
}

// owner is what Go objects that end a callback have in common.
type owner struct {
	handle Handle
	closed atomic.Bool
	net    runtime.Cleanup
}

// Handle is the callback's number, for C. It does not keep the object reachable.
func (o *owner) Handle() Handle { return o.handle }

// Call calls the callback, see Handle.Call.
func (o *owner) Call(arg unsafe.Pointer) (int, error) {
	defer runtime.KeepAlive(o)
	return o.handle.Call(arg)
}

// CallValue calls the callback, see Handle.CallValue.
func (o *owner) CallValue(arg Value) (int, error) {
	defer runtime.KeepAlive(o)
	return o.handle.CallValue(arg)
}

// Close ends the callback for everybody. No new call starts after it returns; calls in flight finish,
// then the destroy function runs. Inside the callback it returns at once. Closed again it does nothing.
func (o *owner) Close() error {
	if !o.closed.CompareAndSwap(false, true) {
		return nil
	}
	o.net.Stop()
	return gone(o.handle.Unregister())
}

// CloseWait is Close, and returns when the destroy function has run. See Handle.UnregisterWait for the
// timeout, ErrTimeout and ErrDeadlock; after those it may be called again.
func (o *owner) CloseWait(timeout time.Duration) error {
	if o.closed.CompareAndSwap(false, true) {
		o.net.Stop()
	}
	return gone(o.handle.UnregisterWait(timeout))
}

// gone makes nothing of ErrStale: somebody else has ended it, which is what is asked for.
func gone(err error) error {
	if e, ok := err.(*Error); ok && e.Status == ErrStale {
		return nil
	}
	return err
}
