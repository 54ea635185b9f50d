! The kernels of fortran.cc. gfortran turns ALLOCATE, automatic reallocation and packed copies of array sections into
! calls of malloc, realloc and free.
module fortran_work
  use, intrinsic :: iso_c_binding, only: c_double, c_int64_t
  implicit none
  private
  public :: work_arrays, small_arrays

contains

  ! `steps` steps of a conservation law on grids of `least` to `most` cells, in turn. Each step allocates its work
  ! arrays and gives them back. Returns a sum over the last states.
  function work_arrays(steps, least, most) result(total) bind(C, name="nh_fortran_work_arrays")
    integer(c_int64_t), value :: steps, least, most
    real(c_double) :: total
    real(c_double), allocatable :: state(:), flux(:), slope(:)
    integer(c_int64_t) :: step, n, i

    total = 0
    n = least
    do step = 1, steps
      allocate (state(n), flux(n + 1), slope(n))
      do i = 1, n
        state(i) = real(mod(i * step, 101_c_int64_t), c_double)
      end do
      slope(1) = 0
      slope(n) = 0
      do i = 2, n - 1
        slope(i) = 0.5_c_double * (state(i + 1) - state(i - 1))
      end do
      flux(1) = state(1)
      do i = 2, n + 1
        flux(i) = state(i - 1) + 0.25_c_double * slope(i - 1)
      end do
      do i = 1, n
        state(i) = state(i) - 0.5_c_double * (flux(i + 1) - flux(i))
      end do
      total = total + state(1) + state(n / 2) + state(n)
      deallocate (state, flux, slope)
      n = n * 2
      if (n > most) n = least
    end do
  end function work_arrays

  ! `steps` sweeps over the rows of a matrix. A row is not contiguous, so the compiler copies it to a temporary for
  ! `smooth` and back; `smooth` has an allocatable result, and a list grows by reallocation on assignment.
  function small_arrays(steps) result(total) bind(C, name="nh_fortran_small_arrays")
    integer(c_int64_t), value :: steps
    real(c_double) :: total
    integer(c_int64_t), parameter :: rows = 64, columns = 200
    real(c_double), allocatable :: field(:, :), history(:)
    integer(c_int64_t) :: step, i, j

    allocate (field(rows, columns))
    do j = 1, columns
      do i = 1, rows
        field(i, j) = real(mod(i * j, 29_c_int64_t), c_double)
      end do
    end do
    total = 0
    do step = 1, steps
      allocate (history(0))
      do i = 1, rows
        field(i, :) = smooth(columns - mod(i, 8_c_int64_t) * 24, field(i, :))
        history = [history, field(i, 1)]
      end do
      total = total + sum(history) / rows
      deallocate (history)
    end do
  end function small_arrays

  ! The first `n` elements smoothed, the rest as it is.
  function smooth(n, row) result(smoothed)
    integer(c_int64_t), intent(in) :: n
    real(c_double), contiguous, intent(in) :: row(:)
    real(c_double), allocatable :: smoothed(:), left(:), right(:)

    allocate (left(n), right(n))
    left = cshift(row(1:n), -1)
    right = cshift(row(1:n), 1)
    smoothed = row
    smoothed(1:n) = 0.25_c_double * left + 0.5_c_double * row(1:n) + 0.25_c_double * right
    deallocate (left, right)
  end function smooth

end module fortran_work
