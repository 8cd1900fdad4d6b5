//! Lists the templates, so that the binary has them inside: `fawn new` works without a network.

use std::{
    collections::BTreeMap,
    env, fs,
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// What working in a template leaves there.
const LEFTOVERS: [&str; 6] =
    ["target", "node_modules", "build", "__pycache__", "function.wasm", "package-lock.json"];
/// Of what begins with a dot, only this is a template's: the rest is an editor's, a tool's or the system's.
const HIDDEN: [&str; 3] = [".cargo", ".dockerignore", ".gitignore"];

fn main() -> io::Result<()> {
    let variable = |name: &str| env::var(name).map_err(io::Error::other);
    let templates = PathBuf::from(variable("CARGO_MANIFEST_DIR")?).join("../templates");
    writeln!(io::stdout(), "cargo::rerun-if-changed={}", templates.display())?;
    let mut files = BTreeMap::new();
    // A binary without them would build nothing.
    collect(&templates, "", &mut files)
        .map_err(|error| io::Error::other(format!("{} cannot be read: {error}", templates.display())))?;
    let mut list = String::from("[\n");
    for (name, path) in files {
        let executable = fs::metadata(&path)?.permissions().mode() & 0o111 != 0;
        list += &format!(
            "    File {{ name: {name:?}, executable: {executable}, bytes: include_bytes!({path:?}) }},\n"
        );
    }
    fs::write(Path::new(&variable("OUT_DIR")?).join("templates.rs"), list + "]\n")
}

/// Every file by its path below the folder, with slashes.
fn collect(folder: &Path, prefix: &str, files: &mut BTreeMap<String, PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().into_string().map_err(|_| io::Error::other("a name is not UTF-8"))?;
        if LEFTOVERS.contains(&&*name) || (name.starts_with('.') && !HIDDEN.contains(&&*name)) {
            continue;
        }
        // Only now: what is left out may be a link to nowhere.
        let (full, path) = (format!("{prefix}{name}"), entry.path().canonicalize()?);
        if path.is_dir() {
            collect(&path, &format!("{full}/"), files)?;
        } else {
            files.insert(full, path);
        }
    }
    Ok(())
}
