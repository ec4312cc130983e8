/* The library's log in the host's own: every misuse that was contained, one line, by name. */
#include <callbridge.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static const char *const LEVELS[] = {"", "error", "warn", "info", "debug", "trace"};
static int lines;

/* What a host would do with its own log, spdlog, syslog ... */
static void my_log(void *user_data, uint32_t level, const char *target, const char *message) {
  fprintf(user_data, "{\"time\":%lld,\"level\":\"%s\",\"from\":\"%s\",\"message\":\"%s\"}\n",
          (long long)time(NULL), LEVELS[level], target, message);
  lines++;
}

static intptr_t on_click(void *user_data, void *arg) {
  (void)user_data, (void)arg;
  return 0;
}

int main(void) {
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  cbr_handle handle;
  options.fn = (cbr_any_fn)on_click;
  options.name = "on_click";
  if (cbr_log_to(my_log, stdout, NULL, 0, CBR_LOG_WARN) != CBR_OK) return 1;
  if (cbr_register_with(&options, &handle) != CBR_OK) return 1;
  cbr_unregister(handle);
  cbr_call(handle, NULL, NULL);      /* too late: refused, and said by name */
  cbr_call(handle + 1, NULL, NULL);  /* a number that was never a handle */
  return lines == 2 ? 0 : 1;
}
