use std::{
    env,
    fs::{self, File, TryLockError},
    io::{self, ErrorKind, Write},
    os::unix::fs::PermissionsExt,
    path::{Component, Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use clap::Args;
use runtime_api::FunctionName;
use runtime_store::write_atomically;
use serde_json::json;

use crate::{
    build,
    client::{ClientArguments, parse_gateway},
    config::Environment,
    shrinkwrap, stack,
    templates::{self, Template},
    terminal::printable,
    usage::Mistakes,
};

/// What version control need not keep.
const IGNORED: [&str; 2] = [shrinkwrap::FOLDER, templates::FOLDER];

/// Begin a function: its handler's folder, and its entry in the stack file
///
/// The handler is the sample of the language's template, which is put into the folder `template` when it is not there yet,
/// as `faas-cli template pull` does; nothing that exists is overwritten. The templates are in this binary.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fawn new --list                                  languages
  fawn new hello --lang rust-wasm                  ./hello, and stack.yaml here, made or added to
  fawn new api --lang go-wasm --append stack.yml --prefix ghcr.io/me
  fawn dev                                         then this builds, deploys, and does so again when you save")]
pub(crate) struct NewArguments {
    /// The function's name
    #[arg(required_unless_present = "list", conflicts_with = "list")]
    name: Option<String>,
    /// The language, which is a template's name
    #[arg(long, short, required_unless_present = "list")]
    lang: Option<String>,
    /// List the languages
    #[arg(long)]
    list: bool,
    /// With --list, print one JSON list
    #[arg(long, requires = "list")]
    json: bool,
    /// The folder of the function's code [default: NAME]
    #[arg(long, value_name = "FOLDER")]
    handler: Option<PathBuf>,
    /// What comes before the function's name in its image's [default: $OPENFAAS_PREFIX]
    #[arg(long, short, value_name = "PREFIX")]
    prefix: Option<String>,
    /// The stack file to add the function to [default: stack.yaml or stack.yml, else a new stack.yaml]
    #[arg(long, short, value_name = "FILE")]
    append: Option<PathBuf>,
    #[command(flatten)]
    client: ClientArguments<false>,
}

pub(crate) fn run(arguments: &NewArguments) -> Result<()> {
    let project = build::project()?;
    let said = match (&arguments.name, &arguments.lang) {
        (Some(name), Some(language)) => {
            let environment = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
            begin(arguments, &project, name, language, &environment)?
        }
        _ => list(&project, arguments.json),
    };
    writeln!(io::stdout(), "{said}").context("standard output cannot be written")
}

fn list(project: &Path, json: bool) -> String {
    let languages = templates::languages(project);
    let titled = languages.iter().map(|name| (name, templates::title(project, name).unwrap_or_default()));
    if json {
        let list: Vec<_> = titled.map(|(name, title)| json!({"name": name, "language": title})).collect();
        return json!(list).to_string();
    }
    let width = languages.iter().map(String::len).max().unwrap_or_default();
    let lines: Vec<_> = titled.map(|(name, title)| format!("{name:width$}  {}", printable(&title))).collect();
    if lines.is_empty() {
        "no languages: `faas-cli template pull URL` brings some".into()
    } else {
        lines.join("\n")
    }
}

fn begin(
    arguments: &NewArguments,
    project: &Path,
    name: &str,
    language: &str,
    environment: Environment<'_>,
) -> Result<String> {
    FunctionName::new(name, "").map_err(|error| Mistakes::from(error.to_string()))?;
    let handler = handler_folder(arguments.handler.as_deref().unwrap_or(Path::new(name)))?;
    let file = stack_file(arguments.append.as_deref(), project)?;
    let prefix = arguments.prefix.clone().or_else(|| environment("OPENFAAS_PREFIX"));
    let prefix = prefix.map(|prefix| format!("{}/", prefix.trim().trim_end_matches('/'))).unwrap_or_default();
    let entry = stack::Entry {
        name,
        language,
        handler: &format!("./{}", handler.display()),
        image: &format!("{prefix}{name}:latest"),
    };
    // One that is there keeps its place if this is a link.
    let path = project.join(&file);
    let path = path.canonicalize().unwrap_or(path);
    let _lock = lock(path.parent().unwrap_or(project))?;
    let text = match path.exists() {
        true => entry.append_to(&file, &stack::read(&path)?)?,
        false => {
            // Checked, since nobody looks for a password there.
            let gateway = parse_gateway(&arguments.client.address(None, environment))?;
            entry.as_stack(&file, gateway.as_str().trim_end_matches('/'))?
        }
    };
    let target = project.join(&handler);
    if target.symlink_metadata().is_ok() {
        let mistake = format!(
            "{} exists already: choose another name, or another folder with --handler",
            handler.display()
        );
        return Err(Mistakes::from(mistake).into());
    }
    let template = Template::find(project, language)?;
    copy_sample(project, &template, &target)?;
    replace(&path, &text).with_context(|| {
        format!("{} cannot be written, and {} was made", file.display(), handler.display())
    })?;
    if let Err(error) = ignore(project) {
        // The function is there. Where standard error is closed, nobody wants to know.
        let names = IGNORED.join(" and ");
        let _ = writeln!(io::stderr(), "{error:#}: have version control ignore {names} yourself");
    }
    Ok(welcome(name, &handler, &file, &template))
}

/// Has a stack file's folder for this process alone, so that no entry is lost between reading and writing.
fn lock(folder: &Path) -> Result<File> {
    let lock = File::open(folder).with_context(|| format!("{} cannot be read", folder.display()))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => {
            bail!("another `fawn new` adds to {}: wait until it is done", folder.display())
        }
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("{} cannot be locked", folder.display()))
        }
    }
}

/// Writes a file whole; one that is there keeps its mode.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mode = path.metadata().map_or(0o644, |there| there.permissions().mode() & 0o777);
    write_atomically(path, text.as_bytes(), mode)
}

fn welcome(name: &str, handler: &Path, file: &Path, template: &Template) -> String {
    let mut said =
        format!("The code of {name} is in ./{}, its settings in {}.", handler.display(), file.display());
    if let Some(message) =
        template.settings.welcome_message.as_deref().map(str::trim).filter(|text| !text.is_empty())
    {
        let lines: Vec<_> = message.lines().map(printable).collect();
        said += &format!("\n\n{}", lines.join("\n"));
    }
    let chosen = if stack::USUAL_FILES.iter().any(|usual| Path::new(usual) == file) {
        String::new()
    } else {
        format!(" -f {}", file.display())
    };
    said + &format!(
        "\n\nfawn dev{chosen}      build it, deploy it, and do so again when you save\nfawn invoke {name}"
    )
}

/// Below the project, as a stack file has it.
fn handler_folder(folder: &Path) -> Result<PathBuf, Mistakes> {
    let parts = folder.components().filter(|part| *part != Component::CurDir);
    let folder: PathBuf = parts.clone().collect();
    let inside = parts.clone().all(|part| matches!(part, Component::Normal(_)));
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    let named = folder.to_str().is_some_and(|name| !name.is_empty() && name.chars().all(plain));
    let first = parts.clone().next().map(Component::as_os_str);
    if !inside
        || !named
        || first.is_some_and(|first| shrinkwrap::LEFT_OUT.iter().any(|taken| first == *taken))
    {
        let rule = "give a folder below this one, of letters, digits, dots and dashes, and not in `build` or `template`";
        return Err(format!("the code cannot be in {:?}: {rule}", folder.display().to_string()).into());
    }
    Ok(folder)
}

fn stack_file(append: Option<&Path>, project: &Path) -> Result<PathBuf, Mistakes> {
    let Some(file) = append else {
        let found = stack::USUAL_FILES.into_iter().find(|file| project.join(file).exists());
        return Ok(found.unwrap_or("stack.yaml").into());
    };
    let ending = file.extension().and_then(|ending| ending.to_str());
    if !matches!(ending, Some("yml" | "yaml")) {
        return Err(format!("{} is no stack file: its name ends in .yml or .yaml", file.display()).into());
    }
    if !project.join(file).is_file() {
        return Err(format!("there is no {} to add to", file.display()).into());
    }
    Ok(file.to_owned())
}

/// Copies the template's sample: the whole of it, or nothing.
fn copy_sample(project: &Path, template: &Template, target: &Path) -> Result<()> {
    let sample = template.folder.join(template.handler_folder());
    anyhow::ensure!(sample.is_dir(), "template {} has no sample in {}", template.language, sample.display());
    let parent = target.parent().unwrap_or(project);
    let there = parent.ancestors().find(|above| above.exists()).unwrap_or(project);
    shrinkwrap::confine(project, there)?;
    fs::create_dir_all(parent).with_context(|| format!("{} cannot be made", parent.display()))?;
    let copied = (|| {
        let unfinished = tempfile::Builder::new().prefix(".new-").tempdir_in(parent)?;
        let whole = unfinished.path().join("handler");
        copy(&sample, &whole)?;
        // Fails where somebody else made that folder meanwhile and has something in it.
        fs::rename(whole, target)
    })();
    copied.with_context(|| format!("{} cannot be copied to {}", sample.display(), target.display()))
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        let kind = path.symlink_metadata()?;
        if kind.is_dir() && !shrinkwrap::is_cache(&path) {
            copy(&path, &to)?;
        } else if kind.is_file() {
            fs::copy(&path, &to)?;
        }
    }
    Ok(())
}

/// Has Git ignore what can be made again, as faas-cli does.
fn ignore(project: &Path) -> Result<()> {
    let path = project.join(".gitignore");
    let mut text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        read => read.context(".gitignore cannot be read")?,
    };
    let known = |name: &str| text.lines().any(|line| line.trim().trim_matches('/') == name);
    let missing: Vec<_> = IGNORED.into_iter().filter(|name| !known(name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    for name in missing {
        text += &format!("{name}/\n");
    }
    // A link keeps its place.
    replace(&path.canonicalize().unwrap_or(path), &text).context(".gitignore cannot be written")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: NewArguments,
    }

    fn project() -> tempfile::TempDir {
        let project = tempfile::tempdir().unwrap();
        let template = project.path().join("template/tea-wasm");
        fs::create_dir_all(template.join("function/src")).unwrap();
        fs::write(template.join("template.yml"), "language: Tea\nwelcome_message: |\n  Pour it.\n").unwrap();
        fs::write(template.join("function/src/main.tea"), "leaves\n").unwrap();
        project
    }

    fn run_in(project: &Path, line: &[&str]) -> Result<String> {
        let arguments = Line::try_parse_from(["new"].iter().chain(line))?.arguments;
        let (name, language) = (arguments.name.as_deref().unwrap(), arguments.lang.as_deref().unwrap());
        begin(&arguments, project, name, language, &|_| None)
    }

    #[test]
    fn a_function_is_begun_with_its_stack_file_and_others_are_added() {
        let project = project();
        let read = |path: &str| fs::read_to_string(project.path().join(path)).unwrap();
        fs::write(project.path().join(".gitignore"), "/build").unwrap();
        let line = ["one", "--lang", "tea-wasm", "--prefix", "ghcr.io/me/", "--gateway", "http://g:1"];
        let said = run_in(project.path(), &line).unwrap();
        assert!(said.contains("Pour it.") && said.contains("fawn dev "), "{said}");
        assert_eq!(read("one/src/main.tea"), "leaves\n");
        assert_eq!(
            read("stack.yaml"),
            "version: 1.0\nprovider:\n  name: openfaas\n  gateway: http://g:1\nfunctions:\n  one:\n    lang: tea-wasm\n    \
             handler: ./one\n    image: ghcr.io/me/one:latest\n"
        );
        run_in(project.path(), &["two", "--lang", "tea-wasm", "--handler", "./code/two"]).unwrap();
        assert_eq!(read("code/two/src/main.tea"), "leaves\n");
        assert!(
            read("stack.yaml")
                .ends_with("  two:\n    lang: tea-wasm\n    handler: ./code/two\n    image: two:latest\n")
        );
        assert_eq!(read(".gitignore"), "/build\ntemplate/\n");
    }

    #[test]
    fn nothing_is_overwritten_and_nothing_is_left_half_done() {
        let project = project();
        let refused = |line: &[&str]| format!("{:#}", run_in(project.path(), line).unwrap_err());
        let outside = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(&outside, project.path().join("link")).unwrap();
        fs::create_dir(project.path().join("taken")).unwrap();
        for (line, expected) in [
            (&["taken", "--lang", "tea-wasm"][..], "exists already"),
            (&["Upper", "--lang", "tea-wasm"], "Upper"),
            (&["new", "--lang", "tee-wasm"], "tea-wasm may be meant"),
            (&["new", "--lang", "tea-wasm", "--handler", "../out"], "below this one"),
            (&["build", "--lang", "tea-wasm"], "not in `build`"),
            (&["new", "--lang", "tea-wasm", "--gateway", "http://me:secret@g"], "faas-cli login"),
            (&["new", "--lang", "tea-wasm", "--append", "none.yml"], "there is no none.yml"),
            (&["new", "--lang", "tea-wasm", "--append", "stack.txt"], "ends in .yml"),
            (&["new", "--lang", "tea-wasm", "--handler", "link/deep/new"], "leads out of the project"),
        ] {
            let error = refused(line);
            assert!(error.contains(expected), "{line:?}: {error}");
        }
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
        fs::remove_file(project.path().join("link")).unwrap();
        let left: Vec<_> =
            fs::read_dir(project.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(left.iter().all(|name| name == "taken" || name == "template"), "{left:?}");
        run_in(project.path(), &["one", "--lang", "tea-wasm"]).unwrap();
        assert!(
            refused(&["one", "--lang", "tea-wasm", "--handler", "other"])
                .contains("has a function one already")
        );
        assert!(!project.path().join("other").exists());
    }

    #[test]
    fn what_the_command_line_leaves_open_is_in_the_environment() {
        let project = project();
        let arguments = Line::try_parse_from(["new", "one", "--lang", "tea-wasm"]).unwrap().arguments;
        let variables = |name: &str| match name {
            "OPENFAAS_PREFIX" => Some("ghcr.io/us/".to_owned()),
            "OPENFAAS_URL" => Some("http://g:2".to_owned()),
            _ => None,
        };
        begin(&arguments, project.path(), "one", "tea-wasm", &variables).unwrap();
        let stack = fs::read_to_string(project.path().join("stack.yaml")).unwrap();
        assert!(
            stack.contains("image: ghcr.io/us/one:latest") && stack.contains("gateway: http://g:2"),
            "{stack}"
        );
    }

    #[test]
    fn one_adds_to_a_stack_file_at_a_time() {
        let project = project();
        let add = |name| run_in(project.path(), &[name, "--lang", "tea-wasm"]);
        let held = lock(project.path()).unwrap();
        assert!(add("one").unwrap_err().to_string().contains("another `fawn new`"));
        assert!(!project.path().join("one").exists());
        drop(held);
        add("one").unwrap();
        add("two").unwrap();
    }

    #[test]
    fn a_list_of_ignored_files_keeps_its_mode_and_its_link_and_is_no_condition() {
        let project = project();
        let (list, shared) = (project.path().join(".gitignore"), project.path().join("shared"));
        fs::write(&shared, "out\n").unwrap();
        fs::set_permissions(&shared, fs::Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink(&shared, &list).unwrap();
        run_in(project.path(), &["one", "--lang", "tea-wasm"]).unwrap();
        assert!(list.is_symlink());
        assert_eq!(fs::read_to_string(&shared).unwrap(), "out\nbuild/\ntemplate/\n");
        assert_eq!(shared.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        fs::remove_file(&list).unwrap();
        fs::create_dir(&list).unwrap();
        run_in(project.path(), &["two", "--lang", "tea-wasm"]).unwrap();
    }

    #[test]
    fn languages_are_listed_with_their_names() {
        let project = project();
        assert!(
            list(project.path(), false)
                .lines()
                .any(|line| line.starts_with("tea-wasm") && line.ends_with("Tea"))
        );
        let listed: serde_json::Value = serde_json::from_str(&list(project.path(), true)).unwrap();
        assert!(listed.as_array().unwrap().contains(&json!({"name": "tea-wasm", "language": "Tea"})));
        assert!(Line::try_parse_from(["new", "--list"]).is_ok());
        assert!(Line::try_parse_from(["new", "name"]).is_err());
    }
}
