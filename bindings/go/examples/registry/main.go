// Connections that come and go on many goroutines, and a C thread that tells them of events by number.
package main

/*
#cgo pkg-config: callbridge
#include <callbridge.h>
#include <pthread.h>
#include <stdatomic.h>

enum { ON_READ = 1 };

// The C library: an event loop that tells connection after connection.
static atomic_bool stop;
static atomic_long told, gone, failed;
static cbr_scope connections;
static pthread_t thread;

static void *loop(void *arg) {
  for (uintptr_t fd = 0; !atomic_load(&stop); fd = (fd + 1) % 64) {
    cbr_status status = cbr_key_call(connections, fd, ON_READ, (void *)fd, NULL);
    atomic_fetch_add(status == CBR_OK ? &told : status == CBR_ERR_NOT_FOUND ? &gone : &failed, 1);
  }
  return arg;
}

static int loop_start(cbr_scope scope) {
  connections = scope;
  return pthread_create(&thread, NULL, loop, NULL);
}
static void loop_stop(void) {
  atomic_store(&stop, true);
  pthread_join(thread, NULL);
}
static long count_told(void) { return atomic_load(&told); }
static long count_gone(void) { return atomic_load(&gone); }
static long count_failed(void) { return atomic_load(&failed); }
*/
import "C"

import (
	"fmt"
	"log"
	"os"
	"sync"
	"sync/atomic"

	"callbridge"
)

func main() {
	connections, err := callbridge.NewRegistry("connections")
	if err != nil {
		log.Fatal(err)
	}
	if C.loop_start(C.cbr_scope(connections.Scope())) != 0 {
		log.Fatal("no thread")
	}
	var opened, closed, wrong atomic.Int64
	var group sync.WaitGroup
	for fd := range uintptr(64) {
		group.Go(func() {
			for range 200 { // a connection of this number comes and goes
				_, err := connections.Register(fd, C.ON_READ, func(arg callbridge.Value) (int, error) {
					if uintptr(arg) != fd {
						wrong.Add(1)
					}
					return 0, nil
				}, callbridge.WithDestroy(func() { closed.Add(1) }))
				if err != nil {
					log.Fatal(err)
				}
				opened.Add(1)
				if err := connections.Unregister(fd, C.ON_READ); err != nil {
					log.Fatal(err)
				}
			}
		})
	}
	group.Wait()
	C.loop_stop()
	if err := connections.Close(-1); err != nil {
		log.Fatal(err)
	}
	fmt.Println(opened.Load(), "opened,", closed.Load(), "closed;", C.count_told(), "events,", C.count_gone(), "to nobody")
	if opened.Load() != closed.Load() || wrong.Load() != 0 || C.count_failed() != 0 {
		os.Exit(1)
	}
}
