package callbridge_test

import (
	"errors"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"callbridge"
)

// await looks until the condition holds, or fails.
func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !holds(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// awaitCollection is await, with the garbage collector running between the looks.
func awaitCollection(t *testing.T, what string, holds func() bool) {
	t.Helper()
	await(t, what, func() bool {
		runtime.GC()
		return holds()
	})
}

// collect runs the garbage collector, and what it has to run, as often as it takes for what is unreachable
// now to be gone: a fresh object with a cleanup shows that.
func collect(t *testing.T) {
	t.Helper()
	for range 2 {
		var gone atomic.Bool
		runtime.AddCleanup(new([64]int), func(*atomic.Bool) { gone.Store(true) }, &gone)
		awaitCollection(t, "an object without references is collected", gone.Load)
	}
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func must[T any](t *testing.T) func(it T, err error) T {
	return func(it T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return it
	}
}

func is(t *testing.T, err error, want callbridge.Status) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got %v, want %s", err, want.Name())
	}
}

func equal[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Fatalf("%s: got %v, want %v", what, got, want)
	}
}

func contains(t *testing.T, text, part string) {
	t.Helper()
	if !strings.Contains(text, part) {
		t.Fatalf("%q does not say %q", text, part)
	}
}

// answer is a Func that returns n.
func answer(n int) callbridge.Func {
	return func(callbridge.Value) (int, error) { return n, nil }
}

// counter counts, for destroy functions and the like.
type counter struct{ atomic.Int64 }

func (c *counter) count() { c.Add(1) }
