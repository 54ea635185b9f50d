// `numaheap options`: the table of options, in the form that is asked for.
#include <memory>

#include <unistd.h>

#include "base/options.h"
#include "cli/cli.h"
#include "numaheap/numaheap.h"

namespace nh::cli {

const char kOptionsHelp[] =
    R"(usage: numaheap options              the NUMAHEAP_ variables: what each accepts,
                                     [default], value now, meaning
       numaheap options --markdown   the table of docs/options.md
       numaheap options --man        the man page
)";

namespace {

constexpr std::string_view kManHead = R"(.TH NUMAHEAP 1
.SH NAME
numaheap \- run programs on a malloc with huge pages and one heap per NUMA node
.SH SYNOPSIS
.B numaheap run
.RI [ OPTION ...]
.RB [ \-\- ]
.I CMD
.RI [ ARG ...]
.br
.B numaheap topo
.RB [ \-\-xml
.IR FILE | \fB\-\-synthetic\fR
.IR S ]
.br
.B numaheap doctor
.RB [ \-\-json ]
.RI [ CMD ]
.br
.B numaheap reserve
.RB [ \-\-node
.IR NODES = AMOUNT "] ..."
.RB [ \-\-size " 2M|1G] [" \-\-compact "] [" \-\-dry\-run "] [" \-\-persist ]
.br
.B numaheap options
.RB [ \-\-markdown | \-\-man ]
.br
.B numaheap stat
.I PID
.RB [ \-\-json | \-\-prometheus ]
.br
.B numaheap top
.RI [ PID | \fB\-\-all\fR ]
.RB [ \-\-interval
.IR SECONDS ]
.RB [ \-\-count
.IR N ]
.RB [ \-\-sort
.IR KEY ]
.br
.B numaheap map
.IR PID | FILE.json
.RB [ \-\-svg
.IR FILE ]
.RB [ \-\-json ]
.RB [ \-\-color
.IR MODE ]
.SH DESCRIPTION
.B numaheap run
sets the environment, preloads
.I libnumaheap.so
and becomes
.IR CMD ,
so that its exit status and signals are those of
.IR CMD .
Every variable below is an option too:
.B NUMAHEAP_CPU_CACHE=1M
is
.BR "\-\-cpu\-cache 1M" .
.B \-\-dry\-run
prints what would be done,
.BI \-\-library " FILE"
names the library to preload.
.PP
.B numaheap topo
shows nodes, CPUs, memory, huge\-page pools, distances and the order in which nodes are tried.
.PP
.B numaheap doctor
looks for everything that makes huge pages, placement or speed less than they could be on this machine, for this user
and in this environment. Each finding says what it is here, what it costs, and what mends it and who has to do that.
Nothing is changed; with
.I CMD
it is also said whether that program can run on numaheap.
.B \-\-json
has all figures.
.PP
.B numaheap reserve
shows the pools of huge pages, or sets those of the nodes named, in pages or as a size, and prints the line that undoes
it.
.B \-\-compact
has the kernel put free memory together first,
.B \-\-dry\-run
shows what would be done, and
.B \-\-persist
prints lines for boot loader, systemd and sysctl that make it last.
.PP
.B numaheap options
lists the variables, with the values in force.
.PP
.BR "numaheap stat" ,
.B numaheap top
and
.B numaheap map
look into running processes, which need not have been started for it and do not notice: what their heaps hold, at which
rates, and a picture of every 2 MiB. They take the right that a debugger needs.
.SH EXIT STATUS
.B numaheap doctor
exits with 0 where nothing costs anything, 1 where something does, and 2 where something could not be looked at.
.B numaheap reserve
exits with 1 where not all pages came. Both exit with 2 for a mistake in their options.
.PP
.B numaheap run
exits with 125 when it fails itself, 126 when
.I CMD
cannot be executed and 127 when it does not exist, as
.BR env (1)
does.
.SH ENVIRONMENT
Sizes take the suffixes K, M, G and T, times ms, s and m, lists of nodes are written as in
.BR numactl (8).
An unknown variable or a malformed value is named on stderr. Set\-user\-ID programs ignore all of them.
)";

constexpr std::string_view kManTail = R"(.SH SEE ALSO
.BR numactl (8),
.BR hugeadm (8),
.BR env (1),
.BR malloc (3),
.BR hwloc (7)
)";

}  // namespace

int options_command(Words words) {
  if (words.size() > 1) return complain(kUsage, "options: too many words; see `numaheap options --help`");
  const std::string_view form = words.empty() ? "" : words[0];
  const auto out = std::make_unique<Text<64 * 1024>>();
  if (form == "--markdown") {
    write_options_markdown(*out);
  } else if (form == "--man") {
    out->text(kManHead);
    write_options_man(*out);
    out->text(kManTail);
  } else if (form.empty()) {
    Options options;
    OptionProblems problems;
    parse_options(::environ, false, &options, &problems);
    // The table is what the user came for; a strict setting stops programs, not this one.
    report_option_problems(options, problems);
    write_options_text(*out, options);
  } else {
    return refuse_option(kUsage, "options", form, {"--markdown", "--man", "--help"});
  }
  return print(out->view());
}

}  // namespace nh::cli
