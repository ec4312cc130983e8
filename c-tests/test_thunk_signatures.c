/* Thousands of random signatures: every argument and the result arrive bit for bit, and so does the
 * fallback. The callers and callees are generated (generate_signatures.py) and compiled with -O2, and
 * once more with -fsanitize=undefined. */
#include "support_thunk.h"

#include "support_signatures.h"

static const struct signature_case *in_call;
static int calls;

void entered(void *user_data, int number, int arguments) {
  if (in_call != &signature_cases[number]) FAIL("another callee runs: that of case %d", number);
  if (user_data != &signature_cases[number]) FAIL("user_data of case %d is %p", number, user_data);
  CHECK_EQ(arguments, signature_cases[number].signature >> 60);
  calls++;
}

static const char *words_of(cbr_signature signature) {
  static char words[128];
  cbr_signature_format(signature, words, sizeof words);
  return words;
}

void same(int number, int argument, uint64_t got, uint64_t expected) {
  if (got == expected) return;
  FAIL("argument %d of case %d, %s, is 0x%llx, and was passed as 0x%llx", argument, number,
       words_of(signature_cases[number].signature), (unsigned long long)got,
       (unsigned long long)expected);
}

static void check_result(const struct signature_case *it, uint64_t got, uint64_t expected) {
  if (got == expected) return;
  FAIL("the result of case %d, %s, is 0x%llx, and was returned as 0x%llx",
       (int)(it - signature_cases), words_of(it->signature), (unsigned long long)got,
       (unsigned long long)expected);
}

/* More calls than a thread makes before it enters a callback in the short way. */
TEST(every_argument_and_result_arrives_bit_for_bit) {
  CHECK(signature_case_count >= 3000);
  for (int number = 0; number < signature_case_count; number++) {
    const struct signature_case *it = in_call = &signature_cases[number];
    cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
    cbr_handle handle;
    cbr_thunk thunk;
    options.fn = it->callee;
    options.user_data = (void *)(uintptr_t)it;
    options.signature = it->signature;
    options.fallback.u = it->fallback;
    CHECK_OK(cbr_register_with(&options, &handle));
    cbr_any_fn fn = thunk_of(handle, it->signature, &thunk);
    calls = 0;
    int rounds = number % 8 == 0 ? (int)scaled(2200) : 3;
    for (int i = 0; i < rounds; i++) check_result(it, it->caller(fn), it->returned);
    CHECK_EQ(calls, rounds);
    CHECK_OK(cbr_unregister(handle));
    check_result(it, it->caller(fn), it->fallback);
    CHECK_OK(cbr_thunk_close(thunk));
    check_result(it, it->caller(fn), it->fallback);
    CHECK_EQ(calls, rounds);
  }
}

TEST(the_random_signatures_take_every_way) {
  int seen[2][15][15] = {{{0}}};
  int stack = 0;
  for (int number = 0; number < signature_case_count; number++) {
    cbr_signature signature = signature_cases[number].signature;
    int integers = 0, floats = 0, returned = (int)(signature >> 56 & 15);
    for (int i = 0; i < (int)(signature >> 60); i++) {
      int type = (int)(signature >> (52 - 4 * i) & 15);
      if (type == CBR_F32 || type == CBR_F64) floats++;
      else integers++;
    }
    seen[returned == CBR_F32 || returned == CBR_F64][integers][floats]++;
    stack += integers > 5 || floats > 8;
  }
  for (int floating = 0; floating < 2; floating++) {
    for (int n = 0; n <= 14; n++) CHECK(seen[floating][n][0] > 0 && seen[floating][0][n] > 0);
  }
  CHECK(stack > signature_case_count / 5);
}
