/* The Java binding's C side: what its files share. */
#ifndef CALLBRIDGE_JAVA_SHIM_H
#define CALLBRIDGE_JAVA_SHIM_H

#include <callbridge.h>
#include <jni.h>
#include <stdbool.h>
#include <stdint.h>

#define RARE(condition) __builtin_expect(!!(condition), 0)
#define JNI_VERSION JNI_VERSION_1_8

/* Set by JNI_OnLoad, before anything else runs. Its classes are never unloaded, nor is this library. */
extern struct java {
  JavaVM *vm;
  jclass callback, failures, exception;
  jmethodID callback_call;      /* Callback.call */
  jmethodID failures_describe;  /* Failures.describe */
  jmethodID failures_tell;      /* Failures.tell */
  jmethodID exception_of;       /* CallbridgeException.of */
} java;

/* thread.c: the calling thread's environment. */
cbr_status threads_open(void);
JNIEnv *env_attach(void);

/* The environment, attaching the thread if need be; NULL if that is impossible.
 * Asked for at every call and not remembered: other native code of the process may detach a thread that was
 * attached here (attach, work, detach is a common idiom), and what we had remembered would be freed memory. */
static inline JNIEnv *env_here(void) {
  void *env;
  if (RARE((*java.vm)->GetEnv(java.vm, &env, JNI_VERSION) != JNI_OK)) return env_attach();
  return (JNIEnv *)env;
}

/* refs.c: global references, counted. */
jobject ref_new(JNIEnv *env, jobject object);
void ref_delete(JNIEnv *env, jobject ref);

/* failure.c: exceptions on their way out of callbacks, and into Java. */
void contain_exception(JNIEnv *env);
void tell_listener(JNIEnv *env, jobject listener, cbr_handle handle, cbr_status status, const char *message);
void throw_status(JNIEnv *env, cbr_status status, jthrowable cause);

/* A call that Java makes: the exception of the callback in it, if that is Java's, too. They nest. */
struct java_call {
  struct java_call *outer;
  uint32_t depth;   /* cbr_depth() before the call: only its own callback's exception is kept */
  jthrowable cause; /* local to the caller's frame, or NULL */
};
extern __thread struct java_call *java_call;

/* text.c: names and messages. Names are at most 255 bytes; with one more the library refuses them. */
struct text {
  char bytes[257];
};
const char *text_of(JNIEnv *env, jbyteArray bytes, struct text *it); /* NULL for null */
jbyteArray bytes_new(JNIEnv *env, const char *text);                 /* NULL: an exception is pending */

#endif
