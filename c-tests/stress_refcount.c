/* The limit of references, reached one by one. */
#include "support_subject.h"

enum { MOST = 1 << 30 };

TEST(the_retain_after_2_to_the_30_references_is_refused) {
  struct subject it;
  uint32_t count = 0;
  if (under_valgrind()) SKIP("a billion calls take an hour under valgrind");
  subject_register(&it);
  int64_t begin = now_ns();
  for (long i = 1; i < MOST; i++) {
    if (cbr_retain(it.handle) != CBR_OK) FAIL("retain number %ld failed", i);
  }
  printf("%d references in %.2f s\n", MOST, (double)(now_ns() - begin) / 1e9);
  CHECK_OK(cbr_refcount(it.handle, &count));
  CHECK_EQ(count, MOST);
  for (int i = 0; i < 3; i++) CHECK_REFUSED(cbr_retain(it.handle), CBR_ERR_LIMIT);
  CHECK_OK(cbr_refcount(it.handle, &count));
  CHECK_EQ(count, MOST);
  CHECK_OK(cbr_call(it.handle, NULL, NULL));

  CHECK_OK(cbr_release(it.handle)); /* room for one again */
  CHECK_OK(cbr_retain(it.handle));
  CHECK_REFUSED(cbr_retain(it.handle), CBR_ERR_LIMIT);
  for (int i = 0; i < 1000; i++) CHECK_OK(cbr_release(it.handle));
  CHECK_OK(cbr_refcount(it.handle, &count));
  CHECK_EQ(count, MOST - 1000);
  CHECK_EQ(it.destroyed, 0);

  CHECK_OK(cbr_unregister(it.handle)); /* whatever the count */
  CHECK_EQ(it.destroyed, 1);
  CHECK_STATUS(cbr_retain(it.handle), CBR_ERR_STALE);
  CHECK_STATUS(cbr_release(it.handle), CBR_ERR_STALE);
  subject_register(&it); /* the place counts from one again */
  CHECK_OK(cbr_refcount(it.handle, &count));
  CHECK_EQ(count, 1);
  CHECK_OK(cbr_release(it.handle));
  CHECK_EQ(it.destroyed, 1);
}
