#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include "subject.h"

void bench_die(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("bench: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    fflush(stderr);
    _exit(1); /* libraries' destructors would complain about threads that still run */
}
