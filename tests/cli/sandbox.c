/* sandbox [-e CALL,...] [-k CALL,...] [-t] CMD...: runs CMD under a seccomp filter that refuses calls (-e) or kills for them
   (-k), and without transparent huge pages (-t). CALL is a number. */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

static struct sock_filter code[128] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr))};
static unsigned short length = 1;

static void add(char* calls, unsigned action) {
  for (char* call = strtok(calls, ","); call != NULL && length < 120; call = strtok(NULL, ",")) {
    code[length++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)atoi(call), 0, 1);
    code[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, action);
  }
}

int main(int argc, char** argv) {
  int option;
  while ((option = getopt(argc, argv, "+e:k:t")) != -1) {
    if (option == 'e') add(optarg, SECCOMP_RET_ERRNO | EPERM);
    if (option == 'k') add(optarg, SECCOMP_RET_KILL_PROCESS);
    if (option == 't' && prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) != 0) return 125;
  }
  if (length > 1) {
    code[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    const struct sock_fprog program = {length, code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) return 125;
  }
  if (optind < argc) execvp(argv[optind], argv + optind);
  perror("sandbox");
  return 127;
}
