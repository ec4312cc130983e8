/* What the generated callers and callees (generate_signatures.py) and their test share. Values travel
 * as 64 bits and are compared as bits: a number that is not one is not equal to itself. */
#ifndef CALLBRIDGE_SUPPORT_SIGNATURES_H
#define CALLBRIDGE_SUPPORT_SIGNATURES_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include <callbridge.h>

struct signature_case {
  cbr_signature signature;
  cbr_any_fn callee;
  uint64_t (*caller)(cbr_any_fn fn); /* the result's bits */
  uint64_t returned, fallback;
};
extern const struct signature_case signature_cases[];
extern const int signature_case_count;

/* In the test: the callee of this number runs, with so many arguments; an argument is as it was passed. */
void entered(void *user_data, int number, int arguments);
void same(int number, int argument, uint64_t got, uint64_t expected);

#define SIGNATURE_VALUE_(name, type, bits)                \
  static inline type of_##name(uint64_t value) {          \
    bits narrow = (bits)value;                            \
    type result;                                          \
    memcpy(&result, &narrow, sizeof result);              \
    return result;                                        \
  }                                                       \
  static inline uint64_t to_##name(type value) {          \
    bits narrow;                                          \
    memcpy(&narrow, &value, sizeof narrow);               \
    return narrow;                                        \
  }
SIGNATURE_VALUE_(BOOL, bool, uint8_t)
SIGNATURE_VALUE_(I8, int8_t, uint8_t)
SIGNATURE_VALUE_(U8, uint8_t, uint8_t)
SIGNATURE_VALUE_(I16, int16_t, uint16_t)
SIGNATURE_VALUE_(U16, uint16_t, uint16_t)
SIGNATURE_VALUE_(I32, int32_t, uint32_t)
SIGNATURE_VALUE_(U32, uint32_t, uint32_t)
SIGNATURE_VALUE_(I64, int64_t, uint64_t)
SIGNATURE_VALUE_(U64, uint64_t, uint64_t)
SIGNATURE_VALUE_(F32, float, uint32_t)
SIGNATURE_VALUE_(F64, double, uint64_t)
SIGNATURE_VALUE_(PTR, void *, uint64_t)

#endif
