/* Mistakes on purpose, one an argument, so that scripts/sanitize can tell that its tools see them
 * through the library:
 *   freed   a callback reads user_data that the host has freed already
 *   leak    a destroy function forgets to free
 *   race    two threads' callbacks write the same variable
 *   ub      a callback adds to the largest int there is */
#include <callbridge.h>
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static intptr_t read_it(void *user_data, void *arg) {
  (void)arg;
  return *(volatile int *)user_data;
}
static intptr_t write_it(void *user_data, void *arg) {
  (void)arg;
  return *(int *)user_data += 1;
}
static intptr_t add_one(void *user_data, void *arg) {
  (void)arg;
  volatile int *number = user_data;
  *number = INT_MAX;
  return *number + 1;
}
static void forget(void *user_data) { (void)user_data; }

static pthread_barrier_t both;

static void *call(void *handle) {
  pthread_barrier_wait(&both);
  for (int i = 0; i < 100000; i++) {
    if (cbr_call(*(cbr_handle *)handle, NULL, NULL) != CBR_OK) abort();
  }
  return NULL;
}

static cbr_handle register_int(cbr_fn fn, cbr_destroy_fn destroy) {
  cbr_handle handle = CBR_HANDLE_NONE;
  if (cbr_register(fn, calloc(1, sizeof(int)), destroy, &handle) != CBR_OK) abort();
  return handle;
}

int main(int argc, char **argv) {
  const char *kind = argc == 2 ? argv[1] : "";
  if (strcmp(kind, "freed") == 0) {
    int *data = calloc(1, sizeof(int));
    cbr_handle handle;
    if (cbr_register(read_it, data, NULL, &handle) != CBR_OK) abort();
    free(data);
    (void)cbr_call(handle, NULL, NULL);
  } else if (strcmp(kind, "leak") == 0) {
    for (int i = 0; i < 100; i++) (void)cbr_unregister(register_int(read_it, forget));
  } else if (strcmp(kind, "race") == 0) {
    cbr_handle handle = register_int(write_it, free);
    pthread_t threads[2];
    pthread_barrier_init(&both, NULL, 2);
    for (int i = 0; i < 2; i++) {
      if (pthread_create(&threads[i], NULL, call, &handle) != 0) abort();
    }
    for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
    (void)cbr_unregister(handle);
  } else if (strcmp(kind, "ub") == 0) {
    cbr_handle handle = register_int(add_one, free);
    (void)cbr_call(handle, NULL, NULL);
    (void)cbr_unregister(handle);
  } else {
    return 2;
  }
  return 0;
}
