// C owns a Go value: its last release frees it. And the other way round: C calls a Go value as long as Go has
// it, and is told that it is stale afterwards.
package main

/*
#cgo pkg-config: callbridge
#include <callbridge.h>
#include <stdlib.h>

// The C library: takes a function, its data, and what frees the data, as many do.
static intptr_t (*on_event)(void *, void *);
static void (*free_data)(void *);
static void *data;

static void library_set(cbr_handle handle) {
  on_event = cbr_call_ptr;
  data = CBR_TO_PTR(handle);
  free_data = cbr_release_ptr;
}
static intptr_t library_event(uintptr_t number) { return on_event(data, (void *)number); }
static void library_close(void) { free_data(data); }

static cbr_status call(cbr_handle handle) { return cbr_call(handle, NULL, NULL); }
*/
import "C"

import (
	"fmt"
	"log"
	"runtime"
	"time"

	"callbridge"
)

type session struct {
	name  string
	total int
}

func (s *session) add(arg callbridge.Value) (int, error) {
	s.total += int(arg.Int())
	return s.total, nil
}

func main() {
	// C owns the references, Go has a weak one.
	owned, err := callbridge.NewOwned(&session{name: "first"}, (*session).add)
	if err != nil {
		log.Fatal(err)
	}
	C.library_set(C.cbr_handle(owned.Handle()))
	runtime.GC()
	C.library_event(40)
	if n := C.library_event(2); n != 42 || owned.Value().total != 42 {
		log.Fatal("it was collected too early")
	}
	C.library_close()
	collected("C's value", func() bool { return owned.Value() == nil })

	// Go owns the value, C has a number.
	value := &session{name: "second"}
	weak, err := callbridge.NewWeak(value, (*session).add)
	if err != nil {
		log.Fatal(err)
	}
	runtime.GC()
	if C.call(C.cbr_handle(weak)) != C.CBR_OK {
		log.Fatal("the value is there, and was not called")
	}
	fmt.Println(value.name, "is in use until here")
	collected("Go's value", func() bool { return C.call(C.cbr_handle(weak)) == C.CBR_ERR_STALE })
}

func collected(what string, is func() bool) {
	for deadline := time.Now().Add(10 * time.Second); !is(); runtime.GC() {
		if time.Now().After(deadline) {
			log.Fatal(what, " was not collected")
		}
	}
	fmt.Println(what, "is gone")
}
