// Part of libnumaheap.a: what must be in a static program as a whole or not at all.
//
// The runtimes of gcc (libgfortran, libgcc_eh) hold weak references to the functions below, find out by one of them whether
// the program has threads, and then call the others. What we need ourselves brings in that one, so we ask for all of them.
// A relocation of the kind "none" does this without a byte in the program. The section is one of its own and empty: the linker
// leaves it out, and in a dynamic program it would not know what to do with such a relocation.

  .section .data.rel.ro.numaheap_threads, "aw", @progbits
1:
  .irp name, __pthread_key_create, pthread_cond_broadcast, pthread_cond_destroy, pthread_cond_init, pthread_cond_wait, \
             pthread_create, pthread_getspecific, pthread_join, pthread_key_create, pthread_key_delete, \
             pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_trylock, pthread_mutex_unlock, \
             pthread_once, pthread_self, pthread_setspecific
  .reloc 1b, R_X86_64_NONE, \name
  .endr

  .section .note.GNU-stack, "", @progbits
