package callbridge_test

import (
	"errors"
	"runtime"
	"sync"
	"testing"

	"callbridge"
	"callbridge/internal/host"
)

func panics(cause any) callbridge.Func {
	return func(callbridge.Value) (int, error) { panic(cause) }
}

func TestPanicComesBackAsAnErrorWithTheText(t *testing.T) {
	var none map[string]int
	for _, it := range []struct {
		fn   callbridge.Func
		text string
	}{
		{panics("no more tea"), "no more tea"},
		{panics(errors.New("an error")), "an error"},
		{func(callbridge.Value) (int, error) { none["x"] = 1; return 0, nil }, "assignment to entry in nil map"},
		{func(callbridge.Value) (int, error) { var p *int; return *p, nil }, "nil pointer dereference"},
		{panics(nil), "panic called with nil argument"},
	} {
		c := must[*callbridge.Callback](t)(callbridge.New(it.fn))
		_, err := c.Call(nil)
		is(t, err, callbridge.ErrPanic)
		contains(t, err.Error(), it.text)
		for _, outcome := range []host.Outcome{host.Call(c.Handle(), 0), host.CallOnThread(c.Handle(), 0)} {
			equal(t, "what C gets", outcome.Status, callbridge.ErrPanic)
			contains(t, outcome.Words, it.text)
		}
		// The call is over: nothing is in flight that its end would wait for.
		ok(t, c.CloseWait(-1))
	}
}

func TestPanicErrorComesBackWithTheText(t *testing.T) {
	c := must[*callbridge.Callback](t)(callbridge.New(func(callbridge.Value) (int, error) { return 3, errors.New("out of tea") }))
	defer c.Close()
	n, err := c.Call(nil)
	is(t, err, callbridge.ErrCallback)
	contains(t, err.Error(), "out of tea")
	equal(t, "the result", n, 0)
	contains(t, host.CallOnThread(c.Handle(), 0).Words, "out of tea")
}

func TestPanicOnErrorIsToldAndMayPanic(t *testing.T) {
	var told error
	c := must[*callbridge.Callback](t)(callbridge.New(panics("first"), callbridge.WithOnError(func(err error) {
		told = err
		panic("second")
	})))
	defer c.Close()
	_, err := c.Call(nil)
	is(t, err, callbridge.ErrPanic)
	contains(t, err.Error(), "first")
	is(t, told, callbridge.ErrPanic)
	equal(t, "what it is told", told.Error(), "first")
}

func TestPanicInDestroyIsContained(t *testing.T) {
	for _, end := range []func(callbridge.Handle) error{
		callbridge.Handle.Release,
		callbridge.Handle.Unregister,
		func(h callbridge.Handle) error { return h.UnregisterWait(-1) },
		func(h callbridge.Handle) error {
			if status := host.ReleaseOnThread(h); status != 0 {
				return status
			}
			return nil
		},
	} {
		var begun counter
		h := must[callbridge.Handle](t)(callbridge.Register(answer(1), callbridge.WithDestroy(func() {
			begun.count()
			panic("in destroy")
		})))
		ok(t, end(h))
		equal(t, "destroy has begun", begun.Load(), 1)
		is(t, h.UnregisterWait(-1), callbridge.ErrStale)
	}
}

func TestPanicNestedReachesEachCaller(t *testing.T) {
	inner := must[*callbridge.Callback](t)(callbridge.New(panics("innermost")))
	defer inner.Close()
	outer := must[*callbridge.Callback](t)(callbridge.New(func(callbridge.Value) (int, error) {
		_, err := inner.Call(nil)
		if !errors.Is(err, callbridge.ErrPanic) {
			return 0, errors.New("not told")
		}
		panic(err)
	}))
	defer outer.Close()
	_, err := outer.Call(nil)
	is(t, err, callbridge.ErrPanic)
	contains(t, err.Error(), "innermost")
}

// What FailNow of package testing does in a callback: the goroutine ends, and the call with it.
func TestPanicGoexitEndsTheCall(t *testing.T) {
	var destroyed counter
	c := must[*callbridge.Callback](t)(callbridge.New(func(callbridge.Value) (int, error) {
		runtime.Goexit()
		return 0, nil
	}, callbridge.WithDestroy(destroyed.count)))
	outer := must[*callbridge.Callback](t)(callbridge.New(func(callbridge.Value) (int, error) { return c.Call(nil) },
		callbridge.WithDestroy(destroyed.count)))
	var group sync.WaitGroup
	for range 10 {
		group.Go(func() {
			outer.Call(nil)
			t.Error("it went on after Goexit")
		})
	}
	group.Wait()
	ok(t, c.CloseWait(-1))
	ok(t, outer.CloseWait(-1))
	equal(t, "destroyed", destroyed.Load(), 2)
}

func TestPanicGoexitInDestroyLeavesOthersInOrder(t *testing.T) {
	var group sync.WaitGroup
	for range 10 {
		group.Go(func() {
			h, err := callbridge.Register(answer(1), callbridge.WithDestroy(runtime.Goexit))
			if err == nil {
				err = h.Release()
			}
			t.Error("it went on after Goexit", err)
		})
	}
	group.Wait()
	for i := range 1000 {
		var destroyed counter
		h := must[callbridge.Handle](t)(callbridge.Register(answer(i), callbridge.WithDestroy(destroyed.count)))
		equal(t, "the result", must[int](t)(h.Call(nil)), i)
		ok(t, h.UnregisterWait(-1))
		equal(t, "destroyed", destroyed.Load(), 1)
	}
}
