/* The other side of the tests: a C program's threads, which know handles and do what Java tells them to. */
#define _GNU_SOURCE
#include <callbridge.h>
#include <jni.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io_callbridge_Host.h"
#include "io_callbridge_NativeThread.h"

#define MUST(condition)                                                                            \
  do {                                                                                             \
    if (!(condition)) {                                                                            \
      fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                             \
      abort();                                                                                     \
    }                                                                                              \
  } while (0)

static JavaVM *vm;
static pthread_key_t at_exit;

/* What has become of an order; the words are the calling thread's last error, if it has failed. */
struct answer {
  cbr_status status;
  intptr_t result;
  char words[1024];
};

static struct answer call(cbr_handle handle, intptr_t arg) {
  struct answer it = {.result = 0};
  it.status = cbr_call(handle, (void *)arg, &it.result);
  if (it.status != CBR_OK) cbr_last_error(it.words, sizeof it.words);
  return it;
}

/* The last calls of a thread, when its own data is being destroyed. */
static void call_at_exit(void *handle) { cbr_call((cbr_handle)(uintptr_t)handle, NULL, NULL); }

JNIEXPORT jint JNICALL JNI_OnLoad(JavaVM *loading, void *reserved) {
  (void)reserved;
  vm = loading;
  MUST(pthread_key_create(&at_exit, call_at_exit) == 0);
  return JNI_VERSION_1_8;
}

static jobject answer_to_java(JNIEnv *env, const struct answer *it) {
  jclass class = (*env)->FindClass(env, "io/callbridge/Host$Answer");
  if (class == NULL) return NULL;
  jmethodID of = (*env)->GetStaticMethodID(env, class, "of", "(IJ[B)Lio/callbridge/Host$Answer;");
  if (of == NULL) return NULL;
  jsize length = (jsize)strlen(it->words);
  jbyteArray words = (*env)->NewByteArray(env, length);
  if (words == NULL) return NULL;
  (*env)->SetByteArrayRegion(env, words, 0, length, (const jbyte *)it->words);
  jvalue arguments[] = {{.i = it->status}, {.j = it->result}, {.l = words}};
  return (*env)->CallStaticObjectMethodA(env, class, of, arguments);
}

JNIEXPORT jobject JNICALL Java_io_callbridge_Host_call(JNIEnv *env, jclass class, jlong handle, jlong arg) {
  (void)class;
  struct answer it = call((cbr_handle)handle, arg);
  return answer_to_java(env, &it);
}

JNIEXPORT jint JNICALL Java_io_callbridge_Host_release(JNIEnv *env, jclass class, jlong handle) {
  (void)env, (void)class;
  return cbr_release((cbr_handle)handle);
}

/* A callback of C's. */
static intptr_t negate(void *user_data, void *arg) {
  (void)user_data;
  return -(intptr_t)arg;
}

JNIEXPORT jlong JNICALL Java_io_callbridge_Host_registerNegate(JNIEnv *env, jclass class) {
  (void)env, (void)class;
  cbr_handle handle;
  MUST(cbr_register(negate, NULL, NULL, &handle) == CBR_OK);
  return (jlong)handle;
}

/* --- threads ------------------------------------------------------------------------------ */

enum { CALL, RELEASE, UNREGISTER, ATTACH, DETACH, IS_ATTACHED, CALL_AT_EXIT, END };

struct thread {
  pthread_t thread;
  pthread_mutex_t mutex;
  pthread_cond_t changed;
  char name[16];
  bool busy; /* an order that is not carried out yet */
  int order;
  jlong handle, arg;
  struct answer answer;
};

static void carry_out(struct thread *it) {
  JNIEnv *env;
  JavaVMAttachArgs args = {.version = JNI_VERSION_1_8, .name = (char *)"attached by the host"};
  it->answer = (struct answer){.status = CBR_OK};
  switch (it->order) {
    case CALL: it->answer = call((cbr_handle)it->handle, it->arg); break;
    case RELEASE: it->answer.status = cbr_release((cbr_handle)it->handle); break;
    case UNREGISTER: it->answer.status = cbr_unregister((cbr_handle)it->handle); break;
    case ATTACH: it->answer.status = (*vm)->AttachCurrentThread(vm, (void **)&env, &args); break;
    case DETACH: it->answer.status = (*vm)->DetachCurrentThread(vm); break;
    case IS_ATTACHED: it->answer.result = (*vm)->GetEnv(vm, (void **)&env, JNI_VERSION_1_8) == JNI_OK; break;
    case CALL_AT_EXIT: MUST(pthread_setspecific(at_exit, (void *)(uintptr_t)it->handle) == 0); break;
  }
}

static void *thread_main(void *arg) {
  struct thread *it = arg;
  pthread_setname_np(pthread_self(), it->name);
  bool end = false;
  while (!end) {
    MUST(pthread_mutex_lock(&it->mutex) == 0);
    while (!it->busy) pthread_cond_wait(&it->changed, &it->mutex);
    MUST(pthread_mutex_unlock(&it->mutex) == 0);
    end = it->order == END;
    carry_out(it);
    MUST(pthread_mutex_lock(&it->mutex) == 0);
    it->busy = false;
    pthread_cond_broadcast(&it->changed);
    MUST(pthread_mutex_unlock(&it->mutex) == 0);
  }
  return NULL;
}

JNIEXPORT jlong JNICALL Java_io_callbridge_NativeThread_start(JNIEnv *env, jclass class, jbyteArray name) {
  (void)class;
  struct thread *it = calloc(1, sizeof *it);
  MUST(it != NULL);
  jsize length = (*env)->GetArrayLength(env, name);
  MUST(length < (jsize)sizeof it->name);
  (*env)->GetByteArrayRegion(env, name, 0, length, (jbyte *)it->name);
  MUST(pthread_mutex_init(&it->mutex, NULL) == 0 && pthread_cond_init(&it->changed, NULL) == 0);
  MUST(pthread_create(&it->thread, NULL, thread_main, it) == 0);
  return (jlong)(intptr_t)it;
}

JNIEXPORT jobject JNICALL Java_io_callbridge_NativeThread_order(JNIEnv *env, jclass class, jlong thread,
                                                                jint order, jlong handle, jlong arg) {
  (void)class;
  struct thread *it = (struct thread *)(intptr_t)thread;
  MUST(pthread_mutex_lock(&it->mutex) == 0);
  it->order = order;
  it->handle = handle;
  it->arg = arg;
  it->busy = true;
  pthread_cond_broadcast(&it->changed);
  while (it->busy) pthread_cond_wait(&it->changed, &it->mutex);
  MUST(pthread_mutex_unlock(&it->mutex) == 0);
  return answer_to_java(env, &it->answer);
}

JNIEXPORT void JNICALL Java_io_callbridge_NativeThread_join(JNIEnv *env, jclass class, jlong thread) {
  (void)env, (void)class;
  struct thread *it = (struct thread *)(intptr_t)thread;
  pthread_join(it->thread, NULL);
  pthread_cond_destroy(&it->changed);
  pthread_mutex_destroy(&it->mutex);
  free(it);
}

/* --- a thread that never stops ------------------------------------------------------------ */

static cbr_handle for_ever_handle;
static int64_t refused, entered;

static void *calls_for_ever(void *unused) {
  (void)unused;
  for (;;) {
    cbr_status status = cbr_call(for_ever_handle, NULL, NULL);
    __atomic_add_fetch(status == CBR_OK ? &entered : &refused, 1, __ATOMIC_RELAXED);
  }
  return NULL;
}

JNIEXPORT void JNICALL Java_io_callbridge_Host_callForEver(JNIEnv *env, jclass class, jlong handle) {
  (void)env, (void)class;
  pthread_t thread;
  for_ever_handle = (cbr_handle)handle;
  MUST(pthread_create(&thread, NULL, calls_for_ever, NULL) == 0);
  MUST(pthread_detach(thread) == 0);
}

JNIEXPORT jlong JNICALL Java_io_callbridge_Host_entered(JNIEnv *env, jclass class) {
  (void)env, (void)class;
  return __atomic_load_n(&entered, __ATOMIC_RELAXED);
}

JNIEXPORT jlong JNICALL Java_io_callbridge_Host_refused(JNIEnv *env, jclass class) {
  (void)env, (void)class;
  return __atomic_load_n(&refused, __ATOMIC_RELAXED);
}
