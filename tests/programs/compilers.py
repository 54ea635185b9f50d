"""g++ on a large translation unit, and programs that other compilers made: OpenMP and Fortran."""

import os
import subprocess

from program import Program
from workplace import file_digest, scaled

OPENMP_SOURCE = r"""
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A field that is allocated by one thread and first touched by all, as solvers do it. */
static unsigned long first_touch(size_t n, int steps) {
  unsigned long sum = 0;
  for (int step = 0; step < steps; step++) {
    unsigned* field = malloc(n * sizeof *field);
    unsigned* next = malloc(n * sizeof *next);
    if (!field || !next) abort();
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < n; i++) field[i] = (unsigned)(i * 2654435761u + (unsigned)step);
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < n; i++) next[i] = field[i] / 2 + field[(i + 1) % n] / 4 + field[(i + n - 1) % n] / 4;
#pragma omp parallel for reduction(+ : sum)
    for (size_t i = 0; i < n; i++) sum += next[i] >> 8;
    free(field);
    free(next);
  }
  return sum;
}

/* Small objects allocated in one parallel region and freed in another, by other threads. */
static unsigned long lists(int count) {
  struct node { struct node* next; unsigned value; char text[40]; };
  enum { kLists = 1000 };
  static struct node* heads[kLists];
  unsigned long sum = 0;
#pragma omp parallel for schedule(dynamic, 7)
  for (int l = 0; l < kLists; l++) {
    for (int i = 0; i < count; i++) {
      struct node* node = malloc(sizeof *node);
      node->next = heads[l];
      node->value = (unsigned)(l * 31 + i);
      snprintf(node->text, sizeof node->text, "node %d of %d", i, l);
      heads[l] = node;
    }
  }
#pragma omp parallel for schedule(dynamic, 3) reduction(+ : sum)
  for (int k = 0; k < kLists; k++) {
    int l = kLists - 1 - k;
    while (heads[l]) {
      struct node* node = heads[l];
      sum += node->value + strlen(node->text);
      heads[l] = node->next;
      free(node);
    }
  }
  return sum;
}

static unsigned long tasks(int depth) {
  if (depth == 0) return 1;
  unsigned long a = 0, b = 0;
  char* buffer = malloc((size_t)depth * 1000);
  memset(buffer, depth, (size_t)depth * 1000);
#pragma omp task shared(a)
  a = tasks(depth - 1);
#pragma omp task shared(b)
  b = tasks(depth - 1);
#pragma omp taskwait
  unsigned long sum = a + b + (unsigned long)buffer[depth * 1000 - 1];
  free(buffer);
  return sum;
}

int main(int argc, char** argv) {
  const size_t n = strtoul(argv[1], NULL, 10);
  (void)argc;
  printf("first touch %lu\n", first_touch(n, 6));
  printf("lists %lu\n", lists((int)(n / 100000)));
  unsigned long sum = 0;
#pragma omp parallel
#pragma omp single
  sum = tasks(12);
  printf("tasks %lu\n", sum);
  return 0;
}
"""

FORTRAN_SOURCE = r"""
program allocations
  implicit none
  integer, parameter :: dp = kind(1.0d0)
  real(dp), allocatable :: field(:,:), work(:,:), line(:), grown(:)
  character(len=:), allocatable :: text
  type cell
    real(dp), allocatable :: values(:)
  end type cell
  type(cell), allocatable :: cells(:)
  character(len=20) :: argument
  integer :: n, i, j, step, status
  integer(8) :: checksum

  call get_command_argument(1, argument)
  read (argument, *) n

  do step = 1, 3
    allocate (field(n, n), work(n, n), stat=status)
    if (status /= 0) error stop 'ALLOCATE failed'
    do j = 1, n
      do i = 1, n
        field(i, j) = real(mod(i * 7 + j * 13 + step, 1000), dp)
      end do
    end do
    work = transpose(field)
    field = field + 2 * work
    print '(a,i0,a,f0.1)', 'step ', step, ' sum ', sum(field)
    deallocate (field, work)
  end do

  ! Reallocation on assignment, over and over.
  grown = [real(dp) ::]
  do i = 1, 2000
    grown = [grown, real(i, dp)]
  end do
  print '(a,i0,a,f0.1)', 'grown to ', size(grown), ' sum ', sum(grown)

  allocate (cells(20000))
  do i = 1, size(cells)
    allocate (cells(i)%values(mod(i * 37, 500) + 1))
    cells(i)%values = real(i, dp)
  end do
  checksum = 0
  do i = 1, size(cells), 3
    line = cells(i)%values * 2
    checksum = checksum + int(sum(line), 8)
    deallocate (cells(i)%values)
  end do
  print '(a,i0)', 'cells ', checksum

  text = ''
  do i = 1, 3000
    text = text // 'abc'
  end do
  print '(a,i0)', 'text of ', len(text)

  ! More than there is: an error status, not the end of the program.
  allocate (line(5000000000000000_8), stat=status)
  print '(a,l1)', 'a huge ALLOCATE was refused: ', status /= 0
end program allocations
"""


def write(folder, name, text):
    path = os.path.join(folder, name)
    with open(path, "w", encoding="ascii") as file:
        file.write(text)
    return path


def translation_unit(functions):
    """Templates, containers, regular expressions and long functions: what makes cc1plus allocate."""
    headers = ("algorithm array bitset chrono deque functional future iostream iterator list map memory numeric optional "
               "ostream random ranges regex set span sstream string string_view thread tuple type_traits unordered_map "
               "unordered_set utility variant vector")
    parts = [f"#include <{name}>" for name in headers.split()]
    for i in range(functions):
        parts.append(f"""
struct Record{i} {{ int id; std::string name; std::vector<std::pair<int, std::string>> parts; double weight[{i % 7 + 1}]; }};
template <typename T, int N> struct Fold{i} {{ static constexpr T value = N * Fold{i}<T, N - 1>::value % 1000003; }};
template <typename T> struct Fold{i}<T, 0> {{ static constexpr T value = {i + 1}; }};
long work{i}(const std::vector<Record{i}>& records, std::map<std::string, std::set<int>>& index) {{
  std::unordered_map<int, std::variant<int, double, std::string>> seen;
  long sum = Fold{i}<long, {40 + i % 50}>::value;
  for (const auto& record : records) {{
    index[record.name + "{i}"].insert(record.id);
    std::visit([&](const auto& v) {{ std::ostringstream out; out << v << {i}; sum += static_cast<long>(out.str().size()); }},
               seen.try_emplace(record.id, record.weight[0]).first->second);
    switch (record.id % 17) {{
{chr(10).join(f'      case {k}: sum = sum * {k + 3} ^ (sum >> {k % 5 + 1}) ^ record.id; break;' for k in range(17))}
    }}
  }}
  auto sorted = records;
  std::sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) {{ return a.weight[0] < b.weight[0]; }});
  return sum + static_cast<long>(sorted.size());
}}""")
    parts.append('bool match(const std::string& s) { return std::regex_match(s, std::regex("([a-z]+)-([0-9]{2,4})(x|y)*")); }')
    return "\n".join(parts) + "\n"


def prepare_cxx(folder):
    write(folder, "unit.cc", translation_unit(scaled(8, 1)))


def run_cxx(place):
    # The debug information would name the folder.
    out = place.run(["g++", "-std=c++20", "-O2", "-c", place.input("unit.cc"), "-o", "unit.o"])
    return {"stdout": out.decode(), "object file": file_digest(place.path("unit.o"))}


def prepare_openmp(folder):
    source = write(folder, "openmp.c", OPENMP_SOURCE)
    subprocess.run(["gcc", "-O2", "-fopenmp", source, "-o", os.path.join(folder, "openmp")], check=True)


def run_openmp(place):
    out = place.run([place.input("openmp"), str(scaled(20000000, 4000000))], env={"OMP_NUM_THREADS": "4"})
    return {"stdout": out.decode()}


def prepare_fortran(folder):
    source = write(folder, "allocations.f90", FORTRAN_SOURCE)
    subprocess.run(["gfortran", "-O2", source, "-o", os.path.join(folder, "allocations")], check=True)


def run_fortran(place):
    return {"stdout": place.run([place.input("allocations"), str(scaled(8000, 2000))]).decode()}


PROGRAMS = [
    Program("g++", run_cxx, {"g++": "g++"}, prepare_cxx, large=True),
    Program("openmp", run_openmp, {"gcc": "gcc"}, prepare_openmp, large=True),
    Program("fortran", run_fortran, {"gfortran": "gfortran"}, prepare_fortran, large=True),
]
