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

# Beside Debian's coturn, and another one in COTURN_BINARY: on a machine that does nothing else.
compare *LINES:
    command -v turnserver >/dev/null || apt-get install -y coturn
    cargo bench --bench compare -- {{LINES}}

signaling:
    cargo bench --bench signaling

instructions *OPTIONS:
    cargo bench --profile instructions --bench instructions -- {{OPTIONS}}

ci:
    .ci/run
