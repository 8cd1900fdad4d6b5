//! Builds of the templates' samples, as somebody makes them who has just begun.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use runtime_wasm::World;

use crate::{
    bench::say,
    calls::Kind,
    report::{Table, spread},
    server::find_program,
    statistics::Figure,
};

/// Each template, and the file of its sample that has the handler.
const LANGUAGES: [(&str, &str); 7] = [
    ("rust-wasm", "src/lib.rs"),
    ("go-wasm", "handler.go"),
    ("c-wasm", "handler.c"),
    ("javascript-wasm", "handler.js"),
    ("typescript-wasm", "handler.ts"),
    ("python-wasm", "handler.py"),
    ("wasm-stdio", "hello.wat"),
];

/// The function in each project.
const NAME: &str = "hello";

/// What every sample says, and edits change.
const GREETING: &str = "Hello!";

/// What became of a language.
pub(super) struct Build {
    pub(super) language: &'static str,
    /// Or what is missing, and how to get it.
    pub(super) outcome: Result<Built, String>,
}

/// A sample that was built, and how many seconds that took.
pub(super) struct Built {
    clean: Figure,
    rebuild: Figure,
    /// As the first build made it.
    pub(super) module: Vec<u8>,
    /// As it was made after each edit.
    pub(super) edited: Vec<Vec<u8>>,
    pub(super) kind: Kind,
}

impl Build {
    /// What is missing where nothing was built.
    pub(super) fn missing(&self) -> Option<&str> {
        self.outcome.as_ref().err().map(String::as_str)
    }
}

/// Builds each sample in a project of its own, and again after edits. A language without its toolchain is left out; any
/// other build that fails is an error.
pub(super) fn measure(fawn: &Path, folder: &Path, rebuilds: u32) -> Result<Vec<Build>> {
    let builds = LANGUAGES.into_iter().map(|(language, handler)| {
        say(&format!("building {language}"))?;
        let project = Project { fawn, folder: folder.join(language) };
        let outcome = project.measure(language, handler, rebuilds).with_context(|| language)?;
        Ok(Build { language, outcome })
    });
    builds.collect()
}

struct Project<'a> {
    fawn: &'a Path,
    folder: PathBuf,
}

impl Project<'_> {
    fn measure(&self, language: &str, handler: &str, rebuilds: u32) -> Result<Result<Built, String>> {
        fs::create_dir(&self.folder)?;
        let (begun, _) = self.run(&["new", NAME, "--lang", language])?;
        succeeded("fawn new", &begun)?;
        let (built, clean) = self.run(&["build"])?;
        if let Some(missing) = missing(&String::from_utf8_lossy(&built.stderr)) {
            return Ok(Err(missing.into()));
        }
        succeeded("fawn build", &built)?;
        let module = self.module()?;
        let (handler, mut edits, mut times) = (self.folder.join(NAME).join(handler), Vec::new(), Vec::new());
        let sample = fs::read_to_string(&handler)?;
        for number in 0..rebuilds {
            fs::write(&handler, edited(&sample, number)?)?;
            let (built, time) = self.run(&["build"])?;
            succeeded("fawn build after an edit", &built)?;
            let rebuilt = self.module()?;
            let before = edits.last().unwrap_or(&module);
            ensure!(rebuilt != *before, "a build after an edit made the same module again");
            edits.push(rebuilt);
            times.push(time);
        }
        let world = runtime_wasm::inspect(&module)?.world()?;
        let kind = if world == World::Http { Kind::Component } else { Kind::Command };
        let (clean, rebuild) = (Figure::of_times([clean], 1.0)?, Figure::of_times(times, 1.0)?);
        Ok(Ok(Built { clean, rebuild, module, edited: edits, kind }))
    }

    fn module(&self) -> Result<Vec<u8>> {
        let path = self.folder.join("build").join(NAME).join("function.wasm");
        fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    /// Runs `fawn` in the project, and gives how long that took.
    fn run(&self, arguments: &[&str]) -> Result<(Output, Duration)> {
        let mut command = Command::new(self.fawn);
        command.args(arguments).current_dir(&self.folder).stdin(Stdio::null());
        // What others have compiled is not this project's.
        for theirs in ["CARGO_TARGET_DIR", "CARGO_BUILD_TARGET_DIR", "RUSTC_WRAPPER", "ZIG_LOCAL_CACHE_DIR"] {
            command.env_remove(theirs);
        }
        command.env("GOCACHE", self.folder.join(".go"));
        command.env("ZIG_GLOBAL_CACHE_DIR", self.folder.join(".zig"));
        if let Some(rustc) = find_program("rustc-wasm") {
            // Where rustup cannot add the target, there is a compiler beside it that has it.
            command.env("RUSTC", rustc);
        }
        let begin = Instant::now();
        let output = command.output().with_context(|| format!("cannot run {}", self.fawn.display()))?;
        Ok((output, begin.elapsed()))
    }
}

fn succeeded(what: &str, output: &Output) -> Result<()> {
    if output.status.success() {
        return Ok(());
    }
    bail!("{what} failed:\n{}", String::from_utf8_lossy(&output.stderr).trim_end())
}

/// The program or target that a template's `build.sh` says is missing, and how to get it.
fn missing(said: &str) -> Option<&str> {
    said.lines().filter_map(|line| line.strip_prefix("build.sh: ")).find(|why| why.contains(" is missing: "))
}

/// The handler with another greeting of the same length, of which there are ten.
fn edited(handler: &str, number: u32) -> Result<String> {
    ensure!(handler.contains(GREETING), "the handler does not say {GREETING:?}:\n{handler}");
    Ok(handler.replacen(GREETING, &format!("Hell{}!", number % 10), 1))
}

pub(super) fn table(builds: &[Build]) -> Table {
    let mut table = Table::new(
        "`fawn build` of what `fawn new` makes: in a new project, after edits of the handler, and what came out",
        ["template", "clean build", "rebuild", "function.wasm"],
    );
    for Build { language, outcome } in builds {
        let cells = match outcome {
            Ok(Built { clean, rebuild, module, .. }) => [
                format!("{} s", spread(*clean, 2)),
                format!("{} s", spread(*rebuild, 2)),
                format!("{} bytes", module.len()),
            ],
            Err(missing) => [format!("NOT RUN: {missing}"), "–".into(), "–".into()],
        };
        let [clean, rebuild, bytes] = cells;
        table.row([(*language).into(), clean, rebuild, bytes]);
    }
    table
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, os::unix::fs::symlink};

    use super::*;

    fn templates() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../templates")
    }

    #[test]
    fn no_template_is_left_out() {
        let folders = fs::read_dir(templates()).unwrap().map(|entry| entry.unwrap().path());
        let names = folders.filter(|folder| folder.join("template.yml").is_file());
        let names: BTreeSet<_> =
            names.map(|folder| folder.file_name().unwrap().to_str().unwrap().to_owned()).collect();
        assert_eq!(names, LANGUAGES.iter().map(|(language, _)| (*language).to_owned()).collect());
    }

    #[test]
    fn every_sample_can_be_edited() {
        for (language, handler) in LANGUAGES {
            let sample =
                fs::read_to_string(templates().join(language).join("function").join(handler)).unwrap();
            let (one, other) = (edited(&sample, 0).unwrap(), edited(&sample, 1).unwrap());
            assert!(one != sample && one != other && one.len() == sample.len(), "{language}");
        }
        assert!(edited("Good-bye!", 0).is_err());
    }

    /// What each script says on a machine that has nothing but a shell.
    #[test]
    fn every_template_says_what_is_missing() {
        for (language, _) in LANGUAGES {
            let machine = tempfile::tempdir().unwrap();
            let (programs, project) = (machine.path().join("bin"), machine.path().join("project"));
            fs::create_dir_all(project.join("function")).unwrap();
            fs::create_dir(&programs).unwrap();
            for program in ["sh", "dirname", "rm"] {
                symlink(find_program(program).unwrap(), programs.join(program)).unwrap();
            }
            for script in ["build.sh", "function/build.sh"] {
                let there = templates().join(language).join(script);
                if there.is_file() {
                    fs::copy(there, project.join(script)).unwrap();
                }
            }
            let mut command = Command::new(programs.join("sh"));
            command.arg(project.join("build.sh")).env_clear().env("PATH", &programs);
            let built = command.output().unwrap();
            let said = String::from_utf8_lossy(&built.stderr);
            assert!(!built.status.success() && missing(&said).is_some(), "{language}: {said}");
        }
    }

    #[test]
    fn a_build_that_fails_for_something_else_misses_nothing() {
        let said =
            "hello is being built with go-wasm\nbuild.sh: go is missing: install Go\nhello cannot be built";
        assert_eq!(missing(said), Some("go is missing: install Go"));
        for other in ["error[E0425]: `x` is missing: y", "build.sh: function/build.sh failed", ""] {
            assert_eq!(missing(other), None, "{other}");
        }
    }

    #[test]
    fn a_language_without_its_toolchain_is_in_the_table() {
        let (clean, rebuild) = (Figure::of([12.34]).unwrap(), Figure::of([1.0, 2.0, 3.0]).unwrap());
        let built =
            Built { clean, rebuild, module: vec![0; 2048], edited: Vec::new(), kind: Kind::Component };
        let builds = [
            Build { language: "c-wasm", outcome: Ok(built) },
            Build { language: "go-wasm", outcome: Err("go is missing: install Go".into()) },
        ];
        let table = table(&builds).to_string();
        assert!(table.contains("12.34 s") && table.contains("| 2.00 (1.00..3.00) s | 2048 bytes"), "{table}");
        assert!(table.contains("| go-wasm  | NOT RUN: go is missing: install Go | –"), "{table}");
    }
}
