"""What a row of the table holds."""

from dataclasses import dataclass, field
from typing import Callable


def nothing(_folder):
    pass


@dataclass
class Program:
    name: str
    run: Callable  # (Workplace) -> {name: text}: the outputs that must not depend on the library
    needs: dict  # command -> Debian package
    prepare: Callable = nothing  # (folder): makes the inputs, once, without the library
    needs_files: dict = field(default_factory=dict)  # path pattern -> Debian package
    large: bool = False  # uses so much memory that huge pages must show in its statistics
