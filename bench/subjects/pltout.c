/* The least that any shared library can cost: see pltout/pltout.c. */
#include "../pltout/pltout.h"

#define SUBJECT pltout
#define SUBJECT_TEXT "plt-out"
#define S_CALL pltout_call
#define S_ADD pltout_register
#define S_REMOVE pltout_unregister
#include "loops.h"
