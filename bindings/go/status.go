package callbridge

// #include <stdlib.h>
// #include "bridge.h"
import "C"

import (
	"strings"
	"unsafe"
)

// Status is what a call of the library came to, a negative number when it failed. It is an error by
// itself, to compare with: errors.Is(err, callbridge.ErrStale).
type Status int32

// The errors of the library, with the numbers of callbridge.h.
const (
	ErrNull        Status = C.CBR_ERR_NULL        // no function where one is needed
	ErrPanic       Status = C.CBR_ERR_PANIC       // the callback panicked; the error has the text
	ErrStale       Status = C.CBR_ERR_STALE       // the object is gone, or never was
	ErrInvalid     Status = C.CBR_ERR_INVALID     // an argument is out of its range
	ErrKind        Status = C.CBR_ERR_KIND        // the number is of another kind of object
	ErrSignature   Status = C.CBR_ERR_SIGNATURE   // the callback has another signature
	ErrThread      Status = C.CBR_ERR_THREAD      // it belongs to another thread
	ErrDeadlock    Status = C.CBR_ERR_DEADLOCK    // the wait could never end
	ErrTimeout     Status = C.CBR_ERR_TIMEOUT     // the deadline passed
	ErrFull        Status = C.CBR_ERR_FULL        // the queue is full
	ErrEmpty       Status = C.CBR_ERR_EMPTY       // nothing to dispatch
	ErrClosed      Status = C.CBR_ERR_CLOSED      // the queue or scope takes no more
	ErrExists      Status = C.CBR_ERR_EXISTS      // already set, and the first one stays
	ErrNotFound    Status = C.CBR_ERR_NOT_FOUND   // nothing is known under this name or key
	ErrLimit       Status = C.CBR_ERR_LIMIT       // a stated limit is reached
	ErrNoMemory    Status = C.CBR_ERR_NOMEM       // out of memory
	ErrSystem      Status = C.CBR_ERR_SYSTEM      // the operating system refused
	ErrUnsupported Status = C.CBR_ERR_UNSUPPORTED // not on this machine, or not in this version
	ErrCallback    Status = C.CBR_ERR_CALLBACK    // the callback returned an error; the error has the text
)

// Error says in one sentence what the status means.
func (s Status) Error() string {
	return C.GoString(C.cbr_status_message(C.cbr_status(s)))
}

// Name is the constant of callbridge.h, such as "CBR_ERR_STALE".
func (s Status) Name() string {
	return C.GoString(C.cbr_status_name(C.cbr_status(s)))
}

// Error is a failure with the library's words for it. errors.Is finds its Status.
type Error struct {
	Status Status
	Text   string
}

// Error is the words.
func (e *Error) Error() string { return e.Text }

// Unwrap gives the Status.
func (e *Error) Unwrap() error { return e.Status }

// invalid is what the binding itself refuses.
func invalid(text string) error { return &Error{ErrInvalid, text} }

// finish ends a crossing: forgets the functions that ended in it, and makes an error of its status.
func finish(r C.cbrgo_result) error {
	for _, id := range r.ids[:r.dropped] {
		end(uintptr(id))
	}
	if r.status == C.CBR_OK {
		return nil
	}
	return &Error{Status(r.status), takeText(&r)}
}

// takeText takes a result's words, which Go has to free.
func takeText(r *C.cbrgo_result) string {
	if r.words == nil {
		return Status(r.status).Error()
	}
	defer C.free(unsafe.Pointer(r.words))
	return C.GoString(r.words)
}

// cString is a copy for C, and what frees it. "" is NULL. What C would take for the end of the string
// becomes what is not UTF-8, so that the library refuses it instead of cutting it.
func cString(s string) (*C.char, func()) {
	if s == "" {
		return nil, func() {}
	}
	it := C.CString(strings.ReplaceAll(s, "\x00", "\xff"))
	return it, func() { C.free(unsafe.Pointer(it)) }
}
