package callbridge_test

import (
	"fmt"
	"runtime/debug"
	"testing"
	"unsafe"

	"callbridge"
	"callbridge/internal/host"
)

// What must not be done ends in an error.

func TestMisuseGoPointerAsAHandle(t *testing.T) {
	value := new([4]int)
	fn := func() int { return value[0] }
	for _, p := range []unsafe.Pointer{unsafe.Pointer(value), unsafe.Pointer(&fn), *(*unsafe.Pointer)(unsafe.Pointer(&fn))} {
		raw := callbridge.Handle(uintptr(p))
		for _, outcome := range []host.Outcome{host.Call(raw, 0), host.CallOnThread(raw, 0)} {
			if outcome.Status != callbridge.ErrStale && outcome.Status != callbridge.ErrKind {
				t.Fatalf("a pointer as a handle: %+v", outcome)
			}
		}
		_, err := raw.Call(nil)
		if err == nil || raw.Release() == nil || raw.Unregister() == nil || raw.Retain() == nil || raw.IsLive() {
			t.Fatal("a pointer passed as a handle")
		}
		if _, err := callbridge.NewThunk(raw); err == nil {
			t.Fatal("a pointer passed as a handle")
		}
	}
}

func TestMisuseGoPointerAsUserData(t *testing.T) {
	c := must[*callbridge.Callback](t)(callbridge.New(answer(1)))
	defer c.Close()
	value := new([4]int)
	for _, userData := range []uintptr{uintptr(unsafe.Pointer(value)), 0, 1<<24 - 1, 1 << 24, ^uintptr(0)} {
		outcome := host.CallWith(c.Handle(), userData)
		equal(t, "the status", outcome.Status, callbridge.ErrCallback)
		contains(t, outcome.Words, "no Go function was registered with this user_data")
	}
}

func TestMisuseGoPointerInTheArgument(t *testing.T) {
	c := must[*callbridge.Callback](t)(callbridge.New(answer(1)))
	defer c.Close()
	type node struct{ next *node }
	defer func() { contains(t, fmt.Sprint(recover()), "has Go pointer to unpinned Go pointer") }()
	c.Call(unsafe.Pointer(&node{&node{}}))
	t.Fatal("a pointer to a pointer went to C")
}

func TestMisuseFreedThunkReturnsItsFallback(t *testing.T) {
	h := must[callbridge.Handle](t)(callbridge.Register(answer(1), callbridge.WithFallback(callbridge.Int(-1))))
	thunk := must[*callbridge.Thunk](t)(callbridge.NewThunk(h))
	fn := thunk.Func()
	equal(t, "open", host.CallFunc(fn, 0), 1)
	before := must[callbridge.Stats](t)(callbridge.StatsOf(callbridge.DefaultScope))
	ok(t, thunk.Close())
	equal(t, "closed", host.CallFunc(fn, 0), -1)
	ok(t, h.Unregister())
	equal(t, "closed, and its callback gone", host.CallFunc(fn, 0), -1)
	after := must[callbridge.Stats](t)(callbridge.StatsOf(callbridge.DefaultScope))
	equal(t, "stale calls of thunks", after.ThunkStale-before.ThunkStale, 2)
	is(t, thunk.Retarget(h), callbridge.ErrStale)
}

func TestMisuseThunkOfACallbackThatIsGone(t *testing.T) {
	c := must[*callbridge.Callback](t)(callbridge.New(answer(1), callbridge.WithFallback(callbridge.Int(-2))))
	thunk := must[*callbridge.Thunk](t)(callbridge.NewThunk(c.Handle()))
	defer thunk.Close()
	callers := host.CallersOfFunc(2, thunk.Func())
	await(t, "calls", func() bool { return callers.Now().OK > 10 })
	ok(t, c.CloseWait(-1))
	before := callers.Now().OK
	await(t, "calls of what is gone", func() bool { return callers.Now().OK > before+100 })
	callers.Stop()
	equal(t, "the fallback", host.CallFunc(thunk.Func(), 0), -2)
}

func TestMisuseHandleOfAnotherKind(t *testing.T) {
	scope := must[callbridge.Scope](t)(callbridge.OpenScope("not a callback"))
	defer scope.Close(-1)
	_, err := callbridge.Handle(scope).Call(nil)
	is(t, err, callbridge.ErrKind)
	_, err = callbridge.Scope(1).Close(0)
	is(t, err, callbridge.ErrStale)
	_, err = callbridge.DefaultScope.Close(0)
	is(t, err, callbridge.ErrInvalid)
}

func TestMisuseStatusSaysItsNameAndWhatItMeans(t *testing.T) {
	_, err := callbridge.Handle(0).Call(nil)
	is(t, err, callbridge.ErrStale)
	contains(t, err.Error(), "stale")
	equal(t, "the name", callbridge.ErrStale.Name(), "CBR_ERR_STALE")
	contains(t, callbridge.ErrDeadlock.Error(), "never end")
}

func TestMisuseCollectorAtAnyMoment(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(1))
	for i := range 2000 {
		c := must[*callbridge.Callback](t)(callbridge.New(func(arg callbridge.Value) (int, error) {
			room := make([]*int, 100)
			room[99] = callbridge.At[int](arg)
			return *room[99], nil
		}))
		n := new(int)
		*n = i
		equal(t, "the result", must[int](t)(c.Call(unsafe.Pointer(n))), i)
		// And not closed: what is forgotten is the collector's.
	}
}
