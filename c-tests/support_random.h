/* Random numbers that can be had again: the seed is printed and CALLBRIDGE_TEST_SEED sets it. */
#ifndef CALLBRIDGE_SUPPORT_RANDOM_H
#define CALLBRIDGE_SUPPORT_RANDOM_H

#include "harness.h"

struct rng {
  uint64_t state;
};

/* splitmix64: any seed will do, also consecutive ones for several threads. */
static inline uint64_t rng_next(struct rng *it) {
  uint64_t z = (it->state += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

static inline uint64_t rng_below(struct rng *it, uint64_t bound) { return rng_next(it) % bound; }

static inline uint64_t rng_seed(void) {
  const char *text = getenv("CALLBRIDGE_TEST_SEED");
  uint64_t seed = text != NULL ? strtoull(text, NULL, 0) : (uint64_t)now_ns() ^ (uint64_t)getpid();
  printf("%s: CALLBRIDGE_TEST_SEED=%llu\n", harness_current, (unsigned long long)seed);
  fflush(stdout);
  return seed;
}

#endif
