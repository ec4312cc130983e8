package callbridge

// #include <stdlib.h>
// #include "bridge.h"
import "C"

import "unsafe"

// Report is a table of the live callbacks of the scope, or of the process for DefaultScope, for people.
func Report(scope Scope) (string, error) { return text(scope, false) }

// Metrics is the metrics of the scope, or of the process for DefaultScope, as OpenMetrics text.
func Metrics(scope Scope) (string, error) { return text(scope, true) }

func text(scope Scope, metrics bool) (string, error) {
	r := C.cbrgo_text(C.cbr_scope(scope), C.bool(metrics))
	if r.status != C.CBR_OK {
		return "", finish(r)
	}
	defer C.free(unsafe.Pointer(r.words))
	return C.GoStringN(r.words, C.int(r.value)), nil
}

// Stats is numbers of the process: cbr_stats says what each one is.
type Stats struct {
	Live, Registered, Destroyed, DestroyPending          uint64
	Calls, Failures, Stale, InFlight                     uint64
	Threads, Queues, Queued, Posted, Dispatched, Dropped uint64
	Thunks, ThunkStale                                   uint64
}

// StatsOf gives the numbers of the scope, or of the process for DefaultScope.
func StatsOf(scope Scope) (Stats, error) {
	r := C.cbrgo_stats(C.cbr_scope(scope))
	n := r.numbers
	return Stats{
		uint64(n.live), uint64(n.registered), uint64(n.destroyed), uint64(n.destroy_pending),
		uint64(n.calls), uint64(n.failures), uint64(n.stale), uint64(n.in_flight),
		uint64(n.threads), uint64(n.queues), uint64(n.queued), uint64(n.posted), uint64(n.dispatched), uint64(n.dropped),
		uint64(n.thunks), uint64(n.thunk_stale),
	}, finish(r.result)
}
