// `numaheap reserve`: huge pages for each node's pool.
#include <cstdio>

#include <unistd.h>

#include "base/options.h"
#include "cli/cli.h"
#include "cli/reserve.h"

namespace nh::cli {

const char kReserveHelp[] =
    R"(usage: numaheap reserve                                    the pools, by node
       numaheap reserve --node NODES=AMOUNT... [OPTION...] sets them

Sets how many huge pages the kernel keeps in the nodes' pools, shows before and
after, what was refused and why, and the line that undoes it. NODES is a node, a
list as for numactl (0-3,5) or all; AMOUNT is a size (4G, 512M) or a number of
pages. Needs root. Lasts until the next boot.

  --node NODES=AMOUNT   what the pools of these nodes are to hold in all; may be
                        given for each node
  --size 2M|1G          the size of the pages; 2M if not given
  --compact             has the kernel put free memory together first (seconds)
  --dry-run             shows what would be done
  --persist             prints lines for boot loader, systemd and sysctl that
                        make it last; changes nothing

Exit status: 0 all pages came, 1 some did not or nothing could be set, 2 a
mistake in the options.
)";

namespace {

struct Asked {
  std::vector<const char*> wishes;
  std::string size = "2M";
  bool compact = false, dry_run = false, persist = false;
};

int parse(Words words, Asked* asked) {
  for (std::size_t at = 0; at < words.size();) {
    const std::string_view word = words[at];
    const char* value = "";
    if (word == "--compact" || word == "--dry-run" || word == "--persist") {
      (word == "--compact" ? asked->compact : word == "--dry-run" ? asked->dry_run : asked->persist) = true;
      at++;
    } else if (take_value(words, &at, "--node", &value)) {
      if (value == nullptr) return complain(kUsage, "reserve: --node needs a value, as in --node 0=4G");
      asked->wishes.push_back(value);
    } else if (take_value(words, &at, "--size", &value)) {
      if (value == nullptr) return complain(kUsage, "reserve: --size needs a value: 2M or 1G");
      asked->size = value;
    } else if (word.starts_with("-")) {
      return refuse_option(kUsage, "reserve", word,
                           {"--node", "--size", "--compact", "--dry-run", "--persist", "--help"});
    } else {
      return complain(kUsage, "reserve: '" + std::string(word) + "': on which node? As in --node 0=" +
                                  std::string(word) + " or --node all=" + std::string(word));
    }
  }
  if (asked->wishes.empty() && (asked->compact || asked->dry_run || asked->persist)) {
    return complain(kUsage, "reserve: how much, and where? As in --node 0=4G");
  }
  if (asked->persist && (asked->compact || asked->dry_run)) {
    return complain(kUsage, "reserve: --persist changes nothing, so --compact and --dry-run do not go with it");
  }
  return 0;
}

int settle_size(const std::string& size, ReserveRequest* request) {
  std::uint64_t bytes = 0;
  const std::vector<std::uint64_t> sizes = pool_sizes(request->root);
  std::string known;
  for (const std::uint64_t kib : sizes) {
    known += (known.empty() ? "" : ", ") + size_name(kib * KiB);
    if (parse_size(size, &bytes) && bytes == kib * KiB) {
      request->kib = kib;
      return 0;
    }
  }
  return complain(sizes.empty() ? 1 : kUsage, "reserve: this kernel has no pool of pages of '" + size + "'; it has " +
                                                  (known.empty() ? "none (/sys/kernel/mm/hugepages)" : known));
}

}  // namespace

int reserve_command(Words words) {
  Asked asked;
  if (const int status = parse(words, &asked); status != 0) return status;
  ReserveRequest request;
  request.tool = tool_name();
  request.is_root = ::geteuid() == 0;
  request.compact = asked.compact;
  if (const int status = settle_size(asked.size, &request); status != 0) return status;
  if (asked.wishes.empty()) return print(pools_text(request.root));
  for (const char* const wish : asked.wishes) {
    std::string problem;
    if (!add_wish(wish, &request, &problem)) return complain(kUsage, "reserve: " + problem);
  }
  if (asked.persist) return print(lasting_text(request));
  if (asked.dry_run) return print(plan_text(request));

  std::string again = request.tool + " reserve";
  for (const char* const word : words) again += " " + std::string(word);
  if (const std::string obstacle = reserve_obstacle(request, again); !obstacle.empty())
    return complain(1, "reserve: " + obstacle);
  const bool watched = ::isatty(STDERR_FILENO) != 0;
  reserve(&request, [&](int node, const char* step, std::uint64_t pages, std::uint64_t wanted) {
    if (watched) {
      std::fprintf(stderr, "\r\033[Knode %d: %s, %llu of %llu pages", node, step,
                   static_cast<unsigned long long>(pages), static_cast<unsigned long long>(wanted));
    }
  });
  if (watched) std::fputs("\r\033[K", stderr);
  const int printed = print(outcome_text(request));
  return printed != 0 || !all_came(request) ? 1 : 0;
}

}  // namespace nh::cli
