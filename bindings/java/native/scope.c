/* Scopes and their numbers. */
#include "shim.h"

#include "io_callbridge_Native.h"

JNIEXPORT jlong JNICALL Java_io_callbridge_Native_scopeOpen(JNIEnv *env, jclass class, jbyteArray name) {
  (void)class;
  struct text text;
  cbr_scope scope = 0;
  cbr_status status = cbr_scope_open(text_of(env, name, &text), &scope);
  if (status != CBR_OK) throw_status(env, status, NULL);
  return (jlong)scope;
}

JNIEXPORT jint JNICALL Java_io_callbridge_Native_scopeClose(JNIEnv *env, jclass class, jlong scope,
                                                            jlong timeout_ns) {
  (void)env, (void)class;
  return cbr_scope_close((cbr_scope)scope, timeout_ns, NULL);
}

JNIEXPORT jint JNICALL Java_io_callbridge_Native_stats(JNIEnv *env, jclass class, jlong scope, jlongArray out) {
  (void)class;
  cbr_stats stats = {.size = sizeof stats};
  cbr_status status = cbr_stats_get((cbr_scope)scope, &stats);
  if (status != CBR_OK) return status;
  /* In the order of the Java record. */
  const jlong numbers[] = {(jlong)stats.live,      (jlong)stats.registered, (jlong)stats.destroyed,
                           (jlong)stats.destroy_pending, (jlong)stats.in_flight,  (jlong)stats.calls,
                           (jlong)stats.failures,  (jlong)stats.stale};
  (*env)->SetLongArrayRegion(env, out, 0, sizeof numbers / sizeof *numbers, numbers);
  return CBR_OK;
}
