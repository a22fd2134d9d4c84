// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

// Ends the test, which is a program of its own, where a promise does not hold.
#define CHECK(condition)                                                            \
  do {                                                                              \
    if (!(condition)) {                                                             \
      fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, __LINE__, #condition); \
      exit(1);                                                                      \
    }                                                                               \
  } while (0)

// The call gives NULL or 0, and this errno.
#define CHECK_FAILS(call, error_number)                                                                      \
  do {                                                                                                       \
    errno = 0;                                                                                               \
    if ((call) || errno != (error_number)) {                                                                 \
      fprintf(stderr, "%s:%d: %s: errno %d, expected %d\n", __FILE__, __LINE__, #call, errno, error_number); \
      exit(1);                                                                                               \
    }                                                                                                        \
  } while (0)
