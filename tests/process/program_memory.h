// What the test programs of program_memory.py share: where the kernel has put a range of their own memory.
#pragma once

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

// Prints "NAME THP-KIB MAPPED-KIB": of the mappings that hold a part of the range, what is on transparent huge pages and how
// long they are together.
void show_range(const char* name, const void* p, size_t bytes);
// Prints "rss KIB": of the process.
void show_rss(void);
// Ends the process with status 1 where the condition does not hold.
void demand(int condition, const char* text);

#ifdef __cplusplus
}
#endif
