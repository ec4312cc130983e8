/* A C program with a JVM inside, which it destroys before its threads have ended: they are refused from then on, and
 * their end does not wait for a JVM that is gone.
 *   embed CLASSPATH LIBRARY_PATH */
#include <callbridge.h>
#include <jni.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#define MUST(condition)                                                                            \
  do {                                                                                             \
    if (!(condition)) {                                                                            \
      fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                             \
      abort();                                                                                     \
    }                                                                                              \
  } while (0)

static cbr_handle handle;
static int64_t entered;

static pthread_barrier_t destroyed;

/* Calls until it is refused, and ends when there is no JVM any more that could detach it. */
static void *calls(void *unused) {
  cbr_status status;
  while ((status = cbr_call(handle, NULL, NULL)) == CBR_OK) __atomic_add_fetch(&entered, 1, __ATOMIC_RELAXED);
  MUST(status == CBR_ERR_STALE);
  pthread_barrier_wait(&destroyed);
  return unused;
}

int main(int count, char **arguments) {
  char path[4096], libraries[4096];
  pthread_t thread;
  JavaVM *vm;
  JNIEnv *env;
  MUST(count == 3);
  snprintf(path, sizeof path, "-Djava.class.path=%s", arguments[1]);
  snprintf(libraries, sizeof libraries, "-Djava.library.path=%s", arguments[2]);
  JavaVMOption options[] = {{.optionString = path}, {.optionString = libraries}};
  JavaVMInitArgs args = {.version = JNI_VERSION_1_8, .nOptions = 2, .options = options};
  MUST(JNI_CreateJavaVM(&vm, (void **)&env, &args) == JNI_OK);

  jclass class = (*env)->FindClass(env, "io/callbridge/EmbeddedProgram");
  MUST(class != NULL);
  jmethodID start = (*env)->GetStaticMethodID(env, class, "start", "()J");
  MUST(start != NULL);
  handle = (cbr_handle)(*env)->CallStaticLongMethod(env, class, start);
  MUST(!(*env)->ExceptionCheck(env));
  MUST(pthread_barrier_init(&destroyed, NULL, 2) == 0);
  MUST(pthread_create(&thread, NULL, calls, NULL) == 0);
  /* Calls of our own, until the other thread has called, too. */
  while (__atomic_load_n(&entered, __ATOMIC_RELAXED) == 0) MUST(cbr_call(handle, NULL, NULL) == CBR_OK);

  MUST((*vm)->DestroyJavaVM(vm) == JNI_OK);
  pthread_barrier_wait(&destroyed);
  MUST(pthread_join(thread, NULL) == 0);
  MUST(cbr_call(handle, NULL, NULL) == CBR_ERR_STALE);
  MUST(cbr_release(handle) == CBR_ERR_STALE);
  puts("refused, and ended");
  return 0;
}
