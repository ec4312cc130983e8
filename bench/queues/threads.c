#define _GNU_SOURCE
#include <pthread.h>
#include <semaphore.h>
#include <unistd.h>

#include "queue.h"

static struct {
    pthread_t thread;
    sem_t started;
    pid_t id;
    void (*loop)(void);
} consumer;

static void *consumer_main(void *unused)
{
    consumer.id = gettid();
    sem_post(&consumer.started);
    consumer.loop();
    return unused;
}

pid_t consumer_start(void (*loop)(void))
{
    consumer.loop = loop;
    sem_init(&consumer.started, 0, 0);
    if (pthread_create(&consumer.thread, NULL, consumer_main, NULL) != 0)
        bench_die("cannot start a thread");
    while (sem_wait(&consumer.started) != 0)
        ;
    return consumer.id;
}

void consumer_join(void)
{
    pthread_join(consumer.thread, NULL);
}

/* Looking at a full queue again at once would take the cache lines from the consumer. One that stays full
 * has a consumer that does not run, perhaps because this thread has its CPU. */
void queue_back_off(unsigned tries)
{
    if (tries >= 8) {
        usleep(50);
        return;
    }
    for (double until = now_ns() + 1e3; now_ns() < until;)
        queue_pause();
}
