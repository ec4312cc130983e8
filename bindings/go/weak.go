package callbridge

import (
	"runtime"
	"sync/atomic"
	"weak"
)

// errCollected is what calls get between the collection of a value and the end of its callback.
var errCollected = &Error{ErrStale, "stale: the Go value was collected"}

// NewWeak makes a callback of fn and value that does not keep value alive: C may hold and call it as long
// as it likes, and once Go has let go of the value and it is collected, C's calls are stale
// (CBR_ERR_STALE), whatever references C has. Go may end it sooner with Unregister.
//
// Each call gets the value, and keeps it alive until it returns; if fn refers to it in another way that
// must be weak, or it is never collected. Collection has two steps: a call that comes between them ends
// the callback and gets CBR_ERR_CALLBACK with the words "stale: the Go value was collected"; fn is not
// called.
func NewWeak[T any](value *T, fn func(value *T, arg Value) (int, error), options ...Option) (Handle, error) {
	if value == nil || fn == nil {
		return 0, &Error{ErrNull, "a weak callback needs a value and a function"}
	}
	pointer := weak.Make(value)
	r := newRegistration(func(arg Value) (int, error) {
		value := pointer.Value()
		if value == nil {
			_ = current().Unregister()
			return 0, errCollected
		}
		return fn(value, arg)
	}, options)
	// Before the registration, so that the callback's end, at any time after it, finds what to stop.
	number := new(atomic.Uint64)
	r.more.net = runtime.AddCleanup(value, func(number *atomic.Uint64) {
		_ = Handle(number.Load()).Unregister()
	}, number)
	h, err := r.register()
	number.Store(uint64(h))
	runtime.KeepAlive(value)
	return h, err
}
