package callbridge_test

import (
	"runtime"
	"sync"
	"testing"
	"time"

	"callbridge"
	"callbridge/internal/host"
)

func newEvents(t *testing.T, options callbridge.EventsOptions) *callbridge.Events {
	t.Helper()
	options.Name = t.Name()
	e := must[*callbridge.Events](t)(callbridge.NewEvents(options))
	t.Cleanup(func() { ok(t, e.Close()) })
	return e
}

// next receives an event, or fails.
func next(t *testing.T, c <-chan callbridge.Event) (callbridge.Event, bool) {
	t.Helper()
	select {
	case it, open := <-c:
		return it, open
	case <-time.After(30 * time.Second):
		t.Fatal("no event came")
		panic("unreachable")
	}
}

func TestEventsOfACThreadArriveInOrder(t *testing.T) {
	const many = 20000
	for _, policy := range []callbridge.Policy{callbridge.Block, callbridge.Reject} {
		e := newEvents(t, callbridge.EventsOptions{Policy: policy, Capacity: map[callbridge.Policy]int{callbridge.Reject: many}[policy]})
		poster := host.StartPoster(e, 3, many)
		for i := range many {
			it, _ := next(t, e.C())
			equal(t, "the event", host.ReadingOf(it.Data), host.Reading{Source: 3, Number: int64(i)})
			if it.Posted <= 0 {
				t.Fatal("no time")
			}
		}
		equal(t, "posts", poster.Join(), host.Posted{OK: many})
		equal(t, "dropped", e.Dropped(), 0)
	}
}

func TestEventsBlockHasThePosterWait(t *testing.T) {
	const many, capacity = 1000, 4
	e := newEvents(t, callbridge.EventsOptions{Policy: callbridge.Block, Capacity: capacity})
	poster := host.StartPoster(e, 0, many)
	// In the queue, a batch on its way, and so no more:
	const most = 2 * capacity
	await(t, "the queue is full", func() bool { n, err := e.Len(); return err == nil && n == capacity })
	for range 100 {
		runtime.Gosched()
		if n := poster.Now(); n > most {
			t.Fatalf("%d posts have returned without a receiver", n)
		}
	}
	for i := range many {
		it, _ := next(t, e.C())
		equal(t, "the event", host.ReadingOf(it.Data).Number, int64(i))
		if n := poster.Now(); n > i+1+most {
			t.Fatalf("%d posts have returned after %d events", n, i+1)
		}
	}
	equal(t, "posts", poster.Join(), host.Posted{OK: many})
	equal(t, "dropped", e.Dropped(), 0)
}

func TestEventsDropOldestNeverWaitsAndCountsEveryDrop(t *testing.T) {
	const many, capacity = 5000, 8
	e := newEvents(t, callbridge.EventsOptions{Policy: callbridge.DropOldest, Capacity: capacity})
	equal(t, "posts without a receiver", host.StartPoster(e, 0, many).Join(), host.Posted{OK: many})
	ok(t, e.Drain())
	received, last := 0, int64(-1)
	for it, open := next(t, e.C()); open; it, open = next(t, e.C()) {
		n := host.ReadingOf(it.Data).Number
		if n <= last {
			t.Fatalf("%d after %d", n, last)
		}
		received, last = received+1, n
	}
	equal(t, "the newest", last, many-1)
	equal(t, "received and dropped", received+int(e.Dropped()), many)
	if received > 2*capacity {
		t.Fatalf("%d events had room", received)
	}
}

func TestEventsRejectTellsThePosterAndCounts(t *testing.T) {
	const many, capacity = 5000, 8
	e := newEvents(t, callbridge.EventsOptions{Policy: callbridge.Reject, Capacity: capacity})
	posted := host.StartPoster(e, 0, many).Join()
	equal(t, "posts", posted.OK+posted.Full, many)
	equal(t, "dropped", e.Dropped(), uint64(posted.Full))
	ok(t, e.Drain())
	received := 0
	for it, open := next(t, e.C()); open; it, open = next(t, e.C()) {
		if received == 0 {
			equal(t, "the first", host.ReadingOf(it.Data).Number, 0)
		}
		received++
	}
	equal(t, "received", received, posted.OK)
	equal(t, "dropped", e.Dropped(), uint64(posted.Full))
}

func TestEventsCountDropsWhateverTheirName(t *testing.T) {
	for _, name := range []string{"", `a} 7`, "a\"b\\c\n} 8 d"} {
		e := must[*callbridge.Events](t)(callbridge.NewEvents(callbridge.EventsOptions{Name: name, Capacity: 1, Policy: callbridge.Reject}))
		posted := host.StartPoster(e, 0, 100).Join()
		equal(t, "dropped", e.Dropped(), uint64(posted.Full))
		ok(t, e.Close())
		equal(t, "dropped at the end", e.Dropped(), 100)
	}
}

func TestEventsOfSeveralSourcesGoIntoOneSelect(t *testing.T) {
	const many = 3000
	a := newEvents(t, callbridge.EventsOptions{Policy: callbridge.Block, Capacity: 16})
	b := newEvents(t, callbridge.EventsOptions{Policy: callbridge.Block, Capacity: 16})
	c := newEvents(t, callbridge.EventsOptions{Policy: callbridge.Block, Capacity: 16})
	posters := []host.Poster{host.StartPoster(a, 0, many), host.StartPoster(b, 1, many), host.StartPoster(c, 2, many)}
	var expected [3]int64
	deadline := time.After(60 * time.Second)
	for range 3 * many {
		var it callbridge.Event
		var source int64
		select {
		case it = <-a.C():
			source = 0
		case it = <-b.C():
			source = 1
		case it = <-c.C():
			source = 2
		case <-deadline:
			t.Fatal("no event came")
		}
		equal(t, "the event", host.ReadingOf(it.Data), host.Reading{Source: source, Number: expected[source]})
		expected[source]++
	}
	for _, poster := range posters {
		equal(t, "posts", poster.Join(), host.Posted{OK: many})
	}
}

func TestEventsWakeAReceiverThatSleeps(t *testing.T) {
	e := newEvents(t, callbridge.EventsOptions{})
	// One at a time: each finds the queue empty and the receiver asleep, or about to be.
	for i := range 5000 {
		equal(t, "posts", host.StartPoster(e, i, 1).Join(), host.Posted{OK: 1})
		it, _ := next(t, e.C())
		equal(t, "the event", host.ReadingOf(it.Data).Source, int64(i))
	}
}

func TestEventsCloseWakesPostersThatWait(t *testing.T) {
	const many, capacity = 2000, 500 // dropping so many takes a while
	for range 200 {
		e := newEvents(t, callbridge.EventsOptions{Policy: callbridge.Block, Capacity: capacity})
		poster := host.StartPoster(e, 0, many)
		await(t, "the queue is full", func() bool { n, err := e.Len(); return err == nil && n == capacity })
		ok(t, e.Close())
		posted := poster.Join()
		equal(t, "posts", posted.OK+posted.Closed, many)
		// A post that meets Close is C's to drop, perhaps after Close has counted.
		if late := posted.OK - int(e.Dropped()); late != 0 && late != 1 {
			t.Fatalf("dropped: %d of %d", e.Dropped(), posted.OK)
		}
		_, open := next(t, e.C())
		equal(t, "the channel is open", open, false)
		ok(t, e.Close())
		ok(t, e.Drain())
		is(t, e.Post(nil), callbridge.ErrClosed)
	}
}

func TestEventsDrainDeliversWhatWaits(t *testing.T) {
	e := newEvents(t, callbridge.EventsOptions{})
	for _, text := range []string{"one", "", "three"} {
		ok(t, e.Post([]byte(text)))
	}
	ok(t, e.Drain())
	ok(t, e.Drain())
	for _, text := range []string{"one", "", "three"} {
		it, open := next(t, e.C())
		equal(t, "open", open, true)
		equal(t, "the event", string(it.Data), text)
	}
	_, open := next(t, e.C())
	equal(t, "open", open, false)
}

func TestEventsCoalesceKeepsTheNewest(t *testing.T) {
	const many = 1000
	e := newEvents(t, callbridge.EventsOptions{Coalesce: true})
	equal(t, "posts", host.StartPoster(e, 0, many).Join(), host.Posted{OK: many})
	ok(t, e.Drain())
	received, last := 0, int64(-1)
	for it, open := next(t, e.C()); open; it, open = next(t, e.C()) {
		received, last = received+1, host.ReadingOf(it.Data).Number
	}
	equal(t, "the newest", last, many-1)
	if received > many/2 {
		t.Fatalf("%d events of %d", received, many)
	}
}

// Goroutines move between threads: the one that receives may post from the thread that has dispatched.
func TestEventsPostByGoroutinesIsNotTakenForADeadlock(t *testing.T) {
	const many = 2000
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	e := newEvents(t, callbridge.EventsOptions{Policy: callbridge.Block, Capacity: 1})
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for range many {
				if err := e.Post([]byte("event")); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	go func() {
		group.Wait()
		e.Drain()
	}()
	received := 0
	for _, open := next(t, e.C()); open; _, open = next(t, e.C()) {
		received++
	}
	equal(t, "received", received, 4*many)
}

func TestEventsAreNotCalled(t *testing.T) {
	e := newEvents(t, callbridge.EventsOptions{})
	outcome := host.CallOnThread(e.Handle(), 0)
	equal(t, "the status", outcome.Status, callbridge.ErrCallback)
	contains(t, outcome.Words, "posted")
}

func TestEventsOpenAndCloseLeaveNothingBehind(t *testing.T) {
	before := must[callbridge.Stats](t)(callbridge.StatsOf(callbridge.DefaultScope))
	goroutines := runtime.NumGoroutine()
	for range 200 {
		e := must[*callbridge.Events](t)(callbridge.NewEvents(callbridge.EventsOptions{}))
		ok(t, e.Post([]byte("waits")))
		ok(t, e.Close())
	}
	after := must[callbridge.Stats](t)(callbridge.StatsOf(callbridge.DefaultScope))
	equal(t, "queues", after.Queues, before.Queues)
	equal(t, "callbacks", after.Live, before.Live)
	await(t, "the goroutines end", func() bool { return runtime.NumGoroutine() <= goroutines })
}

func TestEventsOptionsAreChecked(t *testing.T) {
	for _, options := range []callbridge.EventsOptions{{Capacity: -1}, {Policy: 99}, {Name: "a\x00b"}} {
		_, err := callbridge.NewEvents(options)
		is(t, err, callbridge.ErrInvalid)
	}
}
