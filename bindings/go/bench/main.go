// The benchmark measures what a call from C into Go costs through callbridge, beside a bare exported
// function and runtime/cgo's Handle, and what a registration costs. It prints a line for each subject and
// repetition: subject, nanoseconds, repetition, separated by tabs.
package main

// #cgo pkg-config: callbridge
// #include "loops.h"
import "C"

import (
	"flag"
	"fmt"
	"runtime/cgo"
	"time"

	"callbridge"
)

// count is what every callback does, so that the subjects differ in how they get here alone.
func count(arg callbridge.Value) (int, error) {
	n := callbridge.At[int](arg)
	*n++
	return *n, nil
}

//export go_bare
func go_bare(_, arg uintptr) C.intptr_t {
	n, _ := count(callbridge.Value(arg))
	return C.intptr_t(n)
}

//export go_cgo_handle
func go_cgo_handle(number, arg uintptr) C.intptr_t {
	n, _ := cgo.Handle(number).Value().(callbridge.Func)(callbridge.Value(arg))
	return C.intptr_t(n)
}

type subject struct {
	name string
	run  func(count int)
}

func subjects() []subject {
	number := cgo.NewHandle(callbridge.Func(count))
	handle := must(callbridge.Register(count))
	thunk := must(callbridge.NewPermanentThunk(callbridge.DefaultSignature, handle))
	return []subject{
		{"go bare-upcall", func(n int) { C.loop_bare(0, C.long(n)) }},
		{"go cgo.Handle-upcall", func(n int) { C.loop_cgo_handle(C.uintptr_t(number), C.long(n)) }},
		{"go callbridge-upcall", func(n int) { C.loop_callbridge(C.cbr_handle(handle), C.long(n)) }},
		{"go callbridge-thunk", func(n int) { C.loop_thunk(C.uintptr_t(uintptr(thunk.Func())), C.long(n)) }},
		{"go cgo.Handle-new-delete", func(n int) {
			for range n {
				cgo.NewHandle(callbridge.Func(count)).Delete()
			}
		}},
		{"go callbridge-register-release", func(n int) {
			for range n {
				h := must(callbridge.Register(count))
				if err := h.Release(); err != nil {
					panic(err)
				}
			}
		}},
	}
}

func must[T any](it T, err error) T {
	if err != nil {
		panic(err)
	}
	return it
}

func main() {
	quick := flag.Bool("quick", false, "slices of 50 ms")
	repetitions := flag.Int("repetitions", 7, "how often each subject is measured")
	flag.Parse()
	slice := 100 * time.Millisecond
	if *quick {
		slice = 50 * time.Millisecond
	}
	all := subjects()
	counts := make([]int, len(all))
	for i, it := range all {
		counts[i] = calibrate(it, slice)
	}
	for repetition := range *repetitions {
		for i, it := range all {
			fmt.Printf("%s\t%.2f\t%d\n", it.name, measure(it, counts[i]), repetition)
		}
	}
}

// measure is the nanoseconds of one turn.
func measure(it subject, count int) float64 {
	begin := time.Now()
	it.run(count)
	return float64(time.Since(begin).Nanoseconds()) / float64(count)
}

// calibrate is how many turns take about as long as the slice.
func calibrate(it subject, slice time.Duration) int {
	count := 1000
	for {
		ns := measure(it, count)
		if took := time.Duration(ns * float64(count)); took > slice/10 {
			return max(int(float64(slice.Nanoseconds())/ns), 1)
		}
		count *= 4
	}
}
