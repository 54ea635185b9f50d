! First touch with OpenMP: each thread works on the pages that it was the first to write to.
program first_touch
  use numaheap
  implicit none
  integer, parameter :: n = 2000
  real(real64), pointer, contiguous :: a(:, :), b(:, :)
  real(real64) :: total
  integer :: j, status
  character(len=100) :: reason

  call numaheap_allocate(a, [n, n], numaheap_first_touch, stat=status, errmsg=reason)
  if (status == 0) call numaheap_allocate(b, [n, n], numaheap_first_touch, stat=status, errmsg=reason)
  if (status /= 0) then
    print '(a)', trim(reason)
    error stop 1
  end if

  ! The first write decides where a page lies, so it is done by the loop and the schedule of the work below.
  !$omp parallel do schedule(static)
  do j = 1, n
    a(:, j) = real(j, real64)
    b(:, j) = 0
  end do

  total = 0
  !$omp parallel do schedule(static) reduction(+: total)
  do j = 1, n
    b(:, j) = 2 * a(:, j)
    total = total + sum(b(:, j))
  end do

  print '(a, f0.1)', 'sum ', total
  print '(2(a, i0))', 'first column on node ', numaheap_node_of(c_loc(a(1, 1))), ', last on node ', &
    numaheap_node_of(c_loc(a(1, n)))
  print '(a, i0)', 'bytes in objects ', numaheap_live_bytes()
  call numaheap_deallocate(a)
  call numaheap_deallocate(b)
end program
