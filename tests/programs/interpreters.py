"""python3 with parts of its own test suite, and perl."""

import re

from program import Program
from workplace import scaled

PYTHON = "/usr/bin/python3"

PERL_SCRIPT = r"""
use strict; use warnings;
my $n = shift @ARGV;
my (%count, @words, %index);
my $state = 12345;
sub next_random { $state = ($state * 1103515245 + 12345) & 0x7fffffff; return $state >> 8; }
# Strings that grow, hashes that are rehashed, arrays that are reallocated.
for my $i (1 .. $n) {
  my $word = join '', map { chr(97 + next_random() % 26) } 1 .. 3 + next_random() % 12;
  $count{substr $word, 0, 3}++;
  push @words, $word;
  push @{ $index{length $word} }, $i;
}
print "$_ $count{$_}\n" for (sort keys %count)[0 .. 99];
print "$_: ", scalar @{ $index{$_} }, "\n" for sort { $a <=> $b } keys %index;
my @sorted = sort @words;
print "first $sorted[0] last $sorted[-1]\n";
my $text = join ' ', @sorted;
print "text of ", length $text, "\n";
my $vowels = () = $text =~ /[aeiou]/g;
(my $changed = $text) =~ s/(\w)(\w+)/$2$1/g;
print "vowels $vowels, checksum ", unpack('%32C*', $changed), "\n";
# Nested structures, half of which are thrown away again.
my @tree;
for my $i (1 .. $n / 10) {
  push @tree, { id => $i, list => [ map { $_ * $i } 1 .. 20 ], name => "node $i" };
  splice @tree, next_random() % @tree, 1 if $i % 2;
}
my $sum = 0;
$sum += $_->{list}[7] for @tree;
print "tree of ", scalar @tree, ", sum $sum\n";
exit 0 unless @ARGV;
# A child that shares all of this, and a pipe to another.
my $pid = open my $pipe, '-|';
if (!$pid) { push @words, 'x' x 1000 for 1 .. 1000; print scalar @words, " in the child\n"; exit 0; }
print while <$pipe>;
close $pipe or die "child: $?";
"""


def run_python(place):
    tests = scaled(["test_json", "test_dict", "test_threading", "test_gc"], ["test_json", "test_dict", "test_gc"])
    # One random seed, one order; what is compared are the verdicts: the rest of the output is timing.
    out = place.run([PYTHON, "-m", "test", "--verbose2", *tests], env={"PYTHONMALLOC": "malloc", "PYTHONHASHSEED": "0"})
    verdicts = []
    for line in out.decode(errors="replace").splitlines():
        if re.match(r"^\w+ \([\w.]+\).* \.\.\. (ok|FAIL|ERROR|skipped)", line) or re.search(r"tests? OK\.|SUCCESS|FAILURE", line):
            verdicts.append(line)
    return {"verdicts": "\n".join(sorted(verdicts)) + "\n"}


def run_perl(place):
    """Twice: a process that forks leaves the pool, one that does not ends with what it took from there."""
    env = {"PERL_HASH_SEED": "0", "PERL_PERTURB_KEYS": "0"}
    command = ["perl", "-e", PERL_SCRIPT, str(scaled(400000, 60000))]
    return {"alone": place.run(command, env=env).decode(), "with a child": place.run([*command, "fork"], env=env).decode()}


PROGRAMS = [
    Program("python3", run_python, {PYTHON: "python3"},
            needs_files={"/usr/lib/python3*/test/test_json/__init__.py": "libpython3.11-testsuite"}),
    Program("perl", run_perl, {"perl": "perl"}, large=True),
]
