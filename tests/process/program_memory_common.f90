! A Fortran program with two COMMON blocks and an array that is saved.
program program_memory_common
  use, intrinsic :: iso_c_binding
  implicit none
  integer, parameter :: n = 4 * 1024 * 1024
  double precision, target :: x
  double precision :: y
  common /left/ x(n)
  common /right/ y(n)
  integer :: i

  interface
    subroutine show_range(name, p, bytes) bind(C, name="show_range")
      use, intrinsic :: iso_c_binding
      character(kind=c_char), intent(in) :: name(*)
      type(c_ptr), value :: p
      integer(c_size_t), value :: bytes
    end subroutine
  end interface

  do i = 1, n
    x(i) = i
    y(i) = 2 * x(i)
  end do
  call smooth()
  if (sum(y) /= 1.0d0 * n * (n + 1)) stop 1
  call show_range("zeroes" // c_null_char, c_loc(x), int(8, c_size_t) * n)

contains

  subroutine smooth()
    double precision, save :: work(n)
    work = y
    do i = 2, n - 1
      work(i) = (y(i - 1) + y(i + 1)) / 2
    end do
    y = work
  end subroutine
end program
