/* What is measured, in C loops: a call by the binding beside one by hand. Each returns nanoseconds for `count` calls. */
#define _GNU_SOURCE
#include <callbridge.h>
#include <jni.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

#include "io_callbridge_bench_Loops.h"

static JavaVM *vm;
static jmethodID call_method;

JNIEXPORT jint JNICALL JNI_OnLoad(JavaVM *loading, void *reserved) {
  (void)reserved;
  JNIEnv *env;
  vm = loading;
  if ((*vm)->GetEnv(vm, (void **)&env, JNI_VERSION_1_8) != JNI_OK) return JNI_ERR;
  jclass callback = (*env)->FindClass(env, "io/callbridge/Callback");
  call_method = callback == NULL ? NULL : (*env)->GetMethodID(env, callback, "call", "(J)J");
  return call_method == NULL ? JNI_ERR : JNI_VERSION_1_8;
}

static int64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * INT64_C(1000000000) + time.tv_nsec;
}

/* What a binding by hand does, and no more: a global reference, the method looked up before, and the look for an
 * exception without which the next call is not allowed. `checked` false: not even that. */
static int64_t bare(JNIEnv *env, jobject ref, int64_t count, bool checked) {
  volatile jlong result;
  int64_t begin = now();
  for (int64_t i = 0; i < count; i++) {
    result = (*env)->CallLongMethod(env, ref, call_method, (jlong)i);
    if (checked && (*env)->ExceptionCheck(env)) abort();
  }
  (void)result;
  return now() - begin;
}

/* One callback over and over, or two in turns. */
static int64_t callbridge(cbr_handle handle, cbr_handle other, int64_t count) {
  volatile intptr_t kept;
  int64_t begin = now();
  for (int64_t i = 0; i < count; i++) {
    intptr_t result;
    if (cbr_call(i % 2 == 0 ? handle : other, (void *)(intptr_t)i, &result) != CBR_OK) abort();
    kept = result;
  }
  (void)kept;
  return now() - begin;
}

JNIEXPORT jlong JNICALL Java_io_callbridge_bench_Loops_bare(JNIEnv *env, jclass class, jobject target,
                                                            jlong count, jboolean checked) {
  (void)class;
  jobject ref = (*env)->NewGlobalRef(env, target);
  int64_t took = bare(env, ref, count, checked);
  (*env)->DeleteGlobalRef(env, ref);
  return took;
}

JNIEXPORT jlong JNICALL Java_io_callbridge_bench_Loops_callbridge(JNIEnv *env, jclass class, jlong handle,
                                                                  jlong other, jlong count) {
  (void)env, (void)class;
  return callbridge((cbr_handle)handle, (cbr_handle)other, count);
}

/* A thread that the JVM has not made. */
struct foreign {
  jobject ref; /* by hand; or NULL */
  cbr_handle handle;
  int64_t count, took;
};

static void *foreign_main(void *arg) {
  struct foreign *it = arg;
  if (it->ref == NULL) {
    callbridge(it->handle, it->handle, 1000); /* attaches */
    it->took = callbridge(it->handle, it->handle, it->count);
  } else {
    JNIEnv *env;
    if ((*vm)->AttachCurrentThreadAsDaemon(vm, (void **)&env, NULL) != JNI_OK) abort();
    bare(env, it->ref, 1000, true);
    it->took = bare(env, it->ref, it->count, true);
    (*vm)->DetachCurrentThread(vm);
  }
  return NULL;
}

static int64_t on_foreign_thread(struct foreign it) {
  pthread_t thread;
  if (pthread_create(&thread, NULL, foreign_main, &it) != 0) abort();
  pthread_join(thread, NULL);
  return it.took;
}

JNIEXPORT jlong JNICALL Java_io_callbridge_bench_Loops_foreignThread(JNIEnv *env, jclass class, jlong handle,
                                                                     jlong count) {
  (void)env, (void)class;
  return on_foreign_thread((struct foreign){.handle = (cbr_handle)handle, .count = count});
}

JNIEXPORT jlong JNICALL Java_io_callbridge_bench_Loops_foreignThreadBare(JNIEnv *env, jclass class,
                                                                         jobject target, jlong count) {
  (void)class;
  jobject ref = (*env)->NewGlobalRef(env, target);
  int64_t took = on_foreign_thread((struct foreign){.ref = ref, .count = count});
  (*env)->DeleteGlobalRef(env, ref);
  return took;
}

JNIEXPORT jlong JNICALL Java_io_callbridge_bench_Loops_newGlobalRef(JNIEnv *env, jclass class, jobject target) {
  (void)class;
  return (jlong)(intptr_t)(*env)->NewGlobalRef(env, target);
}

JNIEXPORT void JNICALL Java_io_callbridge_bench_Loops_deleteGlobalRef(JNIEnv *env, jclass class, jlong ref) {
  (void)class;
  (*env)->DeleteGlobalRef(env, (jobject)(intptr_t)ref);
}
