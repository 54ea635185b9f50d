"""stats_json.py HEADER PROGRAM: what PROGRAM prints is JSON with exactly the keys that HEADER documents."""
import json
import re
import subprocess
import sys


def expect(condition, what):
    if not condition:
        sys.exit(f"failed: {what}")


def documented(header):
    """(keys of the whole, keys of one node) from the comment on numaheap_stats_json and the struct it refers to."""
    text = re.sub(r"\n \*", "\n", open(header).read())
    comment = re.search(r"Keys of the JSON,\s+stable:(.*?)\*/", text, re.S).group(1)
    top = re.match(r"((?:\s*\w+,)+)", comment).group(1)
    whole = set(re.findall(r"\w+", top)) | set(re.findall(r"^\s*(\w+): an ", comment, re.M))
    struct = re.search(r"typedef struct numaheap_heap_stats \{(.*?)\} numaheap_heap_stats;", text, re.S).group(1)
    fields = set(re.findall(r"^\s*u?int\d+_t (\w+);", struct, re.M))
    return whole, fields - {"node"} | {"id"}


def no_duplicates(pairs):
    keys = [key for key, _ in pairs]
    expect(len(keys) == len(set(keys)), f"a key occurs twice among {keys}")
    return dict(pairs)


def main():
    header, program = sys.argv[1:]
    whole, node_keys = documented(header)
    expect(len(whole) >= 7 and len(node_keys) >= 18, f"the header is no longer understood: {whole}, {node_keys}")
    output = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    report = json.loads(output, object_pairs_hook=no_duplicates)
    expect(set(report) == whole, f"keys {sorted(report)}, documented are {sorted(whole)}")
    expect(isinstance(report["fallbacks"], dict), "fallbacks is no object")
    expect(all(isinstance(n, int) and n > 0 for n in report["fallbacks"].values()), "a fallback that did not happen")
    expect(report["cache_mode"] in ("rseq", "own-rseq", "fallback", "off"), f"cache_mode {report['cache_mode']}")
    expect(report["memory_syscalls"] > 0, "memory came from nowhere")
    expect(report["pid"] > 1 and re.fullmatch(r"\d+\.\d+\.\d+(\+trust-sizes)?", report["version"]), "pid or version")
    kinds = [node["kind"] for node in report["nodes"]]
    nodes = kinds.count("node")
    expect(nodes >= 1 and kinds[:nodes] == ["node"] * nodes, f"kinds {kinds}")
    expect(kinds[nodes:] == ["first_touch", "interleaved", *(["weighted"] if nodes > 1 else [])], f"kinds {kinds}")
    for node in report["nodes"]:
        expect(set(node) == node_keys, f"keys {sorted(node)}, documented are {sorted(node_keys)}")
        expect((node["id"] >= 0) == (node["kind"] == "node"), f"id {node['id']} of a heap of kind {node['kind']}")
        kinds_of_pages = node["hugetlb_bytes"] + node["thp_bytes"] + node["base_bytes"]
        expect(node["committed_bytes"] == kinds_of_pages, f"committed is not the sum of its kinds: {node}")
    expect(sum(node["live_bytes"] for node in report["nodes"]) >= 8 << 20, "the large object is not counted as live")
    print(f"{len(report['nodes'])} heaps, {len(node_keys)} keys each, as documented")


main()
