/* What the host of test_plugin.c gives its plugin. The plugin is linked with nothing and gets the
 * functions that it uses as pointers: so it works with the host's library, shared or static. */
#ifndef CALLBRIDGE_TEST_PLUGIN_H
#define CALLBRIDGE_TEST_PLUGIN_H

#include <callbridge.h>

enum { PLUGIN_CALLBACKS = 8 };
enum { PLUGIN_KEY = 1 };
/* What a plugin's callback returns; its number is added. */
enum { PLUGIN_RESULT = 4711 };

struct plugin_host {
  cbr_status (*register_with)(const cbr_callback_options *options, cbr_handle *out_handle);
  cbr_status (*set_thread_hooks)(cbr_scope scope, cbr_thread_attach_fn attach,
                                 cbr_thread_detach_fn detach, void *user_data,
                                 cbr_destroy_fn destroy);
  cbr_status (*name_bind)(cbr_scope scope, const char *name, cbr_handle handle, uint32_t mode);
  cbr_status (*key_attach)(cbr_scope scope, uintptr_t key, uint32_t event, cbr_handle handle,
                           uint32_t mode);
  cbr_status (*call)(cbr_handle handle, void *arg, intptr_t *out_result);

  cbr_scope scope;         /* opened by the host, for everything that the plugin registers */
  uint32_t flags;          /* of its callbacks */
  cbr_status (*ask)(void); /* what the last callback asks the host to do; may be NULL */

  /* Counted by the plugin in the host's memory, which is still there when the plugin is gone. */
  long entered, left, destroyed, attached, detached, hooks_destroyed, wrong;
};

/* Registers PLUGIN_CALLBACKS callbacks, and returns what failed first. The host finds it by name. */
typedef cbr_status (*plugin_start_fn)(struct plugin_host *host, cbr_handle *handles);

/* The function of all of them, for a host that calls it without the library. Likewise. */
typedef cbr_fn (*plugin_function_fn)(void **out_user_data);

#endif
