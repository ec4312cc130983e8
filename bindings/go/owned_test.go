package callbridge_test

import (
	"runtime"
	"testing"

	"callbridge"
	"callbridge/internal/host"
)

type account struct {
	total int
	_     [64]int
}

func (a *account) add(arg callbridge.Value) (int, error) {
	a.total += int(arg.Int())
	return a.total, nil
}

func TestOwnedValueLivesAsLongAsCHasAReference(t *testing.T) {
	var destroyed counter
	owned := must[callbridge.Owned[account]](t)(callbridge.NewOwned(&account{total: 1}, (*account).add, callbridge.WithDestroy(destroyed.count)))
	ok(t, owned.Handle().Retain()) // a second reference of C's
	collect(t)
	equal(t, "called by C", host.CallOnThread(owned.Handle(), 2).Result, 3)
	equal(t, "C's first release", host.ReleaseOnThread(owned.Handle()), 0)
	collect(t)
	equal(t, "called by C", host.CallOnThread(owned.Handle(), 3).Result, 6)
	equal(t, "seen by Go", owned.Value().total, 6)
	equal(t, "destroyed", destroyed.Load(), 0)
	equal(t, "C's last release", host.ReleaseOnThread(owned.Handle()), 0)
	equal(t, "destroyed", destroyed.Load(), 1)
	awaitCollection(t, "the value is freed", func() bool { return owned.Value() == nil })
	equal(t, "a call by C", host.Call(owned.Handle(), 0).Status, callbridge.ErrStale)
}

func TestOwnedValueIsFreedByUnregister(t *testing.T) {
	owned := must[callbridge.Owned[account]](t)(callbridge.NewOwned(&account{}, (*account).add))
	ok(t, owned.Handle().Retain())
	equal(t, "C's unregister", host.UnregisterOnThread(owned.Handle()), 0)
	awaitCollection(t, "the value is freed", func() bool { return owned.Value() == nil })
}

func TestOwnedValueLivesUntilTheCallInFlightIsOver(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	owned := must[callbridge.Owned[account]](t)(callbridge.NewOwned(&account{}, func(a *account, _ callbridge.Value) (int, error) {
		close(entered)
		<-leave
		return 0, nil
	}))
	done := make(chan host.Outcome)
	go func() { done <- host.CallOnThread(owned.Handle(), 0) }()
	<-entered
	equal(t, "C's release", host.ReleaseOnThread(owned.Handle()), 0)
	collect(t)
	if owned.Value() == nil {
		t.Fatal("freed during a call")
	}
	close(leave)
	equal(t, "the call", (<-done).Status, 0)
	awaitCollection(t, "the value is freed", func() bool { return owned.Value() == nil })
}

func TestWeakValueThatWasCollectedMakesCallsStale(t *testing.T) {
	var destroyed counter
	value := &account{total: 1}
	h := must[callbridge.Handle](t)(callbridge.NewWeak(value, (*account).add, callbridge.WithDestroy(destroyed.count)))
	ok(t, h.Retain()) // C's reference does not keep the value
	collect(t)
	equal(t, "called by C", host.CallOnThread(h, 2).Result, 3)
	equal(t, "seen by Go", value.total, 3)
	equal(t, "destroyed", destroyed.Load(), 0)
	runtime.KeepAlive(value)
	value = nil
	awaitCollection(t, "C's calls are stale", func() bool { return host.CallOnThread(h, 0).Status == callbridge.ErrStale })
	awaitCollection(t, "destroy", func() bool { return destroyed.Load() == 1 })
	equal(t, "C's release", host.ReleaseOnThread(h), callbridge.ErrStale)
}

func TestWeakValueIsNeverCalledOnceCollected(t *testing.T) {
	for range 15 {
		value := &account{total: 1}
		h := must[callbridge.Handle](t)(callbridge.NewWeak(value, func(a *account, _ callbridge.Value) (int, error) {
			if a == nil || a.total != 1 {
				return 0, callbridge.ErrInvalid
			}
			return 1, nil
		}))
		// A value that is asked for all the time while the collector marks is never found without use.
		callers := host.CallersInBursts(2, h)
		await(t, "calls", func() bool { return callers.Now().OK > 10 })
		equal(t, "calls that failed while the value lives", callers.Now().Other, 0)
		runtime.KeepAlive(value)
		value = nil
		awaitCollection(t, "C's calls are stale", func() bool { return callers.Now().Stale > 0 })
		// Each thread may have had one call between the two steps of a collection.
		if other := callers.Stop().Other; other > 2 {
			t.Fatalf("%d calls neither ran nor were stale", other)
		}
	}
}

func TestWeakValueThatWasCollectedIsDestroyedWithoutACall(t *testing.T) {
	var destroyed counter
	h := must[callbridge.Handle](t)(callbridge.NewWeak(&account{}, (*account).add, callbridge.WithDestroy(destroyed.count)))
	awaitCollection(t, "destroy", func() bool { return destroyed.Load() == 1 })
	is(t, h.Release(), callbridge.ErrStale)
}

func TestWeakCallbackEndedByGoLeavesNothingAtTheValue(t *testing.T) {
	const many = 50000
	value := &account{}
	use := func(times int) {
		for range times {
			h := must[callbridge.Handle](t)(callbridge.NewWeak(value, (*account).add))
			ok(t, h.Unregister())
		}
	}
	heap := func() int64 {
		collect(t)
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return int64(stats.HeapAlloc)
	}
	use(100)
	before := heap()
	use(many)
	// What one left, a cleanup and its argument, would be 24 bytes at the least.
	if grown := heap() - before; grown > many*24/4 {
		t.Fatalf("%d bytes stayed for %d callbacks that are gone", grown, many)
	}
	runtime.KeepAlive(value)
}

func TestOwnedNeedsAValueAndAFunction(t *testing.T) {
	_, err := callbridge.NewOwned[account](nil, (*account).add)
	is(t, err, callbridge.ErrNull)
	_, err = callbridge.NewWeak(&account{}, nil)
	is(t, err, callbridge.ErrNull)
}
