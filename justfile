# One line each: build, test, lint, measure.

default: lint test

test:
    cargo test

lint:
    cargo fmt --all --check
    cargo clippy --all-targets -- -D warnings
    cargo clippy --all-targets --features portable -- -D warnings

dev:
    cargo run --release -- serve --dev

compare:
    cargo bench --bench compare
    cargo bench --bench signaling

instructions *OPTIONS:
    cargo bench --profile instructions --bench instructions -- {{OPTIONS}}

ci:
    .ci/run
