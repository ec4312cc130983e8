package callbridge

import (
	"math"
	"unsafe"
)

// Value is an argument or a result of a callback as C passes it: an integer, a floating point number or
// a pointer. It is not looked at by the garbage collector: what a pointer in it points to is alive as
// long as the call, because the caller has it.
type Value uint64

// Int makes a Value of a signed integer, of any width.
func Int(n int64) Value { return Value(n) }

// Uint makes a Value of an unsigned integer.
func Uint(n uint64) Value { return Value(n) }

// Bool makes a Value of a bool.
func Bool(b bool) Value {
	if b {
		return 1
	}
	return 0
}

// Float64 makes a Value of a double.
func Float64(f float64) Value { return Value(math.Float64bits(f)) }

// Float32 makes a Value of a float.
func Float32(f float32) Value { return Value(math.Float32bits(f)) }

// Pointer makes a Value of a pointer to C's memory. It is no reference to Go's: that goes to a callback with
// Call, and is not for a result.
func Pointer(p unsafe.Pointer) Value { return Value(uintptr(p)) }

// Int is the value as a signed integer.
func (v Value) Int() int64 { return int64(v) }

// Uint is the value as an unsigned integer.
func (v Value) Uint() uint64 { return uint64(v) }

// Bool is the value as a bool.
func (v Value) Bool() bool { return v != 0 }

// Float64 is the value as a double.
func (v Value) Float64() float64 { return math.Float64frombits(uint64(v)) }

// Float32 is the value as a float.
func (v Value) Float32() float32 { return math.Float32frombits(uint32(v)) }

// Pointer is the value as a pointer, valid until the callback returns unless its owner says otherwise.
// Only for what is one: a small integer that poses as a pointer stops the Go runtime.
func (v Value) Pointer() unsafe.Pointer {
	// Read, not converted: the number comes from C, where it was a pointer all the time.
	p := uintptr(v)
	return *(*unsafe.Pointer)(unsafe.Pointer(&p))
}

// At is the T that the value points to; nil for NULL.
func At[T any](v Value) *T { return (*T)(v.Pointer()) }
