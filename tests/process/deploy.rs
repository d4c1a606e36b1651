//! What is shipped beside the binary: it must fit the project as it is.

use std::fs;
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
    let ignored = fs::read_to_string(project().join(".dockerignore")).unwrap();
    let given: Vec<_> = ignored.lines().filter_map(|line| line.strip_prefix('!')).collect();
    assert!(ignored.lines().any(|line| line == "*"), "everything else is ignored");
    assert_eq!(given, copied());
}

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What the Dockerfile takes from the project, without what one stage takes from another.
fn copied() -> Vec<String> {
    let dockerfile = fs::read_to_string(project().join("deploy/Dockerfile")).unwrap();
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
