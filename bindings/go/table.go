package callbridge

import (
	"sync"
	"sync/atomic"
)

// functions is where C's user_data, a number, leads to a Go function. It is what keeps the function and
// everything that it refers to alive from the registration until destroy.
//
// A look is two loads, no lock: chunks never move and are never freed. Whether the number is still right
// needs no check, because the library calls only what lives.
var functions table

const (
	chunkBits = 12
	tableBits = 24
	chunkMask = 1<<chunkBits - 1
)

type table struct {
	chunks [1 << (tableBits - chunkBits)]atomic.Pointer[chunk]
	// free is the top of the stack of free places: its id in the low half, 0 for none, and in the high
	// half how often it has changed, so that a pop which another pop and push have overtaken fails.
	free atomic.Uint64
	grow sync.Mutex
	size uintptr // chunks that there are
}

type chunk [1 << chunkBits]place

// place is written before its id goes to C, and when C is done with it.
type place struct {
	function
	next atomic.Uint32 // the id of the free place below this one
}

// get is the function of id; nil if there can be none, such as for a pointer that poses as an id.
func (t *table) get(id uintptr) *function {
	if id>>chunkBits < uintptr(len(t.chunks)) {
		if c := t.chunks[id>>chunkBits].Load(); c != nil {
			return &c[id&chunkMask].function
		}
	}
	return nil
}

// place is that of an id that add has given.
func (t *table) place(id uintptr) *place {
	return &t.chunks[id>>chunkBits].Load()[id&chunkMask]
}

// add finds a place for the function and returns its id; 0 if all are taken.
func (t *table) add(f function) uintptr {
	for {
		top := t.free.Load()
		id := uintptr(uint32(top))
		if id == 0 {
			if !t.addChunk() {
				return 0
			}
			continue
		}
		p := t.place(id)
		if t.free.CompareAndSwap(top, (top>>32+1)<<32|uint64(p.next.Load())) {
			p.function = f
			return id
		}
	}
}

// take empties the place of id, which add has given, and returns what was in it.
func (t *table) take(id uintptr) function {
	p := t.place(id)
	f := p.function
	p.function = function{}
	t.push(id, p)
	return f
}

// push puts free places on the stack: first, which leads to last.
func (t *table) push(first uintptr, last *place) {
	for {
		top := t.free.Load()
		last.next.Store(uint32(top))
		if t.free.CompareAndSwap(top, (top>>32+1)<<32|uint64(first)) {
			return
		}
	}
}

// addChunk makes more places, unless somebody else just has. False: there are as many as there can be.
func (t *table) addChunk() bool {
	t.grow.Lock()
	defer t.grow.Unlock()
	if uint32(t.free.Load()) != 0 {
		return true
	}
	if t.size == uintptr(len(t.chunks)) {
		return false
	}
	it, first := new(chunk), t.size<<chunkBits
	for i := range len(it) - 1 {
		it[i].next.Store(uint32(first) + uint32(i) + 1)
	}
	t.chunks[t.size].Store(it)
	t.size++
	if first == 0 {
		first = 1 // 0 is no id
	}
	t.push(first, &it[len(it)-1])
	return true
}
