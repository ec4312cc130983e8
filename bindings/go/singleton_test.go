package callbridge_test

import (
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"callbridge"
	"callbridge/internal/host"
)

func TestSingletonIsFoundByCUnderItsName(t *testing.T) {
	s := must[*callbridge.Singleton](t)(callbridge.NewSingleton("go.found", answer(42)))
	equal(t, "called by C", host.CallNamed("go.found", 0), host.Outcome{Result: 42})
	equal(t, "found by Go", must[callbridge.Handle](t)(callbridge.DefaultScope.Find("go.found")), s.Handle())
	ok(t, s.Close())
	ok(t, s.Close())
	equal(t, "after Close", host.CallNamed("go.found", 0).Status, callbridge.ErrNotFound)
	_, err := s.Call(nil)
	is(t, err, callbridge.ErrStale)
}

func TestSingletonFirstWinsAndTheNextOneAfterItsEnd(t *testing.T) {
	const many = 16
	var destroyed counter
	for range 50 {
		winners := make(chan *callbridge.Singleton, many)
		var refused atomic.Int64
		var group sync.WaitGroup
		before := destroyed.Load()
		for i := range many {
			group.Go(func() {
				s, err := callbridge.NewSingleton("go.first", answer(i), callbridge.WithDestroy(destroyed.count))
				if err == nil {
					winners <- s
				} else if errors.Is(err, callbridge.ErrExists) {
					refused.Add(1)
				}
			})
		}
		group.Wait()
		equal(t, "refused", refused.Load(), many-1)
		equal(t, "destroy functions of those refused", destroyed.Load(), before)
		s := <-winners
		equal(t, "called by C", host.CallNamed("go.first", 0).Status, 0)
		ok(t, s.Close())
		equal(t, "destroyed", destroyed.Load(), before+1)
	}
}

func TestSingletonThatIsUnreachableIsReleased(t *testing.T) {
	var destroyed counter
	h := must[*callbridge.Singleton](t)(callbridge.NewSingleton("go.forgotten", answer(1), callbridge.WithDestroy(destroyed.count))).Handle()
	retained := h.Retain() == nil
	awaitCollection(t, "destroy", func() bool { return destroyed.Load() == 1 })
	equal(t, "C finds", host.CallNamed("go.forgotten", 0).Status, callbridge.ErrNotFound)
	equal(t, "C's own reference", host.Call(h, 0).Status, callbridge.ErrStale)
	if retained {
		equal(t, "C's release", host.ReleaseOnThread(h), callbridge.ErrStale)
	}
	s := must[*callbridge.Singleton](t)(callbridge.NewSingleton("go.forgotten", answer(2)))
	equal(t, "the next one", host.CallNamed("go.forgotten", 0).Result, 2)
	ok(t, s.Close())
}

func TestSingletonNameMustBeOne(t *testing.T) {
	for _, name := range []string{"", "a\x00b", string(make([]byte, 256))} {
		var destroyed counter
		_, err := callbridge.NewSingleton(name, answer(1), callbridge.WithDestroy(destroyed.count))
		is(t, err, callbridge.ErrInvalid)
		equal(t, "destroyed", destroyed.Load(), 0)
	}
}

// Why the package uses AddCleanup: a finalizer does not run for objects that refer to each other in a
// circle.
func TestSingletonCleanupReleasesACircleAndFinalizerDoesNot(t *testing.T) {
	type user struct {
		other    *user
		callback callbridge.Handle
		_        [64]byte
	}
	circle := func(destroy func(), net func(*user)) {
		it := &user{callback: must[callbridge.Handle](t)(callbridge.Register(answer(1), callbridge.WithDestroy(destroy)))}
		it.other = &user{other: it}
		net(it)
	}
	var cleaned, finalized counter
	circle(finalized.count, func(it *user) {
		runtime.SetFinalizer(it, func(it *user) { it.callback.Release() })
	})
	circle(cleaned.count, func(it *user) {
		runtime.AddCleanup(it, func(h callbridge.Handle) { h.Release() }, it.callback)
	})
	awaitCollection(t, "the cleanup", func() bool { return cleaned.Load() == 1 })
	for range 5 {
		collect(t)
	}
	equal(t, "finalized", finalized.Load(), 0)
}

// And: a finalizer brings its object back, so that what it refers to is freed a cycle later at the
// earliest. With a cleanup object and callback go together.
func TestSingletonCleanupLeavesTheObjectToTheCollectorAndFinalizerRevivesIt(t *testing.T) {
	type user struct{ room [64]int }
	var revived atomic.Pointer[user]
	var finalized, cleaned counter
	func() {
		it := &user{}
		h := must[callbridge.Handle](t)(callbridge.Register(answer(1), callbridge.WithDestroy(finalized.count)))
		runtime.SetFinalizer(it, func(it *user) {
			revived.Store(it)
			h.Release()
		})
		callback := must[*callbridge.Callback](t)(callbridge.New(answer(2), callbridge.WithDestroy(cleaned.count)))
		runtime.KeepAlive(callback)
	}()
	awaitCollection(t, "both", func() bool { return finalized.Load() == 1 && cleaned.Load() == 1 })
	if revived.Load() == nil {
		t.Fatal("the finalizer did not get its object")
	}
}
