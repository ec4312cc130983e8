package callbridge

import "weak"

// Owned is a callback whose references are C's, and the Go value behind it, which Go holds weakly. C's
// last cbr_release, or a cbr_unregister, frees the value.
type Owned[T any] struct {
	handle Handle
	value  weak.Pointer[T]
}

// NewOwned makes a callback of fn and value and gives C the only reference of it: C ends it with
// cbr_release or cbr_unregister (or cbr_release_ptr as the destroy function beside a void pointer), and
// its destroy function runs there. As long as C has a reference, or a call is inside, value lives, whether
// Go still refers to it or not; afterwards it is the garbage collector's.
//
// Each call gets the value; if fn refers to it in another way that must be weak, or nothing is freed.
func NewOwned[T any](value *T, fn func(value *T, arg Value) (int, error), options ...Option) (Owned[T], error) {
	if value == nil || fn == nil {
		return Owned[T]{}, &Error{ErrNull, "an owned callback needs a value and a function"}
	}
	h, err := Register(func(arg Value) (int, error) { return fn(value, arg) }, options...)
	if err != nil {
		return Owned[T]{}, err
	}
	return Owned[T]{h, weak.Make(value)}, nil
}

// Handle is the callback's number, for C.
func (o Owned[T]) Handle() Handle { return o.handle }

// Value is the Go value, nil once C has let go and the garbage collector has been there. What it returns
// keeps the value alive, not the callback.
func (o Owned[T]) Value() *T { return o.value.Value() }
