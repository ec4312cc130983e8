// Two C threads post what they measure, and one goroutine receives from both, beside a deadline. The first
// never waits: what Go is too slow for is dropped and counted. The second waits.
package main

/*
#cgo pkg-config: callbridge
#include <callbridge.h>
#include <pthread.h>
#include <stdlib.h>

// The C library: a sensor that posts so many readings.
struct sensor {
  cbr_queue queue;
  cbr_handle handle;
  int32_t count;
  pthread_t thread;
};

static void *measure(void *arg) {
  struct sensor *it = arg;
  for (int32_t i = 0; i < it->count; i++) (void)cbr_post(it->queue, it->handle, &i, sizeof i);
  return NULL;
}

static struct sensor *sensor_start(cbr_queue queue, cbr_handle handle, int32_t count) {
  struct sensor *it = malloc(sizeof *it);
  if (!it) return NULL;
  *it = (struct sensor){queue, handle, count, 0};
  if (pthread_create(&it->thread, NULL, measure, it) == 0) return it;
  free(it);
  return NULL;
}

static void sensor_join(struct sensor *it) {
  pthread_join(it->thread, NULL);
  free(it);
}
*/
import "C"

import (
	"fmt"
	"log"
	"os"
	"time"

	"callbridge"
)

const readings = 10000

func start(policy callbridge.Policy) (*callbridge.Events, *C.struct_sensor) {
	events, err := callbridge.NewEvents(callbridge.EventsOptions{Capacity: 64, Policy: policy})
	if err != nil {
		log.Fatal(err)
	}
	sensor := C.sensor_start(C.cbr_queue(events.Queue()), C.cbr_handle(events.Handle()), readings)
	if sensor == nil {
		log.Fatal("no thread")
	}
	return events, sensor
}

func main() {
	fast, fastSensor := start(callbridge.DropOldest)
	slow, slowSensor := start(callbridge.Block)
	go func() {
		C.sensor_join(fastSensor)
		fast.Drain() // its channel is closed when all is received
		C.sensor_join(slowSensor)
		slow.Drain()
	}()

	received := map[string]int{}
	deadline := time.After(30 * time.Second)
	for a, b := fast.C(), slow.C(); a != nil || b != nil; {
		select {
		case _, open := <-a:
			if !open {
				a = nil
				continue
			}
			received["fast"]++
		case _, open := <-b:
			if !open {
				b = nil
				continue
			}
			received["slow"]++
		case <-deadline:
			log.Fatal("too late")
		}
	}
	fmt.Println("of the one that does not wait:", received["fast"], "received,", fast.Dropped(), "dropped")
	fmt.Println("of the one that waits:", received["slow"], "received,", slow.Dropped(), "dropped")
	if received["fast"]+int(fast.Dropped()) != readings || received["slow"] != readings {
		os.Exit(1)
	}
}
