// The variable nh_rseq_offset (g_rseq_offset in rseq.h), right before any code of the process can call malloc: it
// starts as the offset of our own area from the thread pointer. C++ has no expression for that, and it is known only
// when the library is loaded.
//
// In a shared library the natural `.quad area@tpoff` does not link: GNU ld 2.40 stops with an assertion, lld rejects the
// relocation. What does link is the address of an indirect function (R_X86_64_IRELATIVE): the dynamic linker calls the
// resolver below, after the other relocations of this library and before anything can call into it, and stores what it
// returns. Seen to work with GNU ld in shared libraries, PIE, non-PIE, -static and -static-pie.
//
// lld, and gold in executables without PIC, would store the address of a PLT entry instead. Therefore the static archive
// carries this file compiled with NUMAHEAP_STATIC_LINK: in an executable the offset is a link-time constant and every
// linker accepts the 32-bit relocation. The offset is negative there (the executable's TLS lies right below the thread
// pointer), so the upper half is all ones.
#ifdef NUMAHEAP_STATIC_LINK

__asm__(
    ".pushsection .data.nh_rseq_offset, \"aw\", @progbits\n"
    ".balign 8\n"
    ".globl nh_rseq_offset\n"
    ".hidden nh_rseq_offset\n"
    ".type nh_rseq_offset, @object\n"
    ".size nh_rseq_offset, 8\n"
    "nh_rseq_offset:\n"
    "  .long nh_rseq_own_area@tpoff\n"
    "  .long -1\n"
    ".popsection\n");

#else

__asm__(
    ".pushsection .text.nh_rseq_own_offset, \"ax\", @progbits\n"
    ".balign 16\n"
    ".hidden nh_rseq_own_offset\n"
    ".globl nh_rseq_own_offset\n"
    ".type nh_rseq_own_offset, @gnu_indirect_function\n"
    "nh_rseq_own_offset:\n"
    "  .cfi_startproc\n"
    "  endbr64\n"
    "  movq nh_rseq_own_area@gottpoff(%rip), %rax\n"
    "  ret\n"
    "  .cfi_endproc\n"
    ".size nh_rseq_own_offset, . - nh_rseq_own_offset\n"
    ".popsection\n"

    ".pushsection .data.nh_rseq_offset, \"aw\", @progbits\n"
    ".balign 8\n"
    ".globl nh_rseq_offset\n"
    ".hidden nh_rseq_offset\n"
    ".type nh_rseq_offset, @object\n"
    ".size nh_rseq_offset, 8\n"
    "nh_rseq_offset: .quad nh_rseq_own_offset\n"
    ".popsection\n");

#endif
