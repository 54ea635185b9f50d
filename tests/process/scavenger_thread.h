// Finding the library's background thread among the threads of the process.
#pragma once

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/case.h"

// The number of a thread of that name; 0: there is none.
inline int scavenger() {
  int found = 0;
  DIR* tasks = opendir("/proc/self/task");
  REQUIRE(tasks != nullptr);
  while (const dirent* entry = readdir(tasks)) {
    char path[300], name[32] = "";
    snprintf(path, sizeof path, "/proc/self/task/%s/comm", entry->d_name);
    FILE* file = fopen(path, "r");
    if (file == nullptr) continue;
    if (fgets(name, sizeof name, file) != nullptr && strcmp(name, "numaheap-scav\n") == 0) found = atoi(entry->d_name);
    fclose(file);
  }
  closedir(tasks);
  return found;
}
