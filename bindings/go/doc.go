// Package callbridge lets C call Go functions safely: through handles that never dangle.
//
// C keeps a function pointer and a void pointer, and Go has a garbage collector. With this package C keeps a
// [Handle], a 64-bit number that stands for a Go function. Everything that the function refers to stays alive
// as long as C may call it, and is freed afterwards; a call that comes too late is CBR_ERR_STALE to C and
// [ErrStale] to Go, not a crash; a panic in the function is an error to the caller. A call costs about as much
// as that of a bare exported function.
//
// It is the Go side of libcallbridge, whose header callbridge.h is C's side, and needs cgo and the library,
// found by pkg-config.
//
// # Ways
//
// The ways differ in who ends the callback:
//
//   - [New]: the object, by Close, or by the collector should that have been forgotten.
//   - [NewOwned]: C, whose last release frees the Go value; [NewWeak]: the end of the Go value, C being told.
//   - [NewSingleton]: as New, and C finds it by name; there is one in the process.
//   - [NewRegistry]: whoever unregisters a key, on many goroutines and threads.
//   - [Register]: whoever calls Release or Unregister.
//
// [NewThunk] makes a plain C function pointer of any of them, and [NewEvents] brings what C threads post to a
// Go channel.
//
// # Threads
//
// Everything may be used on any goroutine, and inside callbacks and destroy functions. A callback runs on the
// thread that calls: in the goroutine that has called C, or in one of its own if the thread is C's. No lock is
// held while it runs.
//
// # Errors
//
// Errors are [Error] with a [Status], which errors.Is finds. A call that fails changes nothing, unless its
// comment says otherwise: it takes nothing over and runs no destroy function.
package callbridge
