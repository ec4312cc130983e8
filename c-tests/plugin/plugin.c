/* A plugin: all that its callbacks use, code and data, goes when it is unloaded. */
#include "plugin.h"

#include <stddef.h>

enum { ALIVE = 0x600d600d, DESTROYED = 0x0badbad0 };

struct item {
  struct plugin_host *host;
  uint32_t state;
  int number;
  cbr_handle handle;
};

static struct item items[PLUGIN_CALLBACKS];

static void count(long *what) { __atomic_add_fetch(what, 1, __ATOMIC_ACQ_REL); }

static void check_alive(const struct item *it) {
  if (__atomic_load_n(&it->state, __ATOMIC_ACQUIRE) != ALIVE) count(&it->host->wrong);
}

static intptr_t run(void *user_data, void *arg) {
  struct item *it = (struct item *)user_data;
  struct plugin_host *host = it->host;
  count(&host->entered);
  check_alive(it);
  /* A while of the plugin's own code, and now and then another callback of it inside. */
  for (volatile int i = 0; i < 50; i++) {
  }
  if (arg != NULL && it->number > 0) host->call(items[it->number - 1].handle, NULL, NULL);
  if (it->number == PLUGIN_CALLBACKS - 1 && host->ask != NULL) host->ask();
  check_alive(it);
  count(&host->left);
  return PLUGIN_RESULT + it->number;
}

static void destroy(void *user_data) {
  struct item *it = (struct item *)user_data;
  uint32_t was = __atomic_exchange_n(&it->state, DESTROYED, __ATOMIC_ACQ_REL);
  if (was != ALIVE) count(&it->host->wrong);
  count(&it->host->destroyed);
}

static void *attach(void *user_data) {
  count(&((struct plugin_host *)user_data)->attached);
  return items;
}

static void detach(void *user_data, void *token) {
  struct plugin_host *host = (struct plugin_host *)user_data;
  if (token != items) count(&host->wrong);
  count(&host->detached);
}

static void hooks_destroy(void *user_data) {
  struct plugin_host *host = (struct plugin_host *)user_data;
  for (int i = 0; i < PLUGIN_CALLBACKS; i++) {
    if (__atomic_load_n(&items[i].state, __ATOMIC_ACQUIRE) != DESTROYED) count(&host->wrong);
  }
  count(&host->hooks_destroyed);
}

cbr_status plugin_start(struct plugin_host *host, cbr_handle *handles);
cbr_fn plugin_function(void **out_user_data);

cbr_status plugin_start(struct plugin_host *host, cbr_handle *handles) {
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  cbr_status status = host->set_thread_hooks(host->scope, attach, detach, host, hooks_destroy);
  for (int i = 0; status == CBR_OK && i < PLUGIN_CALLBACKS; i++) {
    items[i].host = host;
    items[i].state = ALIVE;
    items[i].number = i;
    options.fn = (cbr_any_fn)run;
    options.user_data = &items[i];
    options.destroy = destroy;
    options.name = "of a plugin";
    options.scope = host->scope;
    options.flags = host->flags;
    status = host->register_with(&options, &items[i].handle);
    handles[i] = items[i].handle;
  }
  if (status == CBR_OK) status = host->name_bind(host->scope, "first", handles[0], CBR_BIND_ONCE);
  for (uint32_t i = 0; status == CBR_OK && i < PLUGIN_CALLBACKS; i++)
    status = host->key_attach(host->scope, PLUGIN_KEY, i, handles[i], CBR_BIND_ONCE);
  return status;
}

cbr_fn plugin_function(void **out_user_data) {
  items[0].state = ALIVE; /* the callback's destroy function may have run */
  *out_user_data = &items[0];
  return run;
}
