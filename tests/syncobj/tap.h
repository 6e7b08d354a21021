/*
 * Test cases of a program, told one a line: "ok NAME" or "not ok NAME: why" (TAP). Each case runs in a child
 * with its own open of the device, so that one that dies or hangs does not take the others with it.
 */
#ifndef TAP_H
#define TAP_H

#include <stdbool.h>
#include <stddef.h>

#define LEN(array) (sizeof(array) / sizeof((array)[0]))

/* Calls here give 0 or a negative errno, and are compared with what they should give. */
#define GIVES(call, expected) gives(__FILE__, __LINE__, #call, (call), (expected))
#define CHECK(condition, ...) ((condition) ? (void)0 : not_ok(__FILE__, __LINE__, __VA_ARGS__))

void gives(const char *file, int line, const char *what, long long got, long long expected);
/* Ends the case. */
_Noreturn void not_ok(const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

struct variant; /* what distinguishes cases that share a function; each program has its own */

/* `fd`: the device. A NULL path: the case needs none, and gets -1. Few cases use both parameters. */
#pragma GCC diagnostic ignored "-Wunused-parameter"
typedef void case_function(int fd, const struct variant *variant);
void run_case(const char *path, const char *name, case_function *run, const struct variant *variant);
/* The plan, and the program's exit status: 1 if a case was not ok. */
int finish(void);

#endif
