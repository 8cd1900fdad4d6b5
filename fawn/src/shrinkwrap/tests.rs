use std::{cell::Cell, os::unix::fs::symlink};

use super::*;

/// A folder, and the digest of what was built there last.
struct Project(tempfile::TempDir, Cell<Option<runtime_api::Digest>>);

impl Project {
    fn new() -> Self {
        let project = Self(tempfile::tempdir().unwrap(), Cell::default());
        project.write("template/t/template.yml", "language: T\n");
        project.write("template/t/build.sh", "true\n");
        project.write("template/t/glue/glue.t", "glue\n");
        project.write("template/t/function/sample.t", "sample\n");
        project.write("f/main.t", "main\n");
        project.write("f/part/one.t", "one\n");
        project
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Whether anything is otherwise than at the last time.
    fn wrap_with(&self, handler: &str, copy: &[&str]) -> Result<bool> {
        let template = Template::find(self.0.path(), "t")?;
        let copy: Vec<String> = copy.iter().map(|path| (*path).to_owned()).collect();
        let digest = wrap(self.0.path(), "f", &template, Path::new(handler), &copy)?.digest()?;
        Ok(self.1.replace(Some(digest)) != Some(digest))
    }

    fn wrap(&self) -> bool {
        self.wrap_with("./f", &[]).unwrap()
    }

    fn refused(&self, handler: &str, copy: &[&str]) -> String {
        format!("{:#}", self.wrap_with(handler, copy).unwrap_err())
    }

    fn built(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.path("build/f").join(path)).ok()
    }
}

#[test]
fn a_function_is_its_template_with_its_handler_inside() {
    let project = Project::new();
    assert!(project.wrap());
    assert_eq!(project.built("glue/glue.t").as_deref(), Some("glue\n"));
    assert_eq!(project.built("function/part/one.t").as_deref(), Some("one\n"));
    assert_eq!(project.built("function/sample.t"), None, "the sample is not the handler");
    assert!(!project.wrap(), "nothing changed");
}

#[test]
fn what_changed_is_copied_what_went_is_removed_and_caches_stay() {
    let project = Project::new();
    project.wrap();
    project.write("build/f/target/cache", "cached");
    project.write("build/f/function/node_modules/x.js", "cached");
    project.write("build/f/function/part/made.o", "made");
    project.write("f/main.t", "niam\n");
    fs::remove_file(project.path("f/part/one.t")).unwrap();
    fs::remove_dir(project.path("f/part")).unwrap();
    assert!(project.wrap());
    assert_eq!(project.built("function/main.t").as_deref(), Some("niam\n"));
    assert_eq!(project.built("function/part/one.t"), None);
    for cache in ["target/cache", "function/node_modules/x.js", "function/part/made.o"] {
        assert!(project.built(cache).is_some(), "{cache}");
    }
    // A mode is part of a file; and what a build did to it is undone, which is no change.
    fs::set_permissions(project.path("f/main.t"), fs::Permissions::from_mode(0o755)).unwrap();
    assert!(project.wrap());
    project.write("build/f/function/main.t", "mine\n");
    assert!(!project.wrap());
    assert_eq!(project.built("function/main.t").as_deref(), Some("niam\n"));
}

#[test]
fn a_file_and_a_folder_change_places() {
    let project = Project::new();
    project.wrap();
    fs::remove_dir_all(project.path("f/part")).unwrap();
    project.write("f/part", "now a file");
    assert!(project.wrap());
    fs::remove_file(project.path("f/part")).unwrap();
    project.write("f/part/two.t", "two\n");
    assert!(project.wrap());
    assert_eq!(project.built("function/part/two.t").as_deref(), Some("two\n"));
}

#[test]
fn what_is_no_code_is_not_copied() {
    let project = Project::new();
    for path in [
        "f/build/x",
        "f/template/x",
        "f/node_modules/x",
        "f/.git/x",
        "f/target/CACHEDIR.TAG",
        "f/venv/pyvenv.cfg",
    ] {
        project.write(path, "x");
    }
    project.write("f/src/build/kept.t", "kept");
    project.wrap();
    for folder in ["build", "template", "node_modules", ".git", "target", "venv"] {
        assert!(!project.path("build/f/function").join(folder).exists(), "{folder}");
    }
    assert!(project.built("function/src/build/kept.t").is_some());
    // The project itself as handler: it does not contain its own copy.
    assert!(project.wrap_with(".", &[]).unwrap());
    assert!(project.built("function/f/main.t").is_some() && !project.path("build/f/function/build").exists());
}

#[test]
fn further_paths_lie_in_the_handler() {
    let project = Project::new();
    project.write("common/a/lib.t", "lib");
    project.write("common.txt", "text");
    project.wrap_with("f", &["./common/a", "common.txt"]).unwrap();
    assert!(
        project.built("function/common/a/lib.t").is_some() && project.built("function/common.txt").is_some()
    );
    assert!(project.refused("f", &["."]).contains("the whole project"));
    assert!(project.refused("f", &["../x"]).contains("configuration.copy"));
}

#[test]
fn no_path_leads_out_of_the_project() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "secret").unwrap();
    let project = Project::new();
    for handler in ["..", "/", outside.path().to_str().unwrap()] {
        assert!(project.refused(handler, &[]).contains("leads out of the project"), "{handler}");
    }
    assert!(project.refused("nowhere", &[]).contains("there is no nowhere"));
    assert!(project.refused("f/main.t", &[]).contains("is not a folder"));
    symlink(outside.path().join("secret"), project.path("f/link")).unwrap();
    assert!(project.refused("f", &[]).contains("leads out of the project"));
    fs::remove_file(project.path("f/link")).unwrap();

    // What a build left in the way is not followed either.
    project.wrap();
    fs::remove_dir_all(project.path("build/f/function")).unwrap();
    symlink(outside.path(), project.path("build/f/function")).unwrap();
    project.wrap();
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1, "nothing was written outside");
    assert!(project.built("function/main.t").is_some());

    // What was copied once and is no longer wanted is not removed elsewhere.
    fs::write(outside.path().join("one.t"), "precious").unwrap();
    fs::remove_dir_all(project.path("build/f/function/part")).unwrap();
    symlink(outside.path(), project.path("build/f/function/part")).unwrap();
    fs::remove_file(project.path("f/part/one.t")).unwrap();
    project.wrap();
    let precious = || fs::read_to_string(outside.path().join("one.t")).ok();
    assert_eq!(precious().as_deref(), Some("precious"), "a file outside was removed");

    // Nor do our own files' names lead anywhere.
    for (name, expected) in [(LOCK, "cannot be opened"), (RECORD, "is damaged")] {
        for target in ["one.t", "made"] {
            let link = project.path("build/f").join(name);
            fs::remove_file(&link).unwrap();
            symlink(outside.path().join(target), &link).unwrap();
            let said = project.refused("f", &[]);
            assert!(said.contains(expected) && said.contains("remove "), "{said}");
        }
        fs::remove_dir_all(project.path("build/f")).unwrap();
        project.wrap();
    }
    assert_eq!(precious().as_deref(), Some("precious"), "a file outside was written");
    fs::remove_file(outside.path().join("one.t")).unwrap();

    fs::remove_dir_all(project.path("build")).unwrap();
    symlink(outside.path(), project.path("build")).unwrap();
    assert!(project.refused("f", &[]).contains("leads out of the project"));
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1, "nothing was made outside");
}

#[test]
fn a_link_in_a_circle_ends() {
    let project = Project::new();
    symlink(project.path("f"), project.path("f/again")).unwrap();
    assert!(project.refused("f", &[]).contains("folders deep"));
}

#[test]
fn one_builds_at_a_time() {
    let project = Project::new();
    let template = Template::find(project.0.path(), "t").unwrap();
    let _first = wrap(project.0.path(), "f", &template, Path::new("f"), &[]).unwrap();
    assert!(project.wrap_with("f", &[]).unwrap_err().is::<Busy>());
}

#[test]
fn a_change_that_another_copied_is_one_all_the_same() {
    let project = Project::new();
    project.wrap();
    project.write("f/main.t", "niam\n");
    let template = Template::find(project.0.path(), "t").unwrap();
    drop(wrap(project.0.path(), "f", &template, Path::new("f"), &[]).unwrap());
    assert!(project.wrap());
}

#[test]
fn a_record_is_believed_only_below_its_folder() {
    let project = Project::new();
    project.wrap();
    project.write("precious", "kept");
    fs::write(project.path("build/f").join(RECORD), r#"["../../precious"]"#).unwrap();
    assert!(project.refused("f", &[]).contains("is damaged"));
    assert!(project.path("precious").exists());
}
