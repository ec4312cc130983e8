/* Loading: what is looked up once. */
#include "shim.h"

struct java java;

static jclass class_ref(JNIEnv *env, const char *name) {
  jclass local = (*env)->FindClass(env, name);
  if (local == NULL) return NULL;
  jclass ref = (*env)->NewGlobalRef(env, local);
  (*env)->DeleteLocalRef(env, local);
  return ref;
}

JNIEXPORT jint JNICALL JNI_OnLoad(JavaVM *vm, void *reserved) {
  (void)reserved;
  JNIEnv *env;
  if ((*vm)->GetEnv(vm, (void **)&env, JNI_VERSION) != JNI_OK) return JNI_ERR;
  java.vm = vm;
  /* A failed lookup leaves its exception for System.loadLibrary to throw. */
  if (!(java.callback = class_ref(env, "io/callbridge/Callback")) ||
      !(java.failures = class_ref(env, "io/callbridge/Failures")) ||
      !(java.exception = class_ref(env, "io/callbridge/CallbridgeException")) ||
      !(java.callback_call = (*env)->GetMethodID(env, java.callback, "call", "(J)J")) ||
      !(java.failures_describe =
            (*env)->GetStaticMethodID(env, java.failures, "describe", "(Ljava/lang/Throwable;)[B")) ||
      !(java.failures_tell = (*env)->GetStaticMethodID(
            env, java.failures, "tell", "(Lio/callbridge/FailureListener;JI[B)V")) ||
      !(java.exception_of =
            (*env)->GetStaticMethodID(env, java.exception, "of",
                                      "(ILjava/lang/Throwable;)Lio/callbridge/CallbridgeException;"))) {
    return JNI_ERR;
  }
  if (threads_open() != CBR_OK) {
    char words[512];
    cbr_last_error(words, sizeof words);
    jclass error = (*env)->FindClass(env, "java/lang/UnsatisfiedLinkError");
    if (error != NULL) (*env)->ThrowNew(env, error, words);
    return JNI_ERR;
  }
  return JNI_VERSION;
}
