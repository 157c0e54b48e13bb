# Shortcuts; `just` lists them.

default:
    @just --list

# format everything
fmt:
    cargo fmt --all

# lints, as CI runs them
lint:
    cargo clippy --workspace --all-targets -- -D warnings

# every test
test:
    cargo build --workspace && cargo test --workspace --lib --tests

# SQL against single-node DataFusion
sql *filter:
    cargo test --workspace --test sql {{filter}}

# real processes
cluster *filter:
    cargo build --workspace && cargo test --workspace --test cluster {{filter}}

# the simulated cluster
sim *filter:
    cargo test --workspace --test sim {{filter}}

# fill in what single-node DataFusion answers to new statements of tests/sql
complete:
    WINDROW_SLT_COMPLETE=1 cargo test --workspace --test sql slt_on_datafusion

# what core and scheduler link
deps:
    cargo tree -p windrow-core -p windrow-scheduler -e normal,build

# API documentation
docs:
    cargo doc --workspace --no-deps

# licences and advisories
deny:
    cargo deny check

# spelling
typos:
    typos

# everything a change must pass
ci:
    .ci/run
