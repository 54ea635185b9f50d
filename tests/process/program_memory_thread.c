// A library whose constructor starts a thread: from then on nothing of the process can be replaced by a copy.
#include <pthread.h>
#include <unistd.h>

static void* wait_for_ever(void* unused) {
  pause();
  return unused;
}

__attribute__((constructor)) static void start(void) {
  pthread_t thread;
  pthread_create(&thread, NULL, wait_for_ever, NULL);
}
