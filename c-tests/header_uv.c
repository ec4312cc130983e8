/* callbridge_uv.h by itself, in C11 and in C++17: compiled with INCLUDE_ONCE or INCLUDE_TWICE under
 * -pedantic-errors. */
#include <callbridge_uv.h>
#ifdef INCLUDE_TWICE
#include <callbridge_uv.h>
#endif

void ended(cbr_uv *it, cbr_status status);
void closed(cbr_uv *it);

cbr_status use(cbr_uv *it, uv_loop_t *loop, cbr_queue queue);
cbr_status use(cbr_uv *it, uv_loop_t *loop, cbr_queue queue) {
  cbr_uv_ended_fn ended_function = ended;
  cbr_uv_closed_fn closed_function = closed;
  it->poll.data = loop;
  (void)cbr_uv_init(it, loop, queue, 0);
  (void)cbr_uv_start(it, ended_function);
  (void)cbr_uv_stop(it);
  return cbr_uv_close(it, closed_function);
}
