/* Signatures: the constant expression, parsing and formatting. */
#include "support_random.h"
#include "support_subject.h"

/* Fixed forms: count, return type, then the arguments from bit 55 down. */
_Static_assert(CBR_SIG(CBR_I32, CBR_PTR, CBR_PTR) == 0x27dd000000000000u, "i32(ptr,ptr)");
_Static_assert(CBR_SIG(CBR_VOID) == 0x0100000000000000u, "void()");
_Static_assert(CBR_SIG(CBR_F64, CBR_F32) == 0x1cb0000000000000u, "f64(f32)");
_Static_assert(CBR_SIG(CBR_BOOL, CBR_I8, CBR_U8, CBR_I16, CBR_U16, CBR_I32, CBR_U32, CBR_I64,
                       CBR_U64, CBR_F32, CBR_F64, CBR_PTR, CBR_BOOL, CBR_I8,
                       CBR_U8) == 0xe23456789abcd234u,
               "fourteen arguments");
_Static_assert(CBR_SIG_DEFAULT == CBR_SIG(CBR_INTPTR, CBR_PTR), "intptr_t(ptr)");
_Static_assert(sizeof(CBR_SIG_DEFAULT) == 8, "a 64-bit constant");
_Static_assert(CBR_VOID == 1 && CBR_BOOL == 2 && CBR_I8 == 3 && CBR_U8 == 4 && CBR_I16 == 5, "");
_Static_assert(CBR_U16 == 6 && CBR_I32 == 7 && CBR_U32 == 8 && CBR_I64 == 9 && CBR_U64 == 10, "");
_Static_assert(CBR_F32 == 11 && CBR_F64 == 12 && CBR_PTR == 13, "");
_Static_assert(CBR_INT == (sizeof(int) == 4 ? CBR_I32 : CBR_I64), "the platform's int");
_Static_assert(CBR_LONG == (sizeof(long) == 4 ? CBR_I32 : CBR_I64), "the platform's long");
_Static_assert(CBR_SIZE == (sizeof(size_t) == 4 ? CBR_U32 : CBR_U64), "the platform's size_t");
_Static_assert(CBR_INTPTR == (sizeof(intptr_t) == 4 ? CBR_I32 : CBR_I64),
               "the platform's intptr_t");

enum { ARGUMENTS = 14 };

static const char *const type_names[] = {NULL,  "void", "bool", "i8",  "u8",  "i16", "u16",
                                         "i32", "u32",  "i64",  "u64", "f32", "f64", "ptr"};

static cbr_signature pack(int result, const int *arguments, int count) {
  cbr_signature signature = (cbr_signature)count << 60 | (cbr_signature)result << 56;
  for (int i = 0; i < count; i++) signature |= (cbr_signature)arguments[i] << (52 - 4 * i);
  return signature;
}

static void spell(char *text, size_t size, int result, const int *arguments, int count) {
  size_t used = (size_t)snprintf(text, size, "%s(", type_names[result]);
  for (int i = 0; i < count; i++) {
    used += (size_t)snprintf(text + used, size - used, "%s%s", i == 0 ? "" : ",",
                             type_names[arguments[i]]);
  }
  snprintf(text + used, size - used, ")");
}

static void check_both_ways(int result, const int *arguments, int count) {
  char text[256], formatted[256];
  cbr_signature expected = pack(result, arguments, count), parsed = 77;
  spell(text, sizeof text, result, arguments, count);
  CHECK_OK(cbr_signature_parse(text, &parsed));
  CHECK_EQ(parsed, expected);
  CHECK_EQ(cbr_signature_format(expected, formatted, sizeof formatted), strlen(text));
  CHECK_STR(formatted, text);
}

TEST(every_type_parses_and_formats_as_result_and_argument) {
  for (int type = CBR_VOID; type <= CBR_PTR; type++) {
    check_both_ways(type, NULL, 0);
    if (type != CBR_VOID) check_both_ways(CBR_VOID, &type, 1);
  }
}

TEST(random_signatures_parse_and_format_both_ways) {
  struct rng rng = {rng_seed()};
  for (long i = 0; i < scaled(100000); i++) {
    int arguments[ARGUMENTS];
    int count = (int)rng_below(&rng, ARGUMENTS + 1);
    for (int j = 0; j < count; j++) arguments[j] = CBR_BOOL + (int)rng_below(&rng, CBR_PTR - 1);
    check_both_ways(CBR_VOID + (int)rng_below(&rng, CBR_PTR), arguments, count);
  }
}

TEST(a_registered_signature_is_the_parsed_one) {
  struct subject it;
  cbr_pin pin;
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  subject_reset(&it);
  options.fn = (cbr_any_fn)subject_fn;
  options.user_data = &it;
  CHECK_OK(cbr_signature_parse("void(i32,f64)", &options.signature));
  CHECK_OK(cbr_register_with(&options, &it.handle));
  CHECK_OK(cbr_enter(it.handle, CBR_SIG(CBR_VOID, CBR_I32, CBR_F64), &pin));
  CHECK_OK(cbr_leave(&pin));
  CHECK_STATUS(cbr_enter(it.handle, CBR_SIG(CBR_VOID, CBR_F64, CBR_I32), &pin), CBR_ERR_SIGNATURE);
  CHECK_OK(cbr_unregister(it.handle));
}

static void check_no_parse(const char *text) {
  cbr_signature signature = 77;
  cbr_status status = cbr_signature_parse(text, &signature);
  if (status != CBR_ERR_INVALID) FAIL("\"%.80s\" gives %s", text, cbr_status_name(status));
  CHECK_EQ(signature, 77);
}

TEST(what_is_no_signature_does_not_parse) {
  static const char *const texts[] = {
      "",
      " ",
      "i32",
      "(",
      ")",
      "()",
      "i32(",
      "i32)",
      "i32(ptr",
      "i32(ptr,",
      "i32(ptr,)",
      "i32(,)",
      "i32(,ptr)",
      "i32(ptr,,ptr)",
      "i32(ptr ptr)",
      "i32(ptr;ptr)",
      "i32(ptr))",
      "i32((ptr))",
      "i32(ptr)x",
      "i32(ptr)()",
      "x(ptr)",
      "i32(x)",
      "i3(ptr)",
      "i322(ptr)",
      "i128(ptr)",
      "i(ptr)",
      "I32(ptr)",
      "i32(PTR)",
      "i32(void)",
      "void(void)",
      "i32(ptr,void)",
      "ptr(void,ptr)",
      "\xff",
      "i32(\xc3\xa4)",
      "i32\n(ptr\x01)",
      "0x27dd000000000000",
      "i32(ptr,...)",
      "(ptr)",
  };
  for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) check_no_parse(texts[i]);
  CHECK_WORDS("i"); /* there are words for it */
}

TEST(fifteen_arguments_are_too_many) {
  char text[128] = "void(i8";
  cbr_signature signature = 0;
  for (int i = 1; i < ARGUMENTS; i++) strcat(text, ",i8");
  size_t length = strlen(text);
  strcat(text, ")");
  CHECK_OK(cbr_signature_parse(text, &signature));
  CHECK_EQ(signature >> 60, ARGUMENTS);
  strcpy(text + length, ",i8)");
  check_no_parse(text);
  strcpy(text + length, ",i8,i8)");
  check_no_parse(text);
  strcpy(text + length, ",i8,i8,i8)"); /* a count of four bits would be back at one */
  check_no_parse(text);
}

TEST(an_endless_text_does_not_parse) {
  size_t size = 1 << 20;
  char *text = (char *)malloc(size);
  CHECK(text != NULL);
  memset(text, 'i', size);
  text[size - 1] = '\0';
  check_no_parse(text);
  memcpy(text, "i32(", 4);
  for (size_t i = 4; i + 4 < size; i += 4) memcpy(text + i, "ptr,", 4);
  check_no_parse(text);
  free(text);
}

TEST(random_texts_never_parse_into_something_else) {
  static const char *const pieces[] = {"i32", "ptr", "void", "(", ")",    ",",
                                       " ",   "f64", "u",    "8", "\xff", "bool"};
  struct rng rng = {rng_seed()};
  for (long i = 0; i < scaled(200000); i++) {
    char text[128] = "", formatted[256];
    cbr_signature signature = 77;
    for (uint64_t left = rng_below(&rng, 10); left > 0; left--) {
      strcat(text, pieces[rng_below(&rng, sizeof pieces / sizeof pieces[0])]);
    }
    if (cbr_signature_parse(text, &signature) != CBR_OK) {
      CHECK_EQ(signature, 77);
      continue;
    }
    char *to = text; /* blanks aside, it says the same again */
    for (const char *from = text; *from != '\0'; from++) {
      if (*from != ' ') *to++ = *from;
    }
    *to = '\0';
    cbr_signature_format(signature, formatted, sizeof formatted);
    CHECK_STR(formatted, text);
  }
}

TEST(parse_needs_a_text_and_a_place) {
  cbr_signature signature = 77;
  CHECK_REFUSED(cbr_signature_parse(NULL, &signature), CBR_ERR_INVALID);
  CHECK_REFUSED(cbr_signature_parse("void()", NULL), CBR_ERR_INVALID);
  CHECK_EQ(signature, 77);
}

TEST(format_returns_the_length_needed_like_snprintf) {
  char text[16];
  cbr_signature signature = CBR_SIG(CBR_I32, CBR_PTR, CBR_PTR);
  CHECK_EQ(cbr_signature_format(signature, NULL, 0), 12);
  memset(text, 'x', sizeof text);
  CHECK_EQ(cbr_signature_format(signature, text, 4), 12);
  CHECK_STR(text, "i32");
  CHECK_EQ(text[4], 'x');
  CHECK_EQ(cbr_signature_format(signature, text, 12), 12);
  CHECK_STR(text, "i32(ptr,ptr");
  CHECK_EQ(cbr_signature_format(signature, text, 13), 12);
  CHECK_STR(text, "i32(ptr,ptr)");
}

/* Any 64 bits can come out of a host's memory: a text, never a crash, never a valid one's. */
TEST(what_is_no_signature_still_formats) {
  struct rng rng = {rng_seed()};
  char text[256], again[256];
  for (long i = 0; i < scaled(100000); i++) {
    cbr_signature signature = i == 0 ? 0 : i == 1 ? UINT64_MAX : rng_next(&rng), parsed;
    memset(text, 'x', sizeof text);
    size_t length = cbr_signature_format(signature, text, sizeof text);
    CHECK(length > 0 && length < sizeof text);
    CHECK_EQ(strlen(text), length);
    if (cbr_signature_parse(text, &parsed) == CBR_OK) {
      CHECK_EQ(parsed, signature);
      cbr_signature_format(parsed, again, sizeof again);
      CHECK_STR(again, text);
    }
  }
}
