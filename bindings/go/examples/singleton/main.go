// One log function for the whole process: the first wins, and C finds it by name.
package main

/*
#cgo pkg-config: callbridge
#include <callbridge.h>
#include <stdlib.h>

// The C library logs through whatever is there.
static cbr_status c_log(const char *text) {
  cbr_handle logger;
  cbr_status status = cbr_name_find(0, "app.log", &logger);
  return status == CBR_OK ? cbr_call(logger, (void *)text, NULL) : status;
}
*/
import "C"

import (
	"errors"
	"fmt"
	"log"
	"os"
	"runtime"
	"time"
	"unsafe"

	"callbridge"
)

func logger(prefix string, lines *int) (*callbridge.Singleton, error) {
	return callbridge.NewSingleton("app.log", func(arg callbridge.Value) (int, error) {
		*lines++
		fmt.Println(prefix, C.GoString((*C.char)(arg.Pointer())))
		return 0, nil
	})
}

func main() {
	text := C.CString("from C")
	defer C.free(unsafe.Pointer(text))
	lines := 0
	first, err := logger("first:", &lines)
	if err != nil {
		log.Fatal(err)
	}
	_, err = logger("second:", &lines)
	fmt.Println("a second one:", err)
	if !errors.Is(err, callbridge.ErrExists) || C.c_log(text) != C.CBR_OK {
		os.Exit(1)
	}
	if _, err := first.Call(unsafe.Pointer(text)); err != nil {
		log.Fatal(err)
	}

	// Nobody refers to it any more: the library releases it, and the name is free.
	deadline := time.Now().Add(10 * time.Second)
	for C.c_log(text) != C.CBR_ERR_NOT_FOUND {
		if time.Now().After(deadline) {
			log.Fatal("it was not released")
		}
		runtime.GC()
	}
	fmt.Println("released, after", lines, "lines")
}
