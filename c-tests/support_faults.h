/* Calls of the allocator and the system that are refused, one after the other.
 *
 * This program's own malloc, mmap and so on stand before those of libc, for the library as well: they count
 * what the calling thread asks for while it is armed, and refuse the call with a given number, or that and
 * all that follow. Include it once a program. */
#ifndef CALLBRIDGE_SUPPORT_FAULTS_H
#define CALLBRIDGE_SUPPORT_FAULTS_H

#include "harness.h"

#include <dlfcn.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>

/* A sanitizer has an allocator of its own, and valgrind runs each of thousands of runs for a second. */
static inline void skip_where_faults_do_not_work(void) {
  if (under_valgrind()) SKIP("valgrind's own allocator stands before this program's");
  if (HARNESS_SANITIZED) SKIP("the sanitizer's own allocator stands before this program's");
}

struct faults {
  bool armed, and_all_that_follow;
  long at;      /* the number of the call that is refused, from 1; 0: none */
  long asked;   /* so many calls since it was armed */
  long refused; /* so many of them were refused */
  const char *what; /* the first of those */
};
static __thread struct faults faults;
/* Blocks and mappings that are not given back, of all threads, armed or not. */
static long live_blocks, live_mappings;

static inline void arm_faults(long at, bool and_all_that_follow) {
  struct faults from_now_on = {true, and_all_that_follow, at, 0, 0, NULL};
  faults = from_now_on;
}
static inline void disarm_faults(void) { faults.armed = false; }

#if !HARNESS_SANITIZED
static bool is_refused(const char *what) {
  if (!faults.armed) return false;
  faults.asked++;
  bool refuses = faults.asked == faults.at || (faults.and_all_that_follow && faults.asked > faults.at);
  if (faults.at == 0 || !refuses) return false;
  if (faults.refused++ == 0) faults.what = what;
  return true;
}
static void count_by(long *what, long by) { __atomic_add_fetch(what, by, __ATOMIC_RELAXED); }

#define NEXT(name)                \
  static __typeof__(&name) next_; \
  if (next_ == NULL) *(void **)&next_ = dlsym(RTLD_NEXT, #name)
#define REFUSE(name, error, result) \
  NEXT(name);                       \
  if (is_refused(#name)) return errno = (error), (result)

static void *counted_block(void *block) {
  if (block != NULL) count_by(&live_blocks, 1);
  return block;
}
void *malloc(size_t size) {
  REFUSE(malloc, ENOMEM, NULL);
  return counted_block(next_(size));
}
void *calloc(size_t number, size_t size) {
  REFUSE(calloc, ENOMEM, NULL);
  return counted_block(next_(number, size));
}
void *realloc(void *old, size_t size) {
  REFUSE(realloc, ENOMEM, NULL);
  void *block = next_(old, size);
  if (old == NULL) counted_block(block);
  return block;
}
int posix_memalign(void **out, size_t alignment, size_t size) {
  REFUSE(posix_memalign, ENOMEM, ENOMEM);
  int error = next_(out, alignment, size);
  if (error == 0) counted_block(*out);
  return error;
}
void *aligned_alloc(size_t alignment, size_t size) {
  REFUSE(aligned_alloc, ENOMEM, NULL);
  return counted_block(next_(alignment, size));
}
void free(void *block) {
  NEXT(free);
  if (block != NULL) count_by(&live_blocks, -1);
  next_(block);
}
void *mmap(void *address, size_t length, int rights, int flags, int fd, off_t offset) {
  REFUSE(mmap, ENOMEM, MAP_FAILED);
  void *mapping = next_(address, length, rights, flags, fd, offset);
  if (mapping != MAP_FAILED && !(flags & MAP_FIXED)) count_by(&live_mappings, 1);
  return mapping;
}
void *mmap64(void *address, size_t length, int rights, int flags, int fd, off64_t offset) {
  return mmap(address, length, rights, flags, fd, offset);
}
int munmap(void *address, size_t length) {
  NEXT(munmap);
  count_by(&live_mappings, -1);
  return next_(address, length);
}
int eventfd(unsigned int value, int flags) {
  REFUSE(eventfd, EMFILE, -1);
  return next_(value, flags);
}
int memfd_create(const char *name, unsigned int flags) {
  REFUSE(memfd_create, EMFILE, -1);
  return next_(name, flags);
}
int open(const char *path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0;
  va_end(rest);
  REFUSE(open, EMFILE, -1);
  return next_(path, flags, mode);
}
int open64(const char *path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0;
  va_end(rest);
  return open(path, flags, mode);
}
int fcntl(int fd, int command, ...) {
  va_list rest;
  va_start(rest, command);
  long value = va_arg(rest, long);
  va_end(rest);
  REFUSE(fcntl, EMFILE, -1);
  return next_(fd, command, value);
}
int socket(int domain, int type, int protocol) {
  REFUSE(socket, EMFILE, -1);
  return next_(domain, type, protocol);
}
void *dlopen(const char *path, int mode) {
  REFUSE(dlopen, ENOMEM, NULL);
  return next_(path, mode);
}
int pthread_key_create(pthread_key_t *key, void (*destroy)(void *)) {
  REFUSE(pthread_key_create, EAGAIN, EAGAIN);
  return next_(key, destroy);
}
int pthread_setspecific(pthread_key_t key, const void *value) {
  REFUSE(pthread_setspecific, ENOMEM, ENOMEM);
  return next_(key, value);
}
/* Of those that the library asks for by number, membarrier. */
long syscall(long number, ...) {
  va_list rest;
  long args[6];
  va_start(rest, number);
  for (int i = 0; i < 6; i++) args[i] = va_arg(rest, long);
  va_end(rest);
  NEXT(syscall);
  if (number == SYS_membarrier && is_refused("membarrier")) return errno = ENOSYS, -1;
  return next_(number, args[0], args[1], args[2], args[3], args[4], args[5]);
}
#undef NEXT
#undef REFUSE
#endif

#endif
