package callbridge_test

import (
	"testing"

	"callbridge"
	"callbridge/internal/host"
)

func TestHookInCHoldsOneCallback(t *testing.T) {
	hook := host.Hook()
	var destroyed counter
	h := must[callbridge.Handle](t)(callbridge.Register(answer(1), callbridge.WithDestroy(destroyed.count)))
	ok(t, hook.SetOnce(h))
	ok(t, h.Release()) // the hook's reference keeps it
	equal(t, "called", must[int](t)(hook.Call(nil)), 1)
	second := must[*callbridge.Callback](t)(callbridge.New(answer(2)))
	defer second.Close()
	is(t, hook.SetOnce(second.Handle()), callbridge.ErrExists)
	old := must[callbridge.Handle](t)(hook.Swap(second.Handle()))
	equal(t, "the old one", old, h)
	equal(t, "called", must[int](t)(hook.Call(nil)), 2)
	ok(t, old.Release())
	equal(t, "destroyed", destroyed.Load(), 1)
	ok(t, second.Close())
	_, err := hook.Call(nil)
	is(t, err, callbridge.ErrNotFound)
}
