//! How other people's programs are run, which `.ci/tools` has put on the path.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rand::distr::{Alphanumeric, SampleString};
use tokio::process::Command;

use crate::edge::{Edge, clean};

/// A file of this repository's that belongs to a client.
pub(crate) fn client_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name)
}

/// A program in a folder of its own beside the data directory, and with nobody's settings.
pub(crate) fn client(edge: &Edge, program: &str) -> (Command, PathBuf) {
    let home = edge.data_dir().with_file_name(program);
    fs::create_dir_all(&home).unwrap();
    let mut command = Command::new(program);
    clean(&mut command, &home);
    command.current_dir(&home);
    (command, home)
}

/// A word that nobody has used before.
pub(crate) fn word() -> String {
    Alphanumeric.sample_string(&mut rand::rng(), 24)
}
