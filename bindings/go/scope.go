package callbridge

// #include "bridge.h"
import "C"

import "time"

// Scope is an owner of callbacks, names and keys: a plugin, a connection, a module.
type Scope uint64

// DefaultScope is the process's, which is always open.
const DefaultScope Scope = 0

// OpenScope makes a scope, to be ended with Close. The name is for logs.
func OpenScope(name string) (Scope, error) {
	it, free := cString(name)
	defer free()
	r := C.cbrgo_scope_open(it)
	return Scope(r.value), finish(r)
}

// Close ends the scope and everything it owns: no new call starts, calls in flight are awaited, destroy
// functions run. A timeout below 0 waits for ever. running is how many callbacks are not done.
//
// nil: no callback of the scope runs any more. ErrTimeout, or ErrDeadlock from inside one of its
// callbacks: everything is revoked, and Close may be called again to wait on.
func (s Scope) Close(timeout time.Duration) (running int, err error) {
	r := C.cbrgo_scope_close(C.cbr_scope(s), nanoseconds(timeout))
	return int(r.value), finish(r)
}

// Drain waits until the destroy functions of the scope's callbacks that have ended have returned.
func (s Scope) Drain(timeout time.Duration) error {
	return finish(C.cbrgo_scope_drain(C.cbr_scope(s), nanoseconds(timeout)))
}

// Find gives the callback of that name in the scope. ErrNotFound if there is none, or it is gone.
func (s Scope) Find(name string) (Handle, error) {
	it, free := cString(name)
	defer free()
	r := C.cbrgo_name_find(C.cbr_scope(s), it)
	return Handle(r.value), finish(r)
}

// Bind gives the callback a name, which adds a reference. ErrExists if there is one and replace is false.
func (s Scope) Bind(name string, h Handle, replace bool) error {
	it, free := cString(name)
	defer free()
	return finish(C.cbrgo_name_bind(C.cbr_scope(s), it, C.cbr_handle(h), mode(replace)))
}

// Unbind takes the name away.
func (s Scope) Unbind(name string) error {
	it, free := cString(name)
	defer free()
	return finish(C.cbrgo_name_unbind(C.cbr_scope(s), it))
}

func mode(replace bool) C.uint32_t {
	if replace {
		return C.CBR_BIND_REPLACE
	}
	return C.CBR_BIND_ONCE
}
