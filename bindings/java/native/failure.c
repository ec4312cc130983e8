/* Failures: a Java exception becomes cbr_fail, a status becomes a Java exception. */
#include "shim.h"

#include "io_callbridge_Native.h"

__thread struct java_call *java_call;

/* Class and message into `words`; false if Java cannot say (out of memory, out of stack). */
static bool describe(JNIEnv *env, jthrowable thrown, char *words, jsize size) {
  jvalue argument = {.l = thrown};
  jbyteArray bytes = (*env)->CallStaticObjectMethodA(env, java.failures, java.failures_describe, &argument);
  if ((*env)->ExceptionCheck(env)) {
    (*env)->ExceptionClear(env);
    return false;
  }
  jsize length = (*env)->GetArrayLength(env, bytes);
  if (length > size - 1) length = size - 1;
  (*env)->GetByteArrayRegion(env, bytes, 0, length, (jbyte *)words);
  words[length] = '\0';
  (*env)->DeleteLocalRef(env, bytes);
  return true;
}

void contain_exception(JNIEnv *env) {
  char words[512];
  jthrowable thrown = (*env)->ExceptionOccurred(env);
  (*env)->ExceptionClear(env);
  bool known = describe(env, thrown, words, sizeof words);
  cbr_fail(CBR_ERR_PANIC, known ? words : "a Java exception that could not be described");
  /* Straight below a call that Java makes it is handed on. Everywhere else there may be no frame that would free
   * local references, so none is left. */
  if (java_call != NULL && java_call->cause == NULL && cbr_depth() == java_call->depth + 1) {
    java_call->cause = thrown;
  } else {
    (*env)->DeleteLocalRef(env, thrown);
  }
}

void tell_listener(JNIEnv *env, jobject listener, cbr_handle handle, cbr_status status, const char *message) {
  jbyteArray bytes = bytes_new(env, message);
  if (bytes != NULL) {
    jvalue arguments[] = {{.l = listener}, {.j = (jlong)handle}, {.i = status}, {.l = bytes}};
    (*env)->CallStaticVoidMethodA(env, java.failures, java.failures_tell, arguments);
  }
  /* A listener's own exception has nowhere to go. */
  if ((*env)->ExceptionCheck(env)) (*env)->ExceptionClear(env);
  if (bytes != NULL) (*env)->DeleteLocalRef(env, bytes);
}

void throw_status(JNIEnv *env, cbr_status status, jthrowable cause) {
  jvalue arguments[] = {{.i = status}, {.l = cause}};
  jthrowable it = (*env)->CallStaticObjectMethodA(env, java.exception, java.exception_of, arguments);
  /* If it could not be made, out of memory, that is the exception. */
  if (!(*env)->ExceptionCheck(env)) (*env)->Throw(env, it);
}

JNIEXPORT jbyteArray JNICALL Java_io_callbridge_Native_lastError(JNIEnv *env, jclass class) {
  (void)class;
  char words[1024];
  cbr_last_error(words, sizeof words);
  return bytes_new(env, words);
}

JNIEXPORT jbyteArray JNICALL Java_io_callbridge_Native_statusName(JNIEnv *env, jclass class, jint status) {
  (void)class;
  return bytes_new(env, cbr_status_name(status));
}
