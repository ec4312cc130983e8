package callbridge

// #include "bridge.h"
import "C"

import "runtime"

// Singleton is the one callback of its name in the process, which C finds with
// cbr_name_find(0, name, &handle) and Go with DefaultScope.Find. It ends with Close, or when the object is
// unreachable; then the name is free again and calls through handles that C has kept give CBR_ERR_STALE.
type Singleton struct {
	owner
}

// NewSingleton makes fn the process's callback of that name. The first wins: ErrExists while another one
// is there, and then nothing has changed.
//
// The object owns it, as a Callback's does, but its end is everybody's end however it comes: a process has
// one such callback or none.
func NewSingleton(name string, fn Func, options ...Option) (*Singleton, error) {
	r := newRegistration(fn, options)
	bound, free := cString(name)
	defer free()
	r.c.bind, r.c.bound_name, r.c.mode = C.CBRGO_BIND_NAME, bound, C.CBR_BIND_ONCE
	r.c.scope = C.cbr_scope(DefaultScope)
	h, err := r.register()
	if err != nil {
		return nil, err
	}
	s := &Singleton{owner{handle: h}}
	s.net = runtime.AddCleanup(s, func(h Handle) { _ = h.Unregister() }, h)
	return s, nil
}
