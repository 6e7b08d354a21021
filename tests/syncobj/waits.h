/* The cases that the binary and the timeline wait have in common, under the names that IGT gives them. */
#ifndef WAITS_H
#define WAITS_H

#include <stdbool.h>

void wait_cases(bool timeline);

#endif
