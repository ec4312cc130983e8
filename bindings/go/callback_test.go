package callbridge_test

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"callbridge"
	"callbridge/internal/host"
)

func TestCallbackTakesAnArgumentAndReturnsANumber(t *testing.T) {
	c := must[*callbridge.Callback](t)(callbridge.New(func(arg callbridge.Value) (int, error) {
		*callbridge.At[int](arg) *= 2
		return -7, nil
	}))
	defer c.Close()
	n := 21
	equal(t, "the result", must[int](t)(c.Call(unsafe.Pointer(&n))), -7)
	equal(t, "the argument", n, 42)
}

func TestCallbackGetsNumbersThatPoseAsPointers(t *testing.T) {
	c := must[*callbridge.Callback](t)(callbridge.New(func(arg callbridge.Value) (int, error) { return deepen(int(arg.Int()), 100), nil }))
	defer c.Close()
	for _, n := range []int{0, 1, 4095, -1} {
		equal(t, "called by Go", must[int](t)(c.CallValue(callbridge.Int(int64(n)))), n)
		equal(t, "called by C", host.CallOnThread(c.Handle(), uintptr(n)).Result, n)
	}
}

// deepen has the stack grow and move.
func deepen(n, depth int) int {
	var room [512]byte
	if depth == 0 {
		return n
	}
	room[depth] = byte(n)
	return deepen(n, depth-1) + int(room[depth]) - int(byte(n))
}

func TestCallbackKeepsCapturedVariablesAliveWithoutKeepAlive(t *testing.T) {
	type captured struct{ numbers [1000]int }
	var freed atomic.Bool
	h := func() callbridge.Handle {
		it := &captured{}
		it.numbers[999] = 42
		runtime.AddCleanup(it, func(freed *atomic.Bool) { freed.Store(true) }, &freed)
		return must[callbridge.Handle](t)(callbridge.Register(func(callbridge.Value) (int, error) {
			return it.numbers[999], nil
		}))
	}()
	for range 3 {
		collect(t)
		equal(t, "called by C", host.CallOnThread(h, 0).Result, 42)
	}
	equal(t, "freed while C can call", freed.Load(), false)
	ok(t, h.Release())
	awaitCollection(t, "what the function had captured is freed", freed.Load)
}

func TestCallbackCloseIsIdempotentAndDestroysOnce(t *testing.T) {
	var destroyed counter
	c := must[*callbridge.Callback](t)(callbridge.New(answer(1), callbridge.WithDestroy(destroyed.count)))
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	equal(t, "destroyed", destroyed.Load(), 1)
	_, err := c.Call(nil)
	is(t, err, callbridge.ErrStale)
	ok(t, c.CloseWait(-1))
}

func TestCallbackThatIsUnreachableIsReleased(t *testing.T) {
	var destroyed counter
	h := must[*callbridge.Callback](t)(callbridge.New(answer(1), callbridge.WithDestroy(destroyed.count))).Handle()
	awaitCollection(t, "destroy", func() bool { return destroyed.Load() == 1 })
	equal(t, "a call by C", host.CallOnThread(h, 0).Status, callbridge.ErrStale)
}

func TestCallbackIsDestroyedOnceWhicheverComesFirst(t *testing.T) {
	const many = 3000
	destroyed := make([]counter, many)
	var group sync.WaitGroup
	for i := range many {
		c := must[*callbridge.Callback](t)(callbridge.New(answer(i), callbridge.WithDestroy(destroyed[i].count)))
		if i%2 == 0 { // else it is forgotten
			group.Go(func() { c.Close() })
		}
		if i%100 == 0 {
			group.Go(runtime.GC)
		}
	}
	group.Wait()
	awaitCollection(t, "all are destroyed", func() bool {
		for i := range destroyed {
			if destroyed[i].Load() == 0 {
				return false
			}
		}
		return true
	})
	collect(t)
	for i := range destroyed {
		equal(t, "destroyed", destroyed[i].Load(), 1)
	}
}

func TestCallbackThatIsUnreachableLeavesCItsReference(t *testing.T) {
	var destroyed counter
	h := must[*callbridge.Callback](t)(callbridge.New(answer(5), callbridge.WithDestroy(destroyed.count))).Handle()
	if h.Retain() != nil {
		t.Skip("collected before C could retain it")
	}
	awaitCollection(t, "Go's reference is given back", func() bool {
		n, err := h.References()
		return err == nil && n == 1
	})
	equal(t, "a call by C", host.CallOnThread(h, 0).Result, 5)
	equal(t, "C's release", host.ReleaseOnThread(h), 0)
	equal(t, "destroyed", destroyed.Load(), 1)
}

func TestCallbackMayCloseItselfInsideItsOwnCall(t *testing.T) {
	var destroyed counter
	var c *callbridge.Callback
	c = must[*callbridge.Callback](t)(callbridge.New(func(callbridge.Value) (int, error) {
		if err := c.Close(); err != nil {
			return 0, err
		}
		return int(destroyed.Load()), nil
	}, callbridge.WithDestroy(destroyed.count)))
	equal(t, "destroyed inside the call", must[int](t)(c.Call(nil)), 0)
	equal(t, "destroyed after the call", destroyed.Load(), 1)
}

func TestCallbackThatWaitsForItselfIsADeadlock(t *testing.T) {
	var destroyed counter
	var inside error
	var c *callbridge.Callback
	c = must[*callbridge.Callback](t)(callbridge.New(func(callbridge.Value) (int, error) {
		inside = c.CloseWait(-1)
		return 0, nil
	}, callbridge.WithDestroy(destroyed.count)))
	_, err := c.Call(nil)
	ok(t, err)
	is(t, inside, callbridge.ErrDeadlock)
	equal(t, "destroyed", destroyed.Load(), 1)
}

func TestCallbackCloseWaitWaitsForCallsInFlight(t *testing.T) {
	var destroyed counter
	entered, leave := make(chan struct{}), make(chan struct{})
	c := must[*callbridge.Callback](t)(callbridge.New(func(callbridge.Value) (int, error) {
		close(entered)
		<-leave
		return int(destroyed.Load()), nil
	}, callbridge.WithDestroy(destroyed.count)))
	outcome := make(chan host.Outcome)
	go func() { outcome <- host.CallOnThread(c.Handle(), 0) }()
	<-entered
	is(t, c.CloseWait(time.Millisecond), callbridge.ErrTimeout)
	equal(t, "destroyed with a call in flight", destroyed.Load(), 0)
	equal(t, "a new call", host.Call(c.Handle(), 0).Status, callbridge.ErrStale)
	close(leave)
	ok(t, c.CloseWait(-1))
	equal(t, "destroyed", destroyed.Load(), 1)
	equal(t, "the call in flight", <-outcome, host.Outcome{})
}

func TestCallbackNeverRunsAfterItsEndUnderCallsFromCThreads(t *testing.T) {
	for range 100 {
		var destroyed, late counter
		c := must[*callbridge.Callback](t)(callbridge.New(func(callbridge.Value) (int, error) {
			late.Add(destroyed.Load())
			return 0, nil
		}, callbridge.WithDestroy(destroyed.count)))
		callers := host.CallersOf(3, c.Handle())
		await(t, "calls", func() bool { return callers.Now().OK > 10 })
		ok(t, c.CloseWait(-1))
		equal(t, "destroyed", destroyed.Load(), 1)
		stale := callers.Now().Stale
		await(t, "stale calls", func() bool { return callers.Now().Stale > stale })
		equal(t, "other outcomes", callers.Stop().Other, 0)
		equal(t, "calls after destroy", late.Load(), 0)
	}
}

func TestCallbackDestroyRunsOnTheCThreadThatReleasesLast(t *testing.T) {
	var destroyed counter
	h := must[callbridge.Handle](t)(callbridge.Register(answer(1), callbridge.WithDestroy(destroyed.count)))
	equal(t, "C's release", host.ReleaseOnThread(h), 0)
	equal(t, "destroyed when it returned", destroyed.Load(), 1)
	is(t, h.Release(), callbridge.ErrStale)
	is(t, h.Unregister(), callbridge.ErrStale)
}

func TestCallbackThatAThreadEndsInsideOfIsStillDestroyed(t *testing.T) {
	var destroyed counter
	c := must[*callbridge.Callback](t)(callbridge.New(answer(1), callbridge.WithDestroy(destroyed.count)))
	host.EndInside(c.Handle(), false, false)
	ok(t, c.CloseWait(-1))
	equal(t, "destroyed", destroyed.Load(), 1)
}

func TestCallbackDestroyRunsAtTheEndOfTheCThreadThatWasInside(t *testing.T) {
	for _, call := range []bool{false, true} {
		var destroyed counter
		c := must[*callbridge.Callback](t)(callbridge.New(answer(1), callbridge.WithDestroy(func() {
			runtime.GC()
			destroyed.count()
		})))
		host.EndInside(c.Handle(), true, call)
		equal(t, "destroyed when the thread had ended", destroyed.Load(), 1)
		ok(t, c.Close())
	}
}

func TestCallbackOfManyCThreadsThatComeAndGo(t *testing.T) {
	var called counter
	c := must[*callbridge.Callback](t)(callbridge.New(func(callbridge.Value) (int, error) {
		called.count()
		return 0, nil
	}))
	defer c.Close()
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for range 200 {
				host.CallOnThread(c.Handle(), 0)
			}
		})
	}
	group.Wait()
	equal(t, "called", called.Load(), 800)
}

func TestCallbackNestsThroughCAndGo(t *testing.T) {
	var c *callbridge.Callback
	c = must[*callbridge.Callback](t)(callbridge.New(func(arg callbridge.Value) (int, error) {
		if arg.Int() == 0 {
			runtime.GC()
			return 0, nil
		}
		n, err := c.CallValue(arg - 1)
		return n + 1, err
	}))
	defer c.Close()
	equal(t, "depth", must[int](t)(c.CallValue(50)), 50)
	equal(t, "depth on a C thread", host.CallOnThread(c.Handle(), 50).Result, 50)
}

func TestCallbackDestroyMayRegisterAndUnregisterOthers(t *testing.T) {
	var destroyed counter
	other := must[callbridge.Handle](t)(callbridge.Register(answer(1), callbridge.WithDestroy(destroyed.count)))
	h := must[callbridge.Handle](t)(callbridge.Register(answer(1), callbridge.WithDestroy(func() {
		if other.Unregister() != nil {
			return
		}
		if h, err := callbridge.Register(answer(2)); err == nil && h.Release() == nil {
			destroyed.count()
		}
	})))
	ok(t, h.Release())
	equal(t, "destroyed", destroyed.Load(), 2)
}

func TestCallbackRegistrationThatFailsTakesNothing(t *testing.T) {
	scope := must[callbridge.Scope](t)(callbridge.OpenScope("closed"))
	must[int](t)(scope.Close(-1))
	var destroyed counter
	var freed atomic.Bool
	func() {
		it := new([100]int)
		runtime.AddCleanup(it, func(freed *atomic.Bool) { freed.Store(true) }, &freed)
		_, err := callbridge.Register(func(callbridge.Value) (int, error) { return it[0], nil },
			callbridge.WithScope(scope), callbridge.WithDestroy(destroyed.count))
		is(t, err, callbridge.ErrStale)
	}()
	equal(t, "destroyed", destroyed.Load(), 0)
	awaitCollection(t, "the function is forgotten", freed.Load)
	_, err := callbridge.Register(nil)
	is(t, err, callbridge.ErrNull)
	_, err = callbridge.New(answer(1), callbridge.WithName("a name\x00and more"))
	is(t, err, callbridge.ErrInvalid)
}

func TestCallbackOfAScopeEndsWithIt(t *testing.T) {
	var destroyed counter
	scope := must[callbridge.Scope](t)(callbridge.OpenScope("plugin"))
	h := must[callbridge.Handle](t)(callbridge.Register(answer(1), callbridge.WithScope(scope), callbridge.WithDestroy(destroyed.count)))
	ok(t, scope.Bind("plugin.answer", h, false))
	equal(t, "found", must[callbridge.Handle](t)(scope.Find("plugin.answer")), h)
	must[int](t)(scope.Close(-1))
	equal(t, "destroyed", destroyed.Load(), 1)
	is(t, h.Release(), callbridge.ErrStale)
}

func TestCallbackTableIsUsedAgainAndNumbersAreNot(t *testing.T) {
	seen := map[callbridge.Handle]bool{}
	for i := range 20000 {
		h := must[callbridge.Handle](t)(callbridge.Register(answer(i)))
		if seen[h] {
			t.Fatalf("handle %#x was given twice", h)
		}
		seen[h] = true
		equal(t, "its function", must[int](t)(h.Call(nil)), i)
		ok(t, h.Release())
	}
	is(t, func() error { _, err := callbridge.Handle(1).Call(nil); return err }(), callbridge.ErrStale)
}

func TestCallbackMetricsAndReportNameIt(t *testing.T) {
	c := must[*callbridge.Callback](t)(callbridge.New(answer(1), callbridge.WithName("named.by.go"), callbridge.Metered()))
	defer c.Close()
	must[int](t)(c.Call(nil))
	contains(t, must[string](t)(callbridge.Report(callbridge.DefaultScope)), "named.by.go")
	contains(t, must[string](t)(callbridge.Metrics(callbridge.DefaultScope)), `callbridge_callback_calls_total{callback="named.by.go"} 1`)
}
