//! What is shipped beside the binary: it must fit the project as it is.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What `cargo build` in the container finds is what its Dockerfile copies and nothing else.
#[test]
fn the_image_is_built_from_files_that_make_a_package() {
    let copied = copied();
    let folder = tempfile::tempdir().unwrap();
    for source in &copied {
        copy(&project().join(source), &folder.path().join(source));
    }
    // Cargo reads the package as for a build, then finds that there is nothing to do.
    let cargo = Command::new(env!("CARGO"))
        .args(["build", "--offline", "--locked", "--bin", "none-of-ours"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&cargo.stderr);
    assert!(complaint.contains("no bin target named `none-of-ours`"), "{complaint}");
}

#[test]
fn the_image_is_built_from_files_that_docker_is_given() {
    let ignored = read(".dockerignore");
    let given: Vec<_> = ignored.lines().filter_map(|line| line.strip_prefix('!')).collect();
    assert!(ignored.lines().any(|line| line == "*"), "everything else is ignored");
    assert_eq!(given, copied());
}

/// Prometheus finds the metrics, and nobody on the Internet does.
#[test]
fn the_composed_server_is_scraped_where_it_listens() {
    let config: toml::Table = read("deploy/hairpin.toml").parse().unwrap();
    let listen = config["http"]["listen"].as_array().unwrap();
    let [toml::Value::String(address)] = listen.as_slice() else { panic!("{listen:?}") };
    assert!(address.parse::<SocketAddr>().unwrap().ip().is_loopback(), "{address}");
    let scraped = format!("- targets: [\"{address}\"]");
    assert!(read("deploy/prometheus.yml").contains(&scraped), "{scraped}");
    let compose = read("deploy/compose.yaml");
    let hosted = compose.lines().filter(|line| line.trim() == "network_mode: host").count();
    let services = compose.lines().filter(|line| line.trim().starts_with("restart:")).count();
    assert_eq!(hosted, services, "all on the loopback of the host");
}

/// A port that is exposed and out of reach misleads whoever publishes it.
#[test]
fn the_image_exposes_what_the_defaults_listen_on_for_everybody() {
    let dockerfile = read("deploy/Dockerfile");
    let exposed: Vec<_> = dockerfile.lines().filter(|line| line.starts_with("EXPOSE")).collect();
    assert_eq!(exposed, ["EXPOSE 3478/udp 3478/tcp"]);
}

#[test]
fn the_unit_bounds_what_it_may_take_and_names_no_page_that_is_not_there() {
    let unit = read("deploy/hairpin.service");
    assert!(unit.lines().any(|line| line.starts_with("MemoryMax=")));
    assert!(!unit.contains("Documentation="));
}

/// What is killed while it drains need not have drained.
#[test]
fn who_stops_it_waits_longer_than_it_drains() {
    let config: toml::Table = read("config.toml").parse().unwrap();
    let minutes = |text: &str| text.parse::<u64>().unwrap();
    let drain = minutes(config["turn"]["drain_for"].as_str().unwrap().strip_suffix('m').unwrap());
    let unit = read("deploy/hairpin.service");
    let compose = read("deploy/compose.yaml");
    for (text, key, unit) in
        [(unit, "TimeoutStopSec=", "min"), (compose, "stop_grace_period: ", "m")]
    {
        let patience = text.lines().find_map(|line| line.trim().strip_prefix(key)).unwrap();
        assert!(minutes(patience.strip_suffix(unit).unwrap()) > drain, "{key}{patience}");
    }
}

fn read(file: &str) -> String {
    fs::read_to_string(project().join(file)).unwrap()
}

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What the Dockerfile takes from the project, without what one stage takes from another.
fn copied() -> Vec<String> {
    let dockerfile = read("deploy/Dockerfile");
    let mut sources = Vec::new();
    for line in dockerfile.lines().filter_map(|line| line.strip_prefix("COPY ")) {
        let words: Vec<_> = line.split_whitespace().collect();
        let [from @ .., to] = words.as_slice() else { panic!("{line}") };
        if from[0].starts_with("--from") {
            continue;
        }
        assert!(*to == "./" || from == [*to], "copied to the place it has here: {line}");
        sources.extend(from.iter().map(|&source| source.to_owned()));
    }
    sources
}

fn copy(from: &Path, to: &PathBuf) {
    if from.is_file() {
        fs::copy(from, to).unwrap();
        return;
    }
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        copy(&entry.path(), &to.join(entry.file_name()));
    }
}
