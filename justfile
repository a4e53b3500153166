# Chores, each a thin recipe over cargo and scripts/. CONTRIBUTING.md says when to run what.

# Lists the recipes.
default:
    @just --list --unsorted

# Formats the code.
fmt:
    cargo fmt

# Format and lints, as CI wants them.
lint:
    cargo fmt --check
    cargo clippy --locked --all-targets -- -D warnings

# Unit tests, the rules of the house, doc tests: no root, no servers.
fast:
    cargo test --locked --lib
    cargo test --locked --test fast
    cargo test --locked --doc

# Tests with real sshd, dockerd and network namespaces; FILTER as for cargo test. Best as root.
e2e *FILTER:
    scripts/amid-decoys cargo test --locked --test e2e -- {{ FILTER }}

# Everything there is, on Debian; installs what it needs.
test *FILTER:
    scripts/test {{ FILTER }}

# Writes anew what is made of the program: schema, checks, command line, manual pages, completions, snapshots.
docs:
    UPDATE_DOCS=1 INSTA_UPDATE=always cargo test --locked --lib
    UPDATE_DOCS=1 cargo test --locked --test fast reference

# The lints for macOS, on a Debian machine
check-macos:
    scripts/check-macos

# The lints for Windows, on a Debian machine
check-windows:
    scripts/check-windows

# dtunnel for Windows under Wine, with an sshd and an Engine of its own; takes root
test-windows:
    scripts/test-windows

# Feeds the parsers for SECONDS each.
fuzz SECONDS="30" *TARGETS:
    scripts/fuzz {{ SECONDS }} {{ TARGETS }}

# Measures beside other programs; writes docs/benchmarks.md unless --quick is given. Needs root.
bench *ARGUMENTS:
    scripts/bench {{ ARGUMENTS }}

# Makes the packages, in target/dist; --check-reproducible makes them twice and compares.
dist *ARGUMENTS:
    scripts/dist {{ ARGUMENTS }}

# Installs, runs and removes the packages of target/dist. Needs root.
test-packages:
    scripts/test-packages

# Mixed load with random cuts for SECONDS.
soak SECONDS="1800":
    scripts/soak {{ SECONDS }}
