package callbridge

// #include "bridge.h"
import "C"

import (
	"sync/atomic"
	"time"
	"unsafe"
)

// Registry is callbacks by key and event, such as a connection's number and what may happen to it, for
// many goroutines and C threads at once. What has been called before is found without a lock. C calls
// them with cbr_key_call(scope, key, event, arg, &result).
//
// It lives until Close: C may know it by its Scope alone.
type Registry struct {
	scope  Scope
	closed atomic.Bool
}

// NewRegistry makes a registry; the name is for logs and metrics.
func NewRegistry(name string) (*Registry, error) {
	scope, err := OpenScope(name)
	if err != nil {
		return nil, err
	}
	return &Registry{scope: scope}, nil
}

// Scope is the registry's number, for C.
func (r *Registry) Scope() Scope { return r.scope }

// Register puts fn in. The key has the only reference, so that Unregister ends it, unless C adds one.
// ErrExists if there is one; nothing has changed then. ErrClosed or ErrStale after Close.
func (r *Registry) Register(key uintptr, event uint32, fn Func, options ...Option) (Handle, error) {
	return r.attach(key, event, C.CBR_BIND_ONCE, fn, options)
}

// Replace is Register in the place of what is there. A call that meets it runs the old one or the new one.
func (r *Registry) Replace(key uintptr, event uint32, fn Func, options ...Option) (Handle, error) {
	return r.attach(key, event, C.CBR_BIND_REPLACE, fn, options)
}

func (r *Registry) attach(key uintptr, event uint32, mode C.uint32_t, fn Func, options []Option) (Handle, error) {
	it := newRegistration(fn, options)
	it.c.bind, it.c.mode = C.CBRGO_BIND_KEY, mode
	it.c.scope, it.c.key, it.c.event = C.cbr_scope(r.scope), C.uintptr_t(key), C.uint32_t(event)
	return it.register()
}

// Call calls the callback of that key and event, see Handle.Call. ErrNotFound if there is none.
func (r *Registry) Call(key uintptr, event uint32, arg unsafe.Pointer) (int, error) {
	it := C.cbrgo_key_call(C.cbr_scope(r.scope), C.uintptr_t(key), C.uint32_t(event), arg)
	return int(int64(it.value)), finish(it)
}

// Find gives the callback of that key and event. ErrNotFound if there is none.
func (r *Registry) Find(key uintptr, event uint32) (Handle, error) {
	it := C.cbrgo_key_find(C.cbr_scope(r.scope), C.uintptr_t(key), C.uint32_t(event))
	return Handle(it.value), finish(it)
}

// Unregister takes the callback of that key and event out. If C has no reference of it that ends it: calls
// in flight finish, then its destroy function runs. ErrNotFound if there is none.
func (r *Registry) Unregister(key uintptr, event uint32) error {
	return finish(C.cbrgo_key_detach(C.cbr_scope(r.scope), C.uintptr_t(key), C.uint32_t(event)))
}

// UnregisterAll takes the callbacks of all events of a key out, such as those of a connection that is gone,
// and says how many there were.
func (r *Registry) UnregisterAll(key uintptr) (int, error) {
	it := C.cbrgo_key_detach_all(C.cbr_scope(r.scope), C.uintptr_t(key))
	return int(it.value), finish(it)
}

// Close ends every callback in it, whoever has references, and waits for calls in flight; see Scope.Close
// for the timeout, ErrTimeout and ErrDeadlock, after which it may be called again. Closed again it does
// nothing.
func (r *Registry) Close(timeout time.Duration) error {
	if r.closed.Load() {
		return nil
	}
	_, err := r.scope.Close(timeout)
	err = gone(err)
	if err == nil {
		r.closed.Store(true)
	}
	return err
}
