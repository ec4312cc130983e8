/* Reading a profile that cbr_profile has written, for tests: gzip unpacks it, and what profile.proto of
 * github.com/google/pprof says is read here, by another hand than the library's. */
#ifndef CALLBRIDGE_SUPPORT_PROFILE_H
#define CALLBRIDGE_SUPPORT_PROFILE_H

#include "harness.h"

struct bytes {
  const uint8_t *at, *end;
};

struct location {
  uint64_t id, mapping, address, function;
};

struct sample {
  uint64_t stack[64];
  int depth;
  uint64_t count, bytes;
  const char *callback, *scope; /* labels, or NULL */
};

struct profile {
  uint8_t raw[4 << 20], packed[4 << 20];
  size_t raw_len, packed_len;
  char *strings[4096];
  struct {
    uint64_t id, name;
  } functions[4096];
  struct location locations[8192];
  struct sample samples[4096];
  int string_count, function_count, location_count, sample_count, mapping_count;
  uint64_t types[4], time_nanos;
  int type_count;
};
static struct profile profile;

static inline void keep_profile(void *user_data, const char *data, size_t len) {
  struct profile *it = user_data;
  CHECK(it->packed_len + len <= sizeof it->packed);
  memcpy(it->packed + it->packed_len, data, len);
  it->packed_len += len;
}

static inline uint64_t next_varint(struct bytes *from) {
  uint64_t number = 0;
  for (int shift = 0; shift < 70; shift += 7) {
    CHECK(from->at < from->end);
    uint8_t byte = *from->at++;
    number |= (uint64_t)(byte & 127) << shift;
    if (byte < 128) return number;
  }
  FAIL("a number of more than ten bytes");
}

/* The next field's number, 0 at the end; its value is a number or bytes. */
static inline int next_field(struct bytes *from, uint64_t *number, struct bytes *inner) {
  inner->at = inner->end = from->end;
  *number = 0;
  if (from->at == from->end) return 0;
  uint64_t key = next_varint(from);
  *number = next_varint(from);
  if ((key & 7) == 2) {
    CHECK(*number <= (uint64_t)(from->end - from->at));
    inner->at = from->at;
    inner->end = from->at += *number;
  } else {
    CHECK_EQ(key & 7, 0);
  }
  return (int)(key >> 3);
}

static inline const char *profile_string(uint64_t index) {
  CHECK(index < (uint64_t)profile.string_count);
  return profile.strings[index];
}

static inline void read_sample(struct bytes from) {
  struct bytes inner, label;
  uint64_t number;
  int values = 0;
  CHECK(profile.sample_count < 4096);
  struct sample *it = &profile.samples[profile.sample_count++];
  for (int field; (field = next_field(&from, &number, &inner)) != 0;) {
    uint64_t key = 0, text = 0, part;
    while (field == 1 && inner.at < inner.end) {
      CHECK(it->depth < 64);
      it->stack[it->depth++] = next_varint(&inner);
    }
    while (field == 2 && inner.at < inner.end) {
      uint64_t value = next_varint(&inner);
      *(values++ == 0 ? &it->count : &it->bytes) = value;
    }
    while (field == 3 && inner.at < inner.end) {
      int of = next_field(&inner, &part, &label);
      *(of == 1 ? &key : &text) = part;
    }
    if (field == 3) {
      bool is_scope = strcmp(profile_string(key), "scope") == 0;
      if (!is_scope) CHECK_STR(profile_string(key), "callback");
      *(is_scope ? &it->scope : &it->callback) = profile_string(text);
    }
  }
  CHECK_EQ(values, 2);
}

/* The live callbacks of the scope, as a profile has them. */
static inline void take_profile(cbr_scope scope) {
  while (profile.string_count > 0) free(profile.strings[--profile.string_count]);
  memset(&profile, 0, sizeof profile);
  CHECK_OK(cbr_profile(scope, keep_profile, &profile));
  char path[] = "/tmp/callbridge_profile_XXXXXX", command[64];
  int file = mkstemp(path);
  CHECK(file >= 0);
  CHECK_EQ(write(file, profile.packed, profile.packed_len), profile.packed_len);
  close(file);
  snprintf(command, sizeof command, "gzip -dc < %s", path);
  FILE *gzip = popen(command, "r");
  CHECK(gzip != NULL);
  profile.raw_len = fread(profile.raw, 1, sizeof profile.raw, gzip);
  CHECK_EQ(pclose(gzip), 0);
  unlink(path);

  struct bytes all = {profile.raw, profile.raw + profile.raw_len}, inner, line;
  uint64_t number, part;
  /* Strings first: what refers to them may come before them. */
  for (int field; (field = next_field(&all, &number, &inner)) != 0;) {
    if (field != 6) continue;
    CHECK(profile.string_count < 4096);
    profile.strings[profile.string_count++] = strndup((const char *)inner.at, number);
  }
  CHECK_STR(profile_string(0), "");
  all.at = profile.raw;
  for (int field; (field = next_field(&all, &number, &inner)) != 0;) {
    if (field == 2) read_sample(inner);
    if (field == 3) profile.mapping_count++;
    if (field == 9) profile.time_nanos = number;
    if (field == 1) {
      CHECK(profile.type_count < 4);
      for (int of; (of = next_field(&inner, &part, &line)) != 0;) profile.types[profile.type_count++] = part;
    }
    if (field == 4) {
      CHECK(profile.location_count < 8192);
      struct location *it = &profile.locations[profile.location_count++];
      for (int of; (of = next_field(&inner, &part, &line)) != 0;) {
        uint64_t function;
        struct bytes none;
        if (of == 1) it->id = part;
        if (of == 2) it->mapping = part;
        if (of == 3) it->address = part;
        if (of == 4) {
          CHECK_EQ(next_field(&line, &function, &none), 1);
          it->function = function;
        }
      }
    }
    if (field == 5) {
      CHECK(profile.function_count < 4096);
      for (int of; (of = next_field(&inner, &part, &line)) != 0;) {
        if (of == 1) profile.functions[profile.function_count].id = part;
        if (of == 2) profile.functions[profile.function_count].name = part;
      }
      profile.function_count++;
    }
  }
}

/* The name of the function at this place of a sample's stack; 0 is the innermost. */
static inline const char *function_at(const struct sample *sample, int place) {
  CHECK(place < sample->depth);
  for (int location = 0; location < profile.location_count; location++) {
    if (profile.locations[location].id != sample->stack[place]) continue;
    for (int function = 0; function < profile.function_count; function++) {
      if (profile.functions[function].id == profile.locations[location].function)
        return profile_string(profile.functions[function].name);
    }
  }
  FAIL("no location, or no function, of this number");
}

static inline bool passes_through(const struct sample *sample, const char *function) {
  for (int place = 0; place < sample->depth; place++) {
    if (strcmp(function_at(sample, place), function) == 0) return true;
  }
  return false;
}

/* How many callbacks were registered below a function; NULL: in all. */
static inline uint64_t registered_by(const char *function) {
  uint64_t count = 0;
  for (int sample = 0; sample < profile.sample_count; sample++) {
    const struct sample *it = &profile.samples[sample];
    if (function == NULL || passes_through(it, function)) count += it->count;
  }
  return count;
}

#endif
