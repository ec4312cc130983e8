/* Callbacks: a Java object behind a handle. */
#include "shim.h"

#include <stdlib.h>

#include "io_callbridge_Native.h"

/* What the library calls with. Freed by `destroy`, when nobody is inside. */
struct callback {
  jobject target;   /* a Callback */
  jmethodID method; /* its class's call: found without a search, other than the interface's */
  jobject listener; /* a FailureListener, or NULL */
};

static intptr_t upcall(void *user_data, void *arg) {
  struct callback *it = user_data;
  JNIEnv *env = env_here();
  if (RARE(env == NULL)) {
    cbr_fail(CBR_ERR_CALLBACK, "the thread is not attached to the JVM, and could not be");
    return 0;
  }
  jvalue argument = {.j = (jlong)(intptr_t)arg};
  jlong result = (*env)->CallLongMethodA(env, it->target, it->method, &argument);
  if (RARE((*env)->ExceptionCheck(env))) contain_exception(env);
  return (intptr_t)result;
}

static void on_error(void *user_data, cbr_handle handle, cbr_status status, const char *message) {
  struct callback *it = user_data;
  JNIEnv *env = env_here();
  if (env != NULL) tell_listener(env, it->listener, handle, status, message);
}

static void callback_free(JNIEnv *env, struct callback *it) {
  ref_delete(env, it->target);
  ref_delete(env, it->listener);
  free(it);
}

static void destroy(void *user_data) {
  JNIEnv *env = env_here();
  if (env != NULL) {
    callback_free(env, user_data);
  } else {
    /* The JVM is gone, and its references with it. */
    free(user_data);
  }
}

static struct callback *callback_new(JNIEnv *env, jobject target, jobject listener) {
  struct callback *it = calloc(1, sizeof *it);
  if (it == NULL) return NULL;
  jclass class = (*env)->GetObjectClass(env, target);
  it->method = (*env)->GetMethodID(env, class, "call", "(J)J");
  (*env)->DeleteLocalRef(env, class);
  if (it->method == NULL || (it->target = ref_new(env, target)) == NULL ||
      (listener != NULL && (it->listener = ref_new(env, listener)) == NULL)) {
    callback_free(env, it);
    return NULL;
  }
  return it;
}

JNIEXPORT jlong JNICALL Java_io_callbridge_Native_register(JNIEnv *env, jclass class, jobject target,
                                                           jobject listener, jbyteArray name, jlong scope,
                                                           jint flags) {
  (void)class;
  struct text text;
  cbr_handle handle = CBR_HANDLE_NONE;
  struct callback *it = callback_new(env, target, listener);
  if (it == NULL) {
    if (!(*env)->ExceptionCheck(env)) throw_status(env, CBR_ERR_NOMEM, NULL);
    return 0;
  }
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  options.fn = (cbr_any_fn)upcall;
  options.user_data = it;
  options.destroy = destroy;
  options.name = text_of(env, name, &text);
  options.scope = (cbr_scope)scope;
  options.flags = (uint32_t)flags;
  options.on_error = listener == NULL ? NULL : on_error;
  cbr_status status = cbr_register_with(&options, &handle);
  if (status != CBR_OK) {
    callback_free(env, it);
    throw_status(env, status, NULL);
  }
  return (jlong)handle;
}

JNIEXPORT jlong JNICALL Java_io_callbridge_Native_call(JNIEnv *env, jclass class, jlong handle, jlong arg) {
  (void)class;
  struct java_call call = {.outer = java_call, .depth = cbr_depth()};
  intptr_t result = 0;
  java_call = &call;
  cbr_status status = cbr_call((cbr_handle)handle, (void *)(intptr_t)arg, &result);
  java_call = call.outer;
  if (status != CBR_OK) throw_status(env, status, call.cause);
  return (jlong)result;
}

JNIEXPORT jint JNICALL Java_io_callbridge_Native_unregister(JNIEnv *env, jclass class, jlong handle) {
  (void)env, (void)class;
  return cbr_unregister((cbr_handle)handle);
}

JNIEXPORT jint JNICALL Java_io_callbridge_Native_unregisterWait(JNIEnv *env, jclass class, jlong handle,
                                                                jlong timeout_ns) {
  (void)env, (void)class;
  return cbr_unregister_wait((cbr_handle)handle, timeout_ns);
}

JNIEXPORT jint JNICALL Java_io_callbridge_Native_retain(JNIEnv *env, jclass class, jlong handle) {
  (void)env, (void)class;
  return cbr_retain((cbr_handle)handle);
}

JNIEXPORT jint JNICALL Java_io_callbridge_Native_release(JNIEnv *env, jclass class, jlong handle) {
  (void)env, (void)class;
  return cbr_release((cbr_handle)handle);
}

JNIEXPORT jboolean JNICALL Java_io_callbridge_Native_isLive(JNIEnv *env, jclass class, jlong handle) {
  (void)env, (void)class;
  return cbr_is_live((cbr_handle)handle);
}

JNIEXPORT jlong JNICALL Java_io_callbridge_Native_current(JNIEnv *env, jclass class) {
  (void)env, (void)class;
  return (jlong)cbr_current();
}
