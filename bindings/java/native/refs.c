/* Global references that callbacks hold, counted, so that a test can say that none is left. */
#include "shim.h"

#include "io_callbridge_Native.h"

static int64_t count;

jobject ref_new(JNIEnv *env, jobject object) {
  jobject ref = (*env)->NewGlobalRef(env, object);
  if (ref != NULL) __atomic_add_fetch(&count, 1, __ATOMIC_RELAXED);
  return ref;
}

void ref_delete(JNIEnv *env, jobject ref) {
  if (ref == NULL) return;
  (*env)->DeleteGlobalRef(env, ref);
  __atomic_sub_fetch(&count, 1, __ATOMIC_RELAXED);
}

JNIEXPORT jlong JNICALL Java_io_callbridge_Native_globalRefs(JNIEnv *env, jclass class) {
  (void)env, (void)class;
  return __atomic_load_n(&count, __ATOMIC_RELAXED);
}
