// A Go closure that a C library keeps and calls from a thread of its own, until it is closed.
package main

/*
#cgo pkg-config: callbridge
#include <callbridge.h>
#include <pthread.h>

// The C library: a timer that ticks so many times, on its thread.
static cbr_handle on_tick;
static cbr_status last;

static void *tick(void *arg) {
  for (intptr_t i = 1; i <= (intptr_t)arg; i++) last = cbr_call(on_tick, (void *)i, NULL);
  return NULL;
}

static cbr_status timer_run(cbr_handle handle, intptr_t ticks) {
  pthread_t thread;
  on_tick = handle;
  if (pthread_create(&thread, NULL, tick, (void *)ticks) == 0) pthread_join(thread, NULL);
  return last;
}
*/
import "C"

import (
	"fmt"
	"log"
	"os"

	"callbridge"
)

func main() {
	total := int64(0) // captured: the library keeps it alive
	onTick, err := callbridge.New(func(arg callbridge.Value) (int, error) {
		total += arg.Int()
		return 0, nil
	}, callbridge.WithDestroy(func() { fmt.Println("destroyed") }))
	if err != nil {
		log.Fatal(err)
	}
	defer onTick.Close() // again, and for the ways out that forget it

	C.timer_run(C.cbr_handle(onTick.Handle()), 8)
	fmt.Println("total", total)

	onTick.Close()
	late := callbridge.Status(C.timer_run(C.cbr_handle(onTick.Handle()), 1))
	fmt.Println("then", late.Name())
	if total != 36 || late != callbridge.ErrStale {
		os.Exit(1)
	}
}
