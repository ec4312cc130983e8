/* A library that calls back on a thread of its own. It knows handles, and nothing of Java but its two entries. */
#define _GNU_SOURCE
#include <callbridge.h>
#include <jni.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <time.h>

struct ticker {
  pthread_t thread;
  cbr_handle handle;
  bool stop;
  int64_t refused;
};

static void *tick(void *arg) {
  struct ticker *it = arg;
  pthread_setname_np(pthread_self(), "ticker");
  /* At least one call comes after `stop`. */
  bool stop;
  int64_t number = 0;
  do {
    stop = __atomic_load_n(&it->stop, __ATOMIC_ACQUIRE);
    if (cbr_call(it->handle, (void *)(intptr_t)++number, NULL) == CBR_ERR_STALE) it->refused++;
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
  } while (!stop);
  cbr_release(it->handle); /* stale, if the callback has ended: no matter */
  return NULL;
}

JNIEXPORT jlong JNICALL Java_Ticker_start(JNIEnv *env, jclass class, jlong handle) {
  (void)env, (void)class;
  struct ticker *it = calloc(1, sizeof *it);
  if (it == NULL) abort();
  it->handle = (cbr_handle)handle;
  if (pthread_create(&it->thread, NULL, tick, it) != 0) abort();
  return (jlong)(intptr_t)it;
}

JNIEXPORT jlong JNICALL Java_Ticker_stop(JNIEnv *env, jclass class, jlong ticker) {
  (void)env, (void)class;
  struct ticker *it = (struct ticker *)(intptr_t)ticker;
  __atomic_store_n(&it->stop, true, __ATOMIC_RELEASE);
  pthread_join(it->thread, NULL);
  int64_t refused = it->refused;
  free(it);
  return refused;
}
