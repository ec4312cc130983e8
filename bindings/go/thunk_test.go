package callbridge_test

import (
	"cmp"
	"math"
	"slices"
	"testing"
	"unsafe"

	"callbridge"
	"callbridge/internal/host"
)

const compareSignature = "i32(ptr,ptr)"

func compare(args callbridge.Args) (callbridge.Value, error) {
	a, b := *callbridge.At[int32](args[0]), *callbridge.At[int32](args[1])
	return callbridge.Int(int64(cmp.Compare(a, b))), nil
}

// typedThunk is a thunk of a callback that both end with the test.
func typedThunk(t *testing.T, signature string, fn callbridge.TypedFunc, options ...callbridge.Option) (*callbridge.Thunk, *callbridge.Callback) {
	t.Helper()
	c := must[*callbridge.Callback](t)(callbridge.NewTyped(signature, fn, options...))
	s := must[callbridge.Signature](t)(callbridge.ParseSignature(signature))
	thunk := must[*callbridge.Thunk](t)(callbridge.NewThunkOf(s, c.Handle()))
	t.Cleanup(func() {
		ok(t, thunk.Close())
		ok(t, c.Close())
	})
	return thunk, c
}

func TestThunkSortsWithQsort(t *testing.T) {
	thunk, _ := typedThunk(t, compareSignature, compare)
	items := []int32{5, -3, math.MaxInt32, 0, -7, 5}
	host.Sort(thunk.Func(), items)
	if !slices.IsSorted(items) {
		t.Fatal(items)
	}
}

func TestThunkPassesEveryTypeOfArgument(t *testing.T) {
	mixed, _ := typedThunk(t, "f64(i8,f64,u16,f32,bool,i64)", func(a callbridge.Args) (callbridge.Value, error) {
		equal(t, "i8", a[0].Int(), -1)
		equal(t, "f64", a[1].Float64(), 0.5)
		equal(t, "u16", a[2].Uint(), 65535)
		equal(t, "f32", a[3].Float32(), 0.25)
		equal(t, "bool", a[4].Bool(), true)
		equal(t, "i64", a[5].Int(), math.MinInt64)
		return callbridge.Float64(-2.5), nil
	})
	equal(t, "f64", host.CallMixed(mixed.Func()), -2.5)
	float, _ := typedThunk(t, "f32(f32)", func(a callbridge.Args) (callbridge.Value, error) {
		return callbridge.Float32(a[0].Float32() * 2), nil
	})
	equal(t, "f32", host.CallFloat(float.Func(), 1.25), 2.5)
	small, _ := typedThunk(t, "i8(i8)", func(a callbridge.Args) (callbridge.Value, error) {
		return a[0] - 1, nil
	})
	equal(t, "i8", host.CallSmall(small.Func(), -128), 127)
	var called counter
	void, _ := typedThunk(t, "void()", func(callbridge.Args) (callbridge.Value, error) {
		called.count()
		return 0, nil
	})
	host.CallVoid(void.Func())
	equal(t, "void() was called", called.Load(), 1)
}

func TestThunkLooksAtNoMoreOfARegisterThanItsTypeHas(t *testing.T) {
	const dirt = 0xfedcba9876543280
	for _, it := range []struct {
		kind string
		want callbridge.Value
	}{
		{"bool", 1}, {"i8", callbridge.Int(-128)}, {"u8", 0x80}, {"i16", callbridge.Int(0x3280)}, {"u16", 0x3280},
		{"i32", callbridge.Int(0x76543280)}, {"u32", 0x76543280}, {"u64", dirt}, {"ptr", dirt},
	} {
		var got callbridge.Value
		thunk, _ := typedThunk(t, it.kind+"("+it.kind+")", func(a callbridge.Args) (callbridge.Value, error) {
			got = a[0]
			return dirt, nil
		})
		result := host.CallRaw(thunk.Func(), dirt)
		equal(t, "the argument as "+it.kind, got, it.want)
		equal(t, "the result as "+it.kind, callbridge.Value(result), it.want)
	}
	var got float32
	thunk, _ := typedThunk(t, "u32(f32)", func(a callbridge.Args) (callbridge.Value, error) {
		got = a[0].Float32()
		return a[0], nil // nothing but its own 32 bits
	})
	host.CallFloat(thunk.Func(), 1.5)
	equal(t, "the argument as f32", got, 1.5)
}

func TestThunkOfMoreArgumentsThanRegistersIsRefused(t *testing.T) {
	_, err := callbridge.NewTyped("i32(i32,i32,i32,i32,i32,i32,i32,i32)", compare)
	is(t, err, callbridge.ErrUnsupported)
	_, err = callbridge.NewTyped("i32(void)", compare)
	is(t, err, callbridge.ErrInvalid)
	c := must[*callbridge.Callback](t)(callbridge.New(answer(1)))
	defer c.Close()
	s := must[callbridge.Signature](t)(callbridge.ParseSignature(compareSignature))
	equal(t, "the signature in words", s.String(), compareSignature)
	_, err = callbridge.NewThunkOf(s, c.Handle())
	is(t, err, callbridge.ErrSignature)
	typed := must[*callbridge.Callback](t)(callbridge.NewTyped(compareSignature, compare))
	defer typed.Close()
	_, err = typed.Call(nil)
	is(t, err, callbridge.ErrSignature)
}

func TestThunkKeepsItsCallbackUntilItIsClosed(t *testing.T) {
	var destroyed counter
	h := must[callbridge.Handle](t)(callbridge.Register(answer(9), callbridge.WithDestroy(destroyed.count)))
	thunk := must[*callbridge.Thunk](t)(callbridge.NewThunk(h))
	ok(t, h.Release())
	equal(t, "called by C", host.CallFunc(thunk.Func(), 0), 9)
	ok(t, thunk.Close())
	ok(t, thunk.Close())
	equal(t, "destroyed", destroyed.Load(), 1)
}

func TestThunkThatIsUnreachableIsClosed(t *testing.T) {
	var destroyed counter
	fn := func() unsafe.Pointer {
		h := must[callbridge.Handle](t)(callbridge.Register(answer(9), callbridge.WithDestroy(destroyed.count), callbridge.WithFallback(callbridge.Int(-1))))
		thunk := must[*callbridge.Thunk](t)(callbridge.NewThunk(h))
		ok(t, h.Release())
		return thunk.Func()
	}()
	awaitCollection(t, "destroy", func() bool { return destroyed.Load() == 1 })
	equal(t, "called by C", host.CallFunc(fn, 0), -1)
}

func TestThunkPermanentStaysWithoutItsObject(t *testing.T) {
	h := must[callbridge.Handle](t)(callbridge.Register(answer(9)))
	fn := must[*callbridge.Thunk](t)(callbridge.NewPermanentThunk(callbridge.DefaultSignature, h)).Func()
	collect(t)
	equal(t, "called by C", host.CallFunc(fn, 0), 9)
	ok(t, h.Unregister())
}

func TestThunkReturnsTheFallbackOfAPanic(t *testing.T) {
	thunk, _ := typedThunk(t, "i8(i8)", func(callbridge.Args) (callbridge.Value, error) { panic("no") },
		callbridge.WithFallback(callbridge.Int(-5)))
	equal(t, "the fallback", host.CallSmall(thunk.Func(), 1), -5)
}

func TestThunkIsRetargetedUnderCalls(t *testing.T) {
	first := must[*callbridge.Callback](t)(callbridge.New(answer(1)))
	defer first.Close()
	second := must[*callbridge.Callback](t)(callbridge.New(answer(2)))
	defer second.Close()
	thunk := must[*callbridge.Thunk](t)(callbridge.NewThunk(first.Handle()))
	defer thunk.Close()
	callers := host.CallersOfFunc(2, thunk.Func())
	for range 1000 {
		ok(t, thunk.Retarget(second.Handle()))
		equal(t, "called by C", host.CallFunc(thunk.Func(), 0), 2)
		ok(t, thunk.Retarget(first.Handle()))
		equal(t, "called by C", host.CallFunc(thunk.Func(), 0), 1)
	}
	callers.Stop()
}
