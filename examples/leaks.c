/* Callbacks that nobody unregisters, and how to find out who registered them.
 *
 *   CALLBRIDGE_LEAK_CHECK=1 ./leaks                   says what is live at exit, by stack
 *   CALLBRIDGE_LEAK_CHECK=exit:23 ./leaks             and exits with 23
 *   CALLBRIDGE_STACKS=1 ./leaks profile.pb.gz         writes a profile, for go tool pprof or speedscope
 *
 * A server keeps two callbacks for every connection. It closes each connection, and yet they become more:
 * close_connection forgets one. A plugin is loaded, and its scope never closed. scripts/leaks-demo draws it. */
#include <callbridge.h>

#include <stdio.h>
#include <stdlib.h>

static void check(cbr_status status) {
  if (status == CBR_OK) return;
  fprintf(stderr, "%s\n", cbr_status_name(status));
  exit(1);
}

/* --- the server ---------------------------------------------------------------------------- */

struct connection {
  cbr_handle on_data, on_timeout;
};

static intptr_t count_bytes(void *user_data, void *arg) {
  (void)user_data;
  return *(int *)arg;
}

static intptr_t give_up(void *user_data, void *arg) {
  (void)user_data, (void)arg;
  return 0;
}

static cbr_handle add_callback(const char *name, cbr_fn fn) {
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  cbr_handle handle;
  options.fn = (cbr_any_fn)fn;
  options.name = name;
  check(cbr_register_with(&options, &handle));
  return handle;
}

static void start_timer(struct connection *connection) {
  connection->on_timeout = add_callback("timeout", give_up);
}

static void open_connection(struct connection *connection) {
  connection->on_data = add_callback("data", count_bytes);
  start_timer(connection);
}

static void serve(struct connection *connection) {
  int bytes = 42;
  check(cbr_call(connection->on_data, &bytes, NULL));
}

static void close_connection(struct connection *connection) {
  check(cbr_unregister(connection->on_data));
  /* and the timer? */
}

static void accept_connections(int count) {
  for (int i = 0; i < count; i++) {
    struct connection connection;
    open_connection(&connection);
    serve(&connection);
    close_connection(&connection);
  }
}

/* --- a plugin ------------------------------------------------------------------------------ */

static intptr_t observe(void *user_data, void *arg) {
  (void)user_data, (void)arg;
  return 0;
}

static void load_plugin(void) {
  cbr_scope scope;
  check(cbr_scope_open("statistics", &scope));
  for (int event = 0; event < 8; event++) {
    cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
    cbr_handle handle;
    options.fn = (cbr_any_fn)observe;
    options.scope = scope;
    check(cbr_register_with(&options, &handle));
  }
}

/* ------------------------------------------------------------------------------------------- */

static void write_to_file(void *user_data, const char *data, size_t len) {
  if (fwrite(data, 1, len, user_data) != len) perror("fwrite");
}

int main(int argc, char **argv) {
  load_plugin();
  accept_connections(40);
  if (argc > 1) {
    FILE *file = fopen(argv[1], "wb");
    if (file == NULL) return perror(argv[1]), 1;
    check(cbr_profile(0, write_to_file, file));
    if (fclose(file) != 0) return perror(argv[1]), 1;
  }
  puts("served 40 connections");
  return 0;
}
