// C's qsort takes a function and no data. A thunk is a function pointer that carries a Go closure.
package main

/*
#cgo pkg-config: callbridge
#include <stdint.h>
#include <stdlib.h>

static void sort(int32_t *items, size_t count, void *compare) {
  qsort(items, count, sizeof *items, (int (*)(const void *, const void *))compare);
}
*/
import "C"

import (
	"cmp"
	"fmt"
	"log"
	"os"
	"slices"

	"callbridge"
)

func main() {
	compared := 0
	compare, err := callbridge.NewTyped("int(ptr,ptr)", func(args callbridge.Args) (callbridge.Value, error) {
		compared++
		a, b := *callbridge.At[int32](args[0]), *callbridge.At[int32](args[1])
		return callbridge.Int(int64(cmp.Compare(a, b))), nil
	})
	if err != nil {
		log.Fatal(err)
	}
	defer compare.Close()
	signature, err := callbridge.ParseSignature("int(ptr,ptr)")
	if err != nil {
		log.Fatal(err)
	}
	thunk, err := callbridge.NewThunkOf(signature, compare.Handle())
	if err != nil {
		log.Fatal(err)
	}
	defer thunk.Close()

	items := []int32{5, 3, 9, -2, 7}
	C.sort((*C.int32_t)(&items[0]), C.size_t(len(items)), thunk.Func())
	fmt.Println(items, "after", compared, "comparisons")
	if !slices.IsSorted(items) || compared == 0 {
		os.Exit(1)
	}
}
