//! Templates: what functions are built with. Those of the project are in its folder `template`, as faas-cli keeps them;
//! those in the binary are put there when one is first needed.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, ErrorKind},
    os::unix::fs::PermissionsExt,
    path::{Component, Path, PathBuf},
};

use anyhow::{Context, Result};
use runtime_api::nearest;
use serde::Deserialize;

use crate::{shrinkwrap::confine, stack, usage::Mistakes};

/// Where a project keeps its templates (faas-cli).
pub(crate) const FOLDER: &str = "template";
/// What a template says of itself (faas-cli).
const SETTINGS_FILE: &str = "template.yml";
/// What makes `function.wasm` in a function's folder. Templates without it are for Docker.
pub(crate) const BUILD_SCRIPT: &str = "build.sh";
/// Where the handler lies beside the template's own files, unless the template says otherwise (faas-cli).
const HANDLER_FOLDER: &str = "function";

/// A file of a template in the binary.
struct File {
    /// `LANGUAGE/path`
    name: &'static str,
    executable: bool,
    bytes: &'static [u8],
}

static EMBEDDED: &[File] = &include!(concat!(env!("OUT_DIR"), "/templates.rs"));

/// A template of the project.
#[derive(Debug)]
pub(crate) struct Template {
    pub(crate) language: String,
    pub(crate) folder: PathBuf,
    pub(crate) settings: Settings,
}

/// What a template says of itself, as far as it matters here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Settings {
    pub(crate) language: Option<String>,
    pub(crate) fprocess: Option<String>,
    pub(crate) welcome_message: Option<String>,
    handler_folder: Option<String>,
    build_options: Option<Vec<BuildOption>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct BuildOption {
    name: Option<String>,
    packages: Option<Vec<String>>,
}

impl Template {
    /// The template of that language, which is put into the project if only the binary has it.
    pub(crate) fn find(project: &Path, language: &str) -> Result<Self> {
        check_language(language)?;
        let folder = project.join(FOLDER).join(language);
        if !folder.exists() {
            if !embedded().contains(language) {
                return Err(unknown(project, language).into());
            }
            put(EMBEDDED, project, language)
                .with_context(|| format!("template {language} cannot be put into {FOLDER}/"))?;
        }
        // Whoever made a link here may have it lead anywhere.
        let inside = folder.canonicalize()?.starts_with(project.canonicalize()?);
        anyhow::ensure!(
            inside,
            "{} leads out of the project: put the template itself there",
            folder.display()
        );
        let settings = read_settings(&folder)?;
        let template = Self { language: language.to_owned(), folder, settings };
        let handler = template.handler_folder();
        if !handler.components().all(|part| matches!(part, Component::Normal(_))) {
            let reason = format!(
                "template {language}: handler_folder {} is not below the template",
                handler.display()
            );
            return Err(Mistakes::from(reason).into());
        }
        Ok(template)
    }

    /// Where handlers lie, below the template's and the function's folder.
    pub(crate) fn handler_folder(&self) -> &Path {
        let chosen = self.settings.handler_folder.as_deref().filter(|folder| !folder.is_empty());
        Path::new(chosen.unwrap_or(HANDLER_FOLDER))
    }

    /// Whether it builds a module without Docker.
    pub(crate) fn builds_modules(&self) -> bool {
        self.folder.join(BUILD_SCRIPT).is_file()
    }

    /// The packages that these options stand for.
    pub(crate) fn packages(&self, options: &[String]) -> Result<Vec<String>, Mistakes> {
        let mut packages = Vec::new();
        for option in options {
            let known = self.settings.build_options.iter().flatten();
            let found = known.clone().find(|known| known.name.as_ref() == Some(option)).ok_or_else(|| {
                let names: Vec<_> = known.filter_map(|known| known.name.as_deref()).collect();
                let names = if names.is_empty() { "none".into() } else { names.join(", ") };
                format!("template {} has no build option {option}; it has: {names}", self.language)
            })?;
            packages.extend(found.packages.iter().flatten().cloned());
        }
        Ok(packages)
    }
}

fn read_settings(folder: &Path) -> Result<Settings> {
    let file = folder.join(SETTINGS_FILE);
    let text = stack::read(&file).with_context(|| format!("{} is no template", folder.display()))?;
    let settings: Option<Settings> =
        serde_yaml_ng::from_str(&text).with_context(|| format!("{} is not as expected", file.display()))?;
    Ok(settings.unwrap_or_default())
}

/// A language becomes a folder's name.
fn check_language(language: &str) -> Result<(), Mistakes> {
    let usable = |c: char| c.is_ascii_alphanumeric() || "-_.@+".contains(c);
    if language.is_empty() || language.starts_with('.') || !language.chars().all(usable) {
        return Err(format!("{language:?} is not a language: see `fawn new --list`").into());
    }
    Ok(())
}

fn unknown(project: &Path, language: &str) -> Mistakes {
    let known = languages(project);
    // As OpenFaaS calls its own: `rust`, `python3-http`.
    let whole = language.trim_end_matches("-http").trim_end_matches(|c: char| c.is_ascii_digit());
    let ours = known.get(&format!("{whole}-wasm")).map(String::as_str);
    let meant = ours.or_else(|| nearest(language, known.iter().map(String::as_str)));
    let meant = meant.map(|meant| format!("{meant} may be meant; ")).unwrap_or_default();
    let advice = "`fawn new --list` lists them, and `faas-cli template pull URL` brings others";
    format!("there is no template {language}: {meant}{advice}").into()
}

/// The languages that there are templates for: in the binary, and in the project.
pub(crate) fn languages(project: &Path) -> BTreeSet<String> {
    let mut languages: BTreeSet<String> = embedded().into_iter().map(str::to_owned).collect();
    // A project without templates of its own is as good.
    for entry in fs::read_dir(project.join(FOLDER)).into_iter().flatten().flatten() {
        // Other names can be no language's, and may steer a terminal.
        let name = entry.file_name().into_string().ok().filter(|name| check_language(name).is_ok());
        if entry.path().join(SETTINGS_FILE).is_file() {
            languages.extend(name);
        }
    }
    languages
}

/// What a language is called, by its template in the project, else in the binary.
pub(crate) fn title(project: &Path, language: &str) -> Option<String> {
    let own = read_settings(&project.join(FOLDER).join(language)).ok();
    own.or_else(|| embedded_settings(language).ok()?)?.language
}

/// What a template has its functions started with. Templates that are nowhere, and only name what made an image, have no say.
pub(crate) fn process(project: &Path, language: &str) -> Result<Option<String>> {
    if project.join(FOLDER).join(language).exists() {
        return Ok(Template::find(project, language)?.settings.fprocess);
    }
    Ok(embedded_settings(language)?.and_then(|settings| settings.fprocess))
}

fn embedded_settings(language: &str) -> Result<Option<Settings>> {
    let file = EMBEDDED.iter().find(|file| file.name == format!("{language}/{SETTINGS_FILE}"));
    file.map(|file| Ok(serde_yaml_ng::from_slice(file.bytes)?)).transpose()
}

fn embedded() -> BTreeSet<&'static str> {
    EMBEDDED.iter().filter_map(|file| file.name.split_once('/')).map(|(language, _)| language).collect()
}

/// Puts a template into the project: the whole of it, or nothing.
fn put(files: &[File], project: &Path, language: &str) -> Result<()> {
    let templates = project.join(FOLDER);
    fs::create_dir_all(&templates)?;
    confine(&project.canonicalize()?, &templates)?;
    let unfinished = tempfile::Builder::new().prefix(".new-").tempdir_in(&templates)?;
    for file in files {
        let Some(path) = file.name.strip_prefix(language).and_then(|rest| rest.strip_prefix('/')) else {
            continue;
        };
        let path = unfinished.path().join(path);
        fs::create_dir_all(path.parent().context("a template's file lies in a folder")?)?;
        fs::write(&path, file.bytes)?;
        if file.executable {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        }
    }
    // Made for its owner alone.
    fs::set_permissions(unfinished.path(), fs::Permissions::from_mode(0o755))?;
    match fs::rename(unfinished.path(), templates.join(language)) {
        // Another `fawn` was faster.
        Err(error) if is_taken(&error) => Ok(()),
        renamed => Ok(renamed?),
    }
}

fn is_taken(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::DirectoryNotEmpty)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILES: &[File] = &[
        File { name: "a/template.yml", executable: false, bytes: b"language: A\n" },
        File { name: "a/build.sh", executable: true, bytes: b"true\n" },
        File { name: "a/function/main.a", executable: false, bytes: b"main\n" },
        File { name: "ab/template.yml", executable: false, bytes: b"language: AB\n" },
    ];

    fn with_template(settings: &str) -> tempfile::TempDir {
        let project = tempfile::tempdir().unwrap();
        let folder = project.path().join("template/mine");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(SETTINGS_FILE), settings).unwrap();
        project
    }

    #[test]
    fn a_template_is_put_whole_and_replaces_nothing() {
        let project = tempfile::tempdir().unwrap();
        put(FILES, project.path(), "a").unwrap();
        let folder = project.path().join("template/a");
        assert_eq!(fs::read_to_string(folder.join("function/main.a")).unwrap(), "main\n");
        let mode = |name: &str| folder.join(name).metadata().unwrap().permissions().mode() & 0o111;
        assert_eq!((mode("build.sh"), mode("template.yml")), (0o111, 0));
        fs::write(folder.join("template.yml"), "language: mine\n").unwrap();
        put(FILES, project.path(), "a").unwrap();
        assert_eq!(title(project.path(), "a").as_deref(), Some("mine"));
        let left = fs::read_dir(project.path().join("template")).unwrap().count();
        assert_eq!(left, 1, "nothing unfinished is left");
    }

    #[test]
    fn the_repository_s_templates_are_in_the_binary_and_build() {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../templates");
        let folders = fs::read_dir(repository).unwrap().map(|entry| entry.unwrap());
        let there: BTreeSet<_> = folders
            .filter(|entry| entry.path().join(SETTINGS_FILE).is_file())
            .map(|entry| entry.file_name().into_string().unwrap())
            .collect();
        assert!(!there.is_empty());
        assert_eq!(there, embedded().into_iter().map(str::to_owned).collect());
        let project = tempfile::tempdir().unwrap();
        for language in &there {
            let template = Template::find(project.path(), language).unwrap();
            assert!(template.builds_modules(), "{language}");
            assert!(template.settings.language.is_some(), "{language}");
            assert!(template.folder.join(template.handler_folder()).is_dir(), "{language}");
        }
    }

    #[test]
    fn a_language_that_is_not_there_is_told_with_what_may_be_meant() {
        let project = with_template("language: Mine\n");
        let error = Template::find(project.path(), "mime").unwrap_err();
        assert!(error.is::<Mistakes>() && error.to_string().contains("mine may be meant"), "{error}");
        for (language, meant) in [("rust", "rust-wasm"), ("python3-http", "python-wasm")] {
            let error = Template::find(project.path(), language).unwrap_err().to_string();
            assert!(error.contains(&format!("{meant} may be meant")), "{error}");
        }
        for bad in ["", "..", "../up", "a/b", ".hidden", "a b"] {
            assert!(
                Template::find(project.path(), bad).unwrap_err().to_string().contains("is not a language")
            );
        }
    }

    #[test]
    fn a_template_s_paths_stay_below_it() {
        let project = with_template("handler_folder: ../..\n");
        let error = Template::find(project.path(), "mine").unwrap_err().to_string();
        assert!(error.contains("handler_folder"), "{error}");
        let elsewhere = with_template("language: A\n");
        let link = project.path().join("template/link");
        std::os::unix::fs::symlink(elsewhere.path().join("template/mine"), link).unwrap();
        let error = Template::find(project.path(), "link").unwrap_err().to_string();
        assert!(error.contains("leads out of the project"), "{error}");

        // Nor is a template of the binary put anywhere else.
        let project = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), project.path().join(FOLDER)).unwrap();
        let language = *embedded().first().unwrap();
        let error = format!("{:#}", Template::find(project.path(), language).unwrap_err());
        assert!(error.contains("leads out of the project"), "{error}");
        assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 1, "nothing was made there");
    }

    #[test]
    fn a_template_says_what_its_functions_are_started_with() {
        let project = with_template("fprocess: python3 index.py\n");
        assert_eq!(process(project.path(), "mine").unwrap().as_deref(), Some("python3 index.py"));
        assert_eq!(process(project.path(), "nowhere").unwrap(), None);
        for language in embedded() {
            process(project.path(), language).unwrap();
            assert!(!project.path().join(FOLDER).join(language).exists(), "{language} was put there");
        }
    }

    #[test]
    fn a_folder_whose_name_is_no_language_is_not_listed() {
        let project = with_template("language: Mine\n");
        let folder = project.path().join(FOLDER);
        fs::create_dir(folder.join("a\u{1b}[2J")).unwrap();
        fs::copy(folder.join("mine").join(SETTINGS_FILE), folder.join("a\u{1b}[2J").join(SETTINGS_FILE))
            .unwrap();
        let mut expected: BTreeSet<String> = embedded().into_iter().map(str::to_owned).collect();
        expected.insert("mine".into());
        assert_eq!(languages(project.path()), expected);
    }

    #[test]
    fn build_options_stand_for_packages() {
        let project = with_template(
            "build_options:\n- {name: dev, packages: [make, gcc]}\n- {name: tls, packages: [openssl]}\n",
        );
        let template = Template::find(project.path(), "mine").unwrap();
        assert_eq!(template.packages(&["tls".into(), "dev".into()]).unwrap(), ["openssl", "make", "gcc"]);
        let error = template.packages(&["xml".into()]).unwrap_err().to_string();
        assert!(error.contains("no build option xml") && error.contains("dev, tls"), "{error}");
    }
}
