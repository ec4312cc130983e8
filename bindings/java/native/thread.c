/* Native threads: attached to the JVM at their first need, and detached at their end.
 *
 * The library's thread hooks know when a thread ends. They belong to a scope of their own, with one callback,
 * which a thread calls when it finds that it is not attached: so calls of all other callbacks pay nothing for
 * them. Threads that are attached already, the JVM's own first of all, never come here. */
#define _GNU_SOURCE
#include "shim.h"

#include <pthread.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "io_callbridge_Native.h"

static cbr_scope scope;
static cbr_handle attacher;
static int64_t attached;

/* Was this thread attached here? Not if that has failed. */
static __thread bool ours;

static JNIEnv *attached_env(void) {
  void *env;
  return (*java.vm)->GetEnv(java.vm, &env, JNI_VERSION) == JNI_OK ? (JNIEnv *)env : NULL;
}

/* "callbridge-", the thread's own name, and the number that top and debuggers show. */
static void thread_name(char *name, size_t size) {
  char own[16] = "";
  pthread_getname_np(pthread_self(), own, sizeof own);
  /* The JVM wants its own kind of UTF-8. */
  for (char *at = own; *at != '\0'; at++) {
    if (*at < ' ' || *at > '~') *at = '?';
  }
  snprintf(name, size, "callbridge-%s-%ld", own, (long)syscall(SYS_gettid));
}

static JNIEnv *attach_here(void) {
  char name[64];
  thread_name(name, sizeof name);
  JavaVMAttachArgs args = {.version = JNI_VERSION, .name = name, .group = NULL};
  void *env;
  /* A daemon: the JVM does not wait for it to end. */
  if ((*java.vm)->AttachCurrentThreadAsDaemon(java.vm, &env, &args) != JNI_OK) {
    cbr_fail(CBR_ERR_CALLBACK, "the thread could not be attached to the JVM");
    return NULL;
  }
  ours = true;
  __atomic_add_fetch(&attached, 1, __ATOMIC_RELAXED);
  return (JNIEnv *)env;
}

static void *attach(void *user_data) {
  (void)user_data;
  if (attached_env() == NULL) attach_here();
  /* Never CBR_THREAD_NOT_OURS: who has attached the thread may detach it, and then it may become ours. */
  return NULL;
}

static void detach(void *user_data, void *token) {
  (void)user_data, (void)token;
  if (!ours) return;
  ours = false;
  __atomic_sub_fetch(&attached, 1, __ATOMIC_RELAXED);
  if (attached_env() != NULL) (*java.vm)->DetachCurrentThread(java.vm);
}

/* `arg`: where the environment goes. The hook has attached the thread, unless that was at an earlier call, and
 * somebody else has detached it since. */
static intptr_t give_env(void *user_data, void *arg) {
  (void)user_data;
  JNIEnv *env = attached_env();
  if (env == NULL) {
    if (ours) __atomic_sub_fetch(&attached, 1, __ATOMIC_RELAXED);
    ours = false;
    env = attach_here();
  }
  *(JNIEnv **)arg = env;
  return 0;
}

JNIEnv *env_attach(void) {
  JNIEnv *env = NULL;
  return cbr_call(attacher, &env, NULL) == CBR_OK ? env : NULL;
}

cbr_status threads_open(void) {
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  cbr_status status = cbr_scope_open("java threads", &scope);
  if (status != CBR_OK) return status;
  options.fn = (cbr_any_fn)give_env;
  options.name = "attach to the JVM";
  options.scope = scope;
  /* A thread's end may come after everything else. */
  options.flags = CBR_PIN_MODULE;
  if ((status = cbr_scope_set_thread_hooks(scope, attach, detach, NULL, NULL)) != CBR_OK ||
      (status = cbr_register_with(&options, &attacher)) != CBR_OK) {
    cbr_scope_close(scope, 0, NULL);
  }
  return status;
}

JNIEXPORT void JNICALL Java_io_callbridge_Native_closeThreads(JNIEnv *env, jclass class) {
  (void)env, (void)class;
  cbr_scope_close(scope, 0, NULL);
}

JNIEXPORT jlong JNICALL Java_io_callbridge_Native_attachedThreads(JNIEnv *env, jclass class) {
  (void)env, (void)class;
  return __atomic_load_n(&attached, __ATOMIC_RELAXED);
}
