package callbridge

// #include "bridge.h"
import "C"

import (
	"fmt"
	"unsafe"
)

// Signature is what a callback takes and returns, the number that C makes with CBR_SIG.
type Signature uint64

// DefaultSignature is that of a Func, "intptr(ptr)": CBR_SIG_DEFAULT.
const DefaultSignature Signature = C.CBR_SIG_DEFAULT

// ParseSignature reads a signature such as "i32(ptr,ptr)" or "void()": void, bool, i8 to i64, u8 to u64,
// f32, f64, ptr, and the platform's int, long, size and intptr. ErrInvalid if it is none.
func ParseSignature(text string) (Signature, error) {
	it, free := cString(text)
	defer free()
	r := C.cbrgo_signature_parse(it)
	return Signature(r.value), finish(r)
}

// String is the signature as ParseSignature reads it.
func (s Signature) String() string {
	r := C.cbrgo_signature_format(C.cbr_signature(s))
	return takeText(&r)
}

// kind is a type in a signature.
type kind uint8

func (s Signature) result() kind   { return kind(s >> 56 & 15) }
func (s Signature) count() int     { return int(s >> 60) }
func (s Signature) arg(i int) kind { return kind(s >> (52 - 4*i) & 15) }
func (k kind) isFloat() bool       { return k == C.CBR_F32 || k == C.CBR_F64 }

// fit is the value as a register has it for this type: cut to its width, and its sign extended. A caller
// leaves what it likes in the bits above.
func (k kind) fit(v Value) Value {
	switch k {
	case C.CBR_BOOL:
		return Bool(v&0xff != 0)
	case C.CBR_I8:
		return Int(int64(int8(v)))
	case C.CBR_U8:
		return Value(uint8(v))
	case C.CBR_I16:
		return Int(int64(int16(v)))
	case C.CBR_U16:
		return Value(uint16(v))
	case C.CBR_I32:
		return Int(int64(int32(v)))
	case C.CBR_U32, C.CBR_F32:
		return Value(uint32(v))
	case C.CBR_VOID:
		return 0
	}
	return v
}

// shape is a signature as a call needs it.
type shape struct {
	signature Signature
	result    kind
}

// shapeOf is the shape of the signature; ErrUnsupported if its arguments do not all have registers.
func shapeOf(s Signature) (shape, error) {
	ints, floats := 0, 0
	for i := range s.count() {
		if s.arg(i).isFloat() {
			floats++
		} else {
			ints++
		}
	}
	if ints > C.CBRGO_INTS || floats > C.CBRGO_FLOATS || C.CBRGO_INTS == 0 {
		return shape{}, &Error{ErrUnsupported, fmt.Sprintf(
			"%v: a Go function may have %d integers and pointers and %d floating point numbers on this machine",
			s, C.CBRGO_INTS, C.CBRGO_FLOATS)}
	}
	return shape{s, s.result()}, nil
}

// args picks the arguments from the registers.
func (s *shape) args(ints, floats unsafe.Pointer) (args Args) {
	for i := range s.signature.count() {
		k, from := s.signature.arg(i), &ints
		if k.isFloat() {
			from = &floats
		}
		args[i] = k.fit(*(*Value)(*from))
		*from = unsafe.Add(*from, 8)
	}
	return args
}
