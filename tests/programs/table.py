"""The programs: what each needs, how its inputs are made, how it is run, and what of its output is compared."""

import compilers
import databases
import interpreters
import tools

PROGRAMS = {program.name: program for module in (interpreters, compilers, databases, tools) for program in module.PROGRAMS}
