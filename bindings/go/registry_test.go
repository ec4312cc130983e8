package callbridge_test

import (
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"unsafe"

	"callbridge"
	"callbridge/internal/host"
)

func newRegistry(t *testing.T) *callbridge.Registry {
	r := must[*callbridge.Registry](t)(callbridge.NewRegistry(t.Name()))
	t.Cleanup(func() { ok(t, r.Close(-1)) })
	return r
}

func TestRegistryIsCalledByKeyAndEventFromGoAndC(t *testing.T) {
	r := newRegistry(t)
	var destroyed counter
	must[callbridge.Handle](t)(r.Register(7, 1, func(arg callbridge.Value) (int, error) {
		*callbridge.At[int](arg)++
		return 71, nil
	}, callbridge.WithDestroy(destroyed.count)))
	h := must[callbridge.Handle](t)(r.Register(7, 2, answer(72)))
	n := 0
	equal(t, "called by Go", must[int](t)(r.Call(7, 1, unsafe.Pointer(&n))), 71)
	equal(t, "the argument", n, 1)
	equal(t, "called by C", host.CallKey(r.Scope(), 7, 2, 0), host.Outcome{Result: 72})
	equal(t, "found", must[callbridge.Handle](t)(r.Find(7, 2)), h)
	ok(t, r.Unregister(7, 1))
	equal(t, "destroyed", destroyed.Load(), 1)
	is(t, r.Unregister(7, 1), callbridge.ErrNotFound)
	_, err := r.Call(7, 1, nil)
	is(t, err, callbridge.ErrNotFound)
	equal(t, "of the connection", must[int](t)(r.UnregisterAll(7)), 1)
	is(t, h.Release(), callbridge.ErrStale)
}

func TestRegistryFirstStaysUnlessReplaced(t *testing.T) {
	r := newRegistry(t)
	var first, refused counter
	must[callbridge.Handle](t)(r.Register(1, 0, answer(1), callbridge.WithDestroy(first.count)))
	_, err := r.Register(1, 0, answer(2), callbridge.WithDestroy(refused.count))
	is(t, err, callbridge.ErrExists)
	equal(t, "what is there", must[int](t)(r.Call(1, 0, nil)), 1)
	must[callbridge.Handle](t)(r.Replace(1, 0, answer(3)))
	equal(t, "what is there", must[int](t)(r.Call(1, 0, nil)), 3)
	equal(t, "destroyed, the first", first.Load(), 1)
	equal(t, "destroyed, the one refused", refused.Load(), 0)
}

func TestRegistryServesManyGoroutinesAndCThreads(t *testing.T) {
	const goroutines, keys, steps = 8, 16, 3000
	r := newRegistry(t)
	var registered, destroyed, running, late atomic.Int64
	register := func(key uintptr, replace bool) error {
		dead := new(atomic.Bool)
		put := r.Register
		if replace {
			put = r.Replace
		}
		_, err := put(key, 0, func(callbridge.Value) (int, error) {
			running.Add(1)
			if dead.Load() {
				late.Add(1)
			}
			return int(key), nil
		}, callbridge.WithDestroy(func() {
			dead.Store(true)
			destroyed.Add(1)
		}))
		if err == nil {
			registered.Add(1)
		}
		return err
	}
	check := func(err error, allowed callbridge.Status) {
		if err != nil && !errors.Is(err, allowed) {
			t.Error(err)
		}
	}
	// C calls a handle that lives throughout, and keys that come and go.
	stays := must[callbridge.Handle](t)(r.Register(1<<20, 0, answer(1)))
	callers := host.CallersOf(2, stays)
	var group sync.WaitGroup
	for g := range goroutines {
		group.Go(func() {
			random := rand.New(rand.NewPCG(uint64(g), 1))
			for range steps {
				key := uintptr(random.IntN(keys))
				switch random.IntN(5) {
				case 0:
					check(register(key, false), callbridge.ErrExists)
				case 1:
					check(register(key, true), callbridge.ErrExists)
				case 2:
					check(r.Unregister(key, 0), callbridge.ErrNotFound)
				case 3:
					n, err := r.Call(key, 0, nil)
					check(err, callbridge.ErrNotFound)
					if err == nil && uintptr(n) != key {
						t.Errorf("key %d called that of %d", key, n)
					}
				case 4:
					if it := host.CallKey(r.Scope(), key, 0, 0); it.Status != 0 {
						check(it.Status, callbridge.ErrNotFound)
					}
				}
			}
		})
	}
	group.Wait()
	counts := callers.Stop()
	ok(t, r.Close(-1))
	equal(t, "calls that failed", counts.Stale+counts.Other, 0)
	equal(t, "destroyed", destroyed.Load(), registered.Load())
	equal(t, "calls after destroy", late.Load(), 0)
	if running.Load() == 0 || counts.OK == 0 {
		t.Fatal("nothing was called")
	}
}

func TestRegistryCloseEndsAllAndIsIdempotent(t *testing.T) {
	r := must[*callbridge.Registry](t)(callbridge.NewRegistry("ends"))
	var destroyed counter
	for key := range uintptr(100) {
		must[callbridge.Handle](t)(r.Register(key, 0, answer(1), callbridge.WithDestroy(destroyed.count)))
	}
	h := must[callbridge.Handle](t)(r.Find(0, 0))
	ok(t, h.Retain())
	ok(t, r.Close(-1))
	ok(t, r.Close(-1))
	equal(t, "destroyed", destroyed.Load(), 100)
	is(t, h.Release(), callbridge.ErrStale)
	_, err := r.Register(1, 0, answer(1), callbridge.WithDestroy(destroyed.count))
	is(t, err, callbridge.ErrStale)
	equal(t, "destroyed", destroyed.Load(), 100)
}

func TestRegistryClosedInsideItsOwnCallIsADeadlockAndEndsAll(t *testing.T) {
	r := must[*callbridge.Registry](t)(callbridge.NewRegistry("itself"))
	var inside error
	must[callbridge.Handle](t)(r.Register(1, 0, func(callbridge.Value) (int, error) {
		inside = r.Close(-1)
		return 0, nil
	}))
	must[int](t)(r.Call(1, 0, nil))
	is(t, inside, callbridge.ErrDeadlock)
	ok(t, r.Close(-1))
	_, err := r.Call(1, 0, nil)
	is(t, err, callbridge.ErrStale)
}
