"""pcloud beside its floor, in one run: `make bench`, or `python -m benchmarks`.

__main__    what is measured and in which order; in one JSON file
planning    `plan` for 1,000 hosts and 7,000 servers, as pure functions
lab         a lab of its own, `pcloud` as a person runs it, what its processes cost
floor       the same servers made bare and in parallel: what a recovery costs without pcloud
copying     images to seven hosts, and to one
picture     results.json -> docs/numbers.svg
"""
