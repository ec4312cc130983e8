// What must not be done, done: each ends in an error, none in a crash.
package main

/*
#cgo pkg-config: callbridge
#include <callbridge.h>

static cbr_status call(cbr_handle handle) { return cbr_call(handle, NULL, NULL); }
static intptr_t call_fn(void *fn) { return ((intptr_t (*)(void *))fn)(NULL); }
*/
import "C"

import (
	"errors"
	"fmt"
	"log"
	"os"
	"unsafe"

	"callbridge"
)

func main() {
	value := new(int)
	expect("a Go pointer, called as a handle", callbridge.Status(C.call(C.cbr_handle(uintptr(unsafe.Pointer(value))))), callbridge.ErrStale, callbridge.ErrKind)

	handle, err := callbridge.Register(func(callbridge.Value) (int, error) { return 1, nil }, callbridge.WithFallback(callbridge.Int(-1)))
	if err != nil {
		log.Fatal(err)
	}
	thunk, err := callbridge.NewThunk(handle)
	if err != nil {
		log.Fatal(err)
	}
	fn := thunk.Func()
	thunk.Close()
	if n := C.call_fn(fn); n != -1 {
		log.Fatal("a freed thunk returned ", n)
	}
	fmt.Println("a freed thunk: its fallback")

	handle.Unregister()
	expect("a callback that is gone", callbridge.Status(C.call(C.cbr_handle(handle))), callbridge.ErrStale)
	expect("released once more", handle.Release(), callbridge.ErrStale)

	panics, err := callbridge.New(func(callbridge.Value) (int, error) { panic("not here") })
	if err != nil {
		log.Fatal(err)
	}
	defer panics.Close()
	_, err = panics.Call(nil)
	expect("a panic", err, callbridge.ErrPanic)
}

func expect(what string, err error, allowed ...callbridge.Status) {
	for _, status := range allowed {
		if errors.Is(err, status) {
			fmt.Printf("%s: %v\n", what, err)
			return
		}
	}
	fmt.Printf("%s: %v, which is not expected\n", what, err)
	os.Exit(1)
}
