package callbridge

// #include "bridge.h"
import "C"

// Option says more of a callback at its registration.
type Option func(*registration)

// WithName names the callback for logs, reports and metrics: at most 255 bytes of UTF-8.
func WithName(name string) Option { return func(r *registration) { r.name = name } }

// WithScope makes the callback the scope's: closing that ends it. One of a registry is the registry's, a
// singleton the process's.
func WithScope(scope Scope) Option { return func(r *registration) { r.c.scope = C.cbr_scope(scope) } }

// WithDestroy has destroy run once, when nobody is inside the callback any more and nobody can enter it:
// on the goroutine or C thread that ends the last use. If the registration fails it does not run. A panic
// in it is logged by the library.
func WithDestroy(destroy func()) Option {
	return func(r *registration) { r.more.destroy = destroy }
}

// WithOnError has onError told of every call that ends with an error or a panic, on the thread of the
// call. A panic in it is dropped.
func WithOnError(onError func(error)) Option {
	return func(r *registration) { r.more.onError = onError }
}

// WithFallback is what thunks and cbr_call_ptr return when the callback cannot run or fails. 0 otherwise.
func WithFallback(v Value) Option { return func(r *registration) { r.c.fallback = C.uint64_t(v) } }

// Metered has calls, failures and durations of the callback counted, for Metrics and Report.
func Metered() Option { return func(r *registration) { r.c.flags |= C.CBR_METERED } }

// registration is a callback on its way to C.
type registration struct {
	call Func
	more more
	name string
	c    C.cbrgo_registration
}

// register makes it a callback. When it fails nothing has changed, and destroy does not run.
func (r *registration) register() (Handle, error) {
	if r.call == nil && r.more.typed == nil {
		return 0, errNoFunction
	}
	id := functions.add(function{r.call, &r.more})
	if id == 0 {
		return 0, errTooMany
	}
	name, free := cString(r.name)
	defer free()
	r.c.id, r.c.name = C.uintptr_t(id), name
	r.c.tells_destroy, r.c.tells_errors = C.bool(r.more.destroy != nil), C.bool(r.more.onError != nil)
	result := C.cbrgo_register(r.c)
	if result.status != C.CBR_OK {
		r.more.destroy = nil // finish forgets it
	}
	return Handle(result.value), finish(result)
}

// registerPlain is register of nothing but a Func, which is most of them.
func registerPlain(call Func) (Handle, error) {
	if call == nil {
		return 0, errNoFunction
	}
	id := functions.add(function{call, nil})
	if id == 0 {
		return 0, errTooMany
	}
	result := C.cbrgo_register_plain(C.uintptr_t(id))
	return Handle(result.value), finish(result)
}

var (
	errNoFunction = &Error{ErrNull, "a callback needs a function"}
	errTooMany    = &Error{ErrLimit, "there are 2^24 Go functions"}
)

// newRegistration is that of a Func.
func newRegistration(call Func, options []Option) *registration {
	r := &registration{call: call}
	for _, option := range options {
		option(r)
	}
	return r
}

// newTyped is that of a TypedFunc.
func newTyped(signature string, fn TypedFunc, options []Option) (*registration, error) {
	s, err := ParseSignature(signature)
	if err != nil {
		return nil, err
	}
	shape, err := shapeOf(s)
	if err != nil {
		return nil, err
	}
	r := &registration{more: more{typed: fn, shape: shape}}
	r.c.signature, r.c.shape = C.cbr_signature(s), C.CBRGO_TYPED
	if shape.result.isFloat() {
		r.c.shape = C.CBRGO_TYPED_FLOAT
	}
	for _, option := range options {
		option(r)
	}
	return r, nil
}
