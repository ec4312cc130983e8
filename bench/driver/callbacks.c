/* The callback and destroy functions that every subject is given, apart from the subjects so that
 * no compiler can inline them. */
#include "subject.h"

intptr_t bench_callback(void *user_data, void *arg)
{
    return (intptr_t)((uintptr_t)user_data + (uintptr_t)arg);
}

void bench_destroy(void *user_data)
{
    ++*(uint64_t *)user_data;
}

void bench_destroy_shared(void *user_data)
{
    __atomic_fetch_add((uint64_t *)user_data, 1, __ATOMIC_RELAXED);
}

int bench_carried(void *user_data, int number, void *pointer)
{
    (void)pointer;
    return *(int *)user_data + number;
}

int bench_plain(int number, void *pointer)
{
    (void)pointer;
    return 1000 + number;
}
