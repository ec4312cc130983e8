package callbridge

// #include "events.h"
import "C"

import (
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

// Policy is what a post does when there is no room.
type Policy uint32

const (
	// Reject has the post fail with CBR_ERR_FULL: the new event is dropped, and counted.
	Reject Policy = C.CBR_QUEUE_REJECT
	// DropOldest drops the oldest event, and counts it. The post never waits and never fails.
	DropOldest Policy = C.CBR_QUEUE_DROP_OLDEST
	// Block has the post wait until Go has received.
	Block Policy = C.CBR_QUEUE_BLOCK
)

// EventsOptions describes an Events. Zero in a field is the default.
type EventsOptions struct {
	Name     string // for logs and metrics
	Capacity int    // how many events have room in the queue; 0: 1024
	Policy   Policy
	Coalesce bool // an event replaces the one that waits, so that the newest is received
}

// Event is what C has posted.
type Event struct {
	Data        []byte        // a copy, the receiver's
	Posted      time.Duration // when, by CLOCK_MONOTONIC
	Traceparent string        // the poster's trace context, "" for none
}

// Events brings what C threads post to a Go channel. A C thread, whether Go knows it or not, calls
//
//	cbr_post(queue, handle, data, len);
//
// with Queue and Handle, and never waits for Go unless the policy is Block. Nothing waits in a C function
// for events: an idle Events costs a goroutine that sleeps, no thread.
//
// Of events of one thread the order is kept. Beyond the queue's capacity a batch of up to 64 events, and
// no more than the capacity, may be on its way to the channel, which has no buffer.
//
// It lives, with its goroutine, until Close or Drain: C may know it by its numbers alone.
type Events struct {
	name     string
	scope    Scope
	queue    C.cbr_queue
	handle   Handle
	batch    *C.cbrgo_batch
	most     C.size_t
	file     *os.File
	c        chan Event
	stop     chan struct{} // closed when Close begins
	emptied  chan struct{} // closed when Close has dropped what waited
	ended    chan struct{} // closed when the goroutine has ended, and c with it
	stopping sync.Once
	keeping  sync.Once
	lost     atomic.Uint64
	dropped  uint64 // at the end, before ended is closed
}

const mostAtOnce = 64

// NewEvents opens a queue and starts to receive. To be ended with Close or Drain.
func NewEvents(options EventsOptions) (*Events, error) {
	if options.Capacity < 0 {
		return nil, invalid("a capacity below 0")
	}
	name, free := cString(options.Name)
	defer free()
	var flags C.uint32_t
	if options.Coalesce {
		flags = C.CBR_QUEUE_COALESCE
	}
	it := C.cbrgo_source_open(name, C.size_t(options.Capacity), C.uint32_t(options.Policy), flags)
	if err := finish(it.result); err != nil {
		return nil, err
	}
	e := &Events{
		name:    options.Name,
		scope:   Scope(it.scope),
		queue:   it.queue,
		handle:  Handle(it.handle),
		batch:   it.batch,
		most:    mostAtOnce,
		file:    os.NewFile(uintptr(it.fd), "callbridge queue"),
		c:       make(chan Event),
		stop:    make(chan struct{}),
		emptied: make(chan struct{}),
		ended:   make(chan struct{}),
	}
	if options.Capacity > 0 && options.Capacity < mostAtOnce {
		e.most = C.size_t(options.Capacity)
	}
	raw, err := e.file.SyscallConn()
	if err == nil {
		// The one call that fails if Go's poller has refused the descriptor.
		err = e.file.SetReadDeadline(time.Time{})
	}
	if err != nil {
		e.release()
		return nil, &Error{ErrSystem, "the queue's descriptor cannot be polled: " + err.Error()}
	}
	go e.receive(raw)
	return e, nil
}

// C is the channel. It is closed after Close, or when everything has been received after Drain. Several
// of them, and other channels, go into one select.
func (e *Events) C() <-chan Event { return e.c }

// Queue is the queue's number for cbr_post.
func (e *Events) Queue() uint64 { return uint64(e.queue) }

// Handle is the callback's number for cbr_post. Called, it gives CBR_ERR_CALLBACK.
func (e *Events) Handle() Handle { return e.handle }

// Post posts a copy of data from Go. ErrFull if the policy is Reject; ErrClosed at the end.
func (e *Events) Post(data []byte) error {
	return ending(finish(C.cbrgo_post(e.queue, C.cbr_handle(e.handle), unsafe.Pointer(unsafe.SliceData(data)), C.size_t(len(data)))))
}

// Len is how many events wait in the queue; it may have changed already. ErrClosed at the end.
func (e *Events) Len() (int, error) {
	r := C.cbrgo_queue_len(e.queue)
	return int(r.value), ending(finish(r))
}

// ending makes one of the two things that the library says of a queue that is closed.
func ending(err error) error {
	if e, ok := err.(*Error); ok && e.Status == ErrStale {
		e.Status = ErrClosed
	}
	return err
}

// Dropped is how many events were posted and not delivered: those that the policy has dropped, and after
// Close those that waited then. (Of a thread that posts while Close runs its last one may be missing.)
func (e *Events) Dropped() uint64 {
	select {
	case <-e.ended:
		return e.dropped
	default:
	}
	// Beside the end of the goroutine the scope may be gone already: then it has left the number.
	n, err := e.count()
	if err != nil {
		<-e.ended
		return e.dropped
	}
	return n
}

// count asks the library what was dropped; the scope's metrics have what the policy has, too.
func (e *Events) count() (uint64, error) {
	text, err := Metrics(e.scope)
	if err != nil {
		return 0, err
	}
	return e.lost.Load() + sum(text, "callbridge_queue_dropped_total") + sum(text, "callbridge_queue_refused_total"), nil
}

// sum adds up the samples of a metric that has labels.
func sum(text, metric string) (n uint64) {
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, metric+"{") {
			// From the end: a label may have anything in it.
			line = strings.TrimSpace(line)
			i, _ := strconv.ParseUint(line[strings.LastIndexByte(line, ' ')+1:], 10, 64)
			n += i
		}
	}
	return n
}

// Drain ends posting and delivers what waits; then the channel is closed. It does not wait for that. Drained
// or closed already it does nothing.
func (e *Events) Drain() error {
	return e.closeQueue(C.CBR_CLOSE_DRAIN)
}

// closeQueue closes the queue, if it is not closed already, and has its numbers stay.
func (e *Events) closeQueue(mode C.uint32_t) error {
	e.keeping.Do(func() {
		name, free := cString(e.name)
		defer free()
		C.cbrgo_keep_numbers(C.cbr_scope(e.scope), name)
	})
	return closed(finish(C.cbrgo_queue_close(e.queue, mode)))
}

// closed makes nothing of what says that it is.
func closed(err error) error {
	if errors.Is(err, ErrClosed) || errors.Is(err, ErrStale) {
		return nil
	}
	return err
}

// Close ends posting, wakes posters that wait, drops what waits and closes the channel. It returns when
// that is done, and may be called by the receiver. Closed again it does nothing.
func (e *Events) Close() (err error) {
	e.stopping.Do(func() {
		close(e.stop)
		err = e.closeQueue(C.CBR_CLOSE_DISCARD)
		close(e.emptied)
	})
	<-e.ended
	return err
}

// receive is the goroutine: from the queue to the channel until there is no more.
func (e *Events) receive(raw syscall.RawConn) {
	defer close(e.ended)
	defer close(e.c)
	defer e.release()
	for {
		var events []Event
		var status C.cbr_status
		err := raw.Read(func(fd uintptr) bool {
			status = C.cbrgo_collect(e.queue, C.int(fd), e.most, e.batch)
			events = e.take()
			return len(events) > 0 || status != C.CBR_OK && status != C.CBR_ERR_EMPTY
		})
		for _, it := range events {
			select {
			case e.c <- it:
			case <-e.stop:
				e.lost.Add(1)
			}
		}
		if err != nil || status != C.CBR_OK && status != C.CBR_ERR_EMPTY {
			return // closed
		}
	}
}

// take makes Go's of what was collected: one allocation for the payloads of a batch.
func (e *Events) take() []Event {
	if e.batch.lost > 0 {
		e.lost.Add(uint64(e.batch.lost))
		e.batch.lost = 0
	}
	if e.batch.len == 0 {
		return nil
	}
	bytes := slices.Clone(unsafe.Slice((*byte)(unsafe.Pointer(e.batch.bytes)), e.batch.len))
	events := make([]Event, 0, e.most)
	for len(bytes) > 0 {
		head := *(*C.cbrgo_event)(unsafe.Pointer(&bytes[0]))
		begin := uint64(unsafe.Sizeof(head))
		end := begin + uint64(head.len)
		trace := end + uint64(head.trace_len)
		events = append(events, Event{
			Data:        bytes[begin:end:end],
			Posted:      time.Duration(head.posted_ns),
			Traceparent: string(bytes[end:trace]),
		})
		bytes = bytes[(trace+7)&^7:]
	}
	return events
}

// release gives back what the library has, and keeps the number of what was dropped.
func (e *Events) release() {
	select {
	case <-e.stop:
		<-e.emptied // or the number would not have it all
	default:
	}
	_ = e.closeQueue(C.CBR_CLOSE_DISCARD)
	e.dropped, _ = e.count()
	_, _ = e.scope.Close(-1)
	_ = e.file.Close()
	C.cbrgo_batch_free(e.batch)
}
