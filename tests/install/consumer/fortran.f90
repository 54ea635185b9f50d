! Arrays, text, files and internal writes of a Fortran program. The runtime allocates for all of them; in a static program it
! uses threads' functions as soon as it finds one of them, and must find all.
program consumer
  implicit none
  real(8), allocatable :: field(:)
  character(len=:), allocatable :: text
  character(len=40) :: line
  integer :: i, unit, number
  do i = 1, 100
    if (allocated(field)) deallocate(field)
    allocate(field(1000 * i))
    field = i
  end do
  text = repeat('x', 1000)
  open(newunit=unit, status='scratch')
  write(unit, *) 4711
  rewind(unit)
  read(unit, *) number
  close(unit)
  write(line, '(i0, 1x, i0, 1x, f0.1)') number, len(text), sum(field)
  if (line /= '4711 1000 10000000.0') then
    print '(a)', 'read back: ' // line
    stop 1
  end if
  print '(a)', 'ok'
end program consumer
