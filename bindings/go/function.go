package callbridge

// #cgo pkg-config: callbridge
// #include <stdlib.h>
// #include "bridge.h"
import "C"

import (
	"fmt"
	"reflect"
	"runtime"
	"unsafe"
)

// Func is a Go callback; to C it is intptr_t (*)(void *arg).
//
// An error that it returns is CBR_ERR_CALLBACK to the caller, a panic CBR_ERR_PANIC, both with the text;
// otherwise the caller gets the number. It may run on any thread, on several at once, and may use
// everything of this package. runtime.Goexit, and so the FailNow of package testing, ends the goroutine
// together with the C functions between, and on a thread that C has made the process: say it with an
// error.
type Func func(arg Value) (int, error)

// Args are the arguments of a TypedFunc, room for as many as have registers; those of its signature are set.
type Args [C.CBRGO_INTS + C.CBRGO_FLOATS]Value

// TypedFunc is a Go callback of another signature, and otherwise as Func. Of its result the caller gets
// what the signature says.
type TypedFunc func(args Args) (Value, error)

// function is what is kept of a callback as long as C may call it. Without a call it is none, or typed.
type function struct {
	call Func
	more *more // nil: nothing
}

// more is what most callbacks have not.
type more struct {
	typed   TypedFunc // in place of call
	shape   shape
	destroy func()
	onError func(error)
	net     runtime.Cleanup // of the value that a weak callback is about
}

const notRegistered = "no Go function was registered with this user_data"

func init() {
	C.cbrgo_start(C.uintptr_t(reflect.ValueOf(call).Pointer()))
}

//export callbridge_go_started
func callbridge_go_started() {}

// call is where C comes in to call a Func. Not exported to C: see bridge.c.
func call(frame *C.cbrgo_frame) {
	defer leave(frame)
	f := functions.get(uintptr(frame.id))
	if f == nil || f.call == nil {
		fail(C.CBR_ERR_CALLBACK, notRegistered)
	} else if n, err := f.call(Value(frame.arg)); err != nil {
		fail(C.CBR_ERR_CALLBACK, err.Error())
	} else {
		frame.result = C.intptr_t(n)
	}
	frame.returned = true
}

// leave is deferred: a panic of the Func's is the CBR_ERR_PANIC of the call.
func leave(frame *C.cbrgo_frame) {
	if !frame.returned {
		contain(recover())
	}
}

//export callbridge_go_typed
func callbridge_go_typed(id uintptr, ints, floats *C.uint64_t) (result C.uint64_t) {
	returned := false
	defer func() {
		if !returned {
			contain(recover())
		}
	}()
	f := functions.get(id)
	if f == nil || f.more == nil || f.more.typed == nil {
		fail(C.CBR_ERR_CALLBACK, notRegistered)
	} else if v, err := f.more.typed(f.more.shape.args(unsafe.Pointer(ints), unsafe.Pointer(floats))); err != nil {
		fail(C.CBR_ERR_CALLBACK, err.Error())
	} else {
		result = C.uint64_t(f.more.shape.result.fit(v))
	}
	returned = true
	return result
}

//export callbridge_go_destroy
func callbridge_go_destroy(id uintptr) { end(id) }

//export callbridge_go_error
func callbridge_go_error(id uintptr, status C.cbr_status, message *C.char) {
	f := functions.get(id)
	if f == nil || f.more == nil || f.more.onError == nil {
		return
	}
	// It is what failures are told to; nobody is told of its own.
	defer func() { _ = recover() }()
	f.more.onError(&Error{Status(status), C.GoString(message)})
}

// end forgets the function of id, which C is done with, and runs its destroy function.
func end(id uintptr) {
	more := functions.take(id).more
	if more == nil {
		return
	}
	more.net.Stop()
	if more.destroy == nil {
		return
	}
	returned := false
	defer func() {
		if returned {
			return
		}
		if cause := recover(); cause != nil {
			fail(C.CBR_ERR_PANIC, fmt.Sprint(cause))
		} else {
			C.cbrgo_abandon_destroy()
		}
	}()
	more.destroy()
	returned = true
}

// contain says of the call that it did not return, and why.
func contain(cause any) {
	if cause != nil {
		fail(C.CBR_ERR_PANIC, fmt.Sprint(cause))
		return
	}
	// runtime.Goexit, which nothing can stop.
	fail(C.CBR_ERR_PANIC, "runtime.Goexit")
	C.cbrgo_abandon_call()
}

// fail marks the call that this thread is inside as failed.
func fail(status C.cbr_status, text string) {
	message := C.CString(text)
	defer C.free(unsafe.Pointer(message))
	C.cbr_fail(status, message)
}
