/* callbridge_glib.h by itself, in C11 and in C++17: compiled with INCLUDE_ONCE or INCLUDE_TWICE under
 * -pedantic-errors. */
#include <callbridge_glib.h>
#ifdef INCLUDE_TWICE
#include <callbridge_glib.h>
#endif

void ended(cbr_status status, gpointer data);

cbr_status use(cbr_queue queue, GSource **out);
cbr_status use(cbr_queue queue, GSource **out) {
  cbr_glib_ended_fn function = ended;
  cbr_status status = cbr_glib_source_new(queue, 0, out);
  if (status != CBR_OK) return status;
  g_source_set_callback(*out, G_SOURCE_FUNC(function), NULL, NULL);
  cbr_glib_source_stop(*out);
  cbr_glib_source_start(*out);
  return CBR_OK;
}
